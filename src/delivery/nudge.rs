//! Waking an event loop after other threads touched what it serves, and letting it come round.
//!
//! Flet's `page.update()` puts into an `asyncio.Queue` from a worker, which the loop does not
//! notice by itself: it must be woken. And it must get to run: it gives the interpreter away with
//! every write to a socket, and a worker that takes it keeps it for a switch interval, so that the
//! loop would write once in that time until all the workers are done. Workers therefore *give way*
//! between two calls: they wait, detached, until the loop has been through its ready callbacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::event_loop::{self, running};
use crate::fork::Inherited;
use crate::once::intern;
use crate::python::{self, Keyword};
use crate::report;

/// Workers give way after their first call, so that the first message is on its way at once; then
/// after a turn that doubles from the shortest to the longest. To hand the interpreter over and
/// back costs about as much as a short handler.
const SHORTEST: Duration = Duration::from_millis(1);
/// Less than the interpreter's switch interval.
const LONGEST: Duration = Duration::from_millis(4);
/// Work that begins after a pause of this length begins with the shortest turn.
const PAUSE: Duration = Duration::from_millis(10);
/// How long workers wait for a loop that does not come round: it is busy, or blocked, perhaps by
/// waiting for a handler. From then on they wait less and less often, until it does.
const PATIENCE: Duration = Duration::from_millis(5);

/// A way to wake a loop. One wake-up is under way at a time: what happens before the loop comes
/// round is covered by it.
pub struct Nudge(Py<Nudged>);

impl Nudge {
    /// A way to wake `event_loop`.
    pub fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let nudged = Nudged {
            event_loop: event_loop.clone().unbind(),
            in_context: event_loop::in_empty_context(event_loop.py())?,
            threads_take_turns: threads_take_turns(event_loop.py())?,
            under_way: AtomicBool::new(false),
            meeting: Inherited::new(Meeting::default()),
        };
        Py::new(event_loop.py(), nudged).map(Self)
    }

    /// Wakes the loop, unless a wake-up is under way.
    #[inline]
    pub fn nudge(&self, py: Python<'_>) {
        let nudged = self.0.get();
        // Where threads take turns, the loop cannot be coming round at this moment: what it looks
        // at then includes what happened before now.
        if nudged.threads_take_turns && nudged.under_way.load(Ordering::Acquire) {
            return;
        }
        if !nudged.under_way.swap(true, Ordering::AcqRel) {
            self.wake(py);
        }
    }

    fn wake(&self, py: Python<'_>) {
        let nudged = self.0.get();
        nudged.round(py).begin();
        let schedule = intern!(py, "call_soon_threadsafe");
        if let Err(error) = nudged.schedule(self.0.bind(py), schedule) {
            nudged.round(py).since = None;
            // A loop that is closed has nobody left to wake, now or later.
            if !event_loop::is_closed(nudged.event_loop.bind(py)).unwrap_or(true) {
                nudged.under_way.store(false, Ordering::Release);
                report::contained(py, Err(error), None);
            }
        }
    }

    /// Whether a worker's turn is over.
    pub fn is_overdue(&self, py: Python<'_>) -> bool {
        let nudged = self.0.get();
        nudged.threads_take_turns
            && nudged.under_way.load(Ordering::Acquire)
            && nudged.round(py).is_overdue()
    }

    /// Lets the loop come round.
    pub fn give_way(&self, py: Python<'_>) {
        let nudged = self.0.get();
        let here = running(py);
        // Some executors run their jobs on the loop's own thread.
        if !here.is_ok_and(|here| here.is_some_and(|here| here.is(&nudged.event_loop))) {
            let meeting = nudged.meeting.get();
            python::detached(py, || meeting.wait());
        }
    }

    /// Whether the loop is running.
    pub fn is_running(&self, py: Python<'_>) -> bool {
        event_loop::is_running(self.0.get().event_loop.bind(py)).unwrap_or(false)
    }

    /// Begins anew in a child process, whose copy of the lock may be taken for ever. A loop of the
    /// parent's is not woken from here.
    pub fn inherit(&self, is_the_parents: bool) {
        let nudged = self.0.get();
        nudged.meeting.replace(Meeting::default());
        nudged.under_way.store(is_the_parents, Ordering::Release);
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

/// Whether only one thread at a time runs Python code. Where they all do, nobody has to give way.
fn threads_take_turns(py: Python<'_>) -> PyResult<bool> {
    match py.import("sys")?.getattr("_is_gil_enabled") {
        Ok(is_enabled) => is_enabled.call0()?.is_truthy(),
        Err(_) => Ok(true),
    }
}

/// One time of coming round.
#[derive(Default)]
struct Round {
    /// When the wake-up was asked for that is under way.
    since: Option<Instant>,
    /// Workers wait for it.
    awaited: bool,
    /// The loop has been here, and comes back when it has been through what was ready then.
    returns: bool,
    /// How long workers go on before they give way.
    turn: Duration,
    /// When the loop last came round.
    last: Option<Instant>,
}

impl Round {
    /// Enters a wake-up.
    fn begin(&mut self) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now - last > PAUSE) {
            self.turn = Duration::ZERO;
        }
        self.since = Some(now);
    }

    fn is_overdue(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= self.turn)
    }

    /// Enters that the loop does not come: workers go on, for longer each time.
    fn lose_patience(&mut self) {
        self.turn = self.turn.saturating_mul(2).max(PATIENCE);
        self.since = Some(Instant::now());
    }

    /// Enters that the loop has come round.
    fn end(&mut self) {
        let turn = if self.awaited {
            self.turn.saturating_mul(2).clamp(SHORTEST, LONGEST)
        } else {
            self.turn
        };
        *self = Self {
            turn,
            last: Some(Instant::now()),
            ..Self::default()
        };
    }
}

/// Where workers and the loop meet. Waited at detached, so that a fork can come in the middle: with
/// a lock that has no memory outside of itself, unlike `parking_lot`'s, a child can have a fresh one.
#[derive(Default)]
struct Meeting {
    round: Mutex<Round>,
    came_round: Condvar,
}

impl Meeting {
    /// Waits until the loop has come round; detached.
    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        while round.is_overdue() {
            round.awaited = true;
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.came_round.wait_timeout(round, left);
            round = waited.unwrap_or_else(PoisonError::into_inner).0;
            if Instant::now() >= deadline && round.is_overdue() {
                round.lose_patience();
                self.came_round.notify_all();
            }
        }
    }
}

/// What the loop runs when it was nudged.
#[pyclass(frozen, module = "pagebus._core")]
pub struct Nudged {
    event_loop: Py<PyAny>,
    in_context: Keyword,
    threads_take_turns: bool,
    /// The loop was woken and has not come round.
    under_way: AtomicBool,
    meeting: Inherited<Meeting>,
}

impl Nudged {
    /// The round that is under way, never waited for while attached.
    fn round(&self, py: Python<'_>) -> MutexGuard<'_, Round> {
        loop {
            match self.meeting.get().round.try_lock() {
                Ok(round) => return round,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => python::detached(py, std::thread::yield_now),
            }
        }
    }

    fn schedule(&self, own: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        let event_loop = self.event_loop.bind(own.py());
        python::insist_then_raise(own.py(), || {
            let in_context = Some(&self.in_context);
            python::call_method(event_loop, method, [own.as_any()], in_context).map(drop)
        })
    }

    /// Enters that the loop is here; `false` if it has to come once more, because what workers
    /// did after they had nudged it is behind this callback.
    fn comes_round(&self, py: Python<'_>) -> bool {
        let mut round = self.round(py);
        if round.awaited && !std::mem::replace(&mut round.returns, true) {
            return false;
        }
        round.end();
        self.under_way.store(false, Ordering::Release);
        self.meeting.get().came_round.notify_all();
        true
    }
}

#[pymethods]
impl Nudged {
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, own) = (slf.py(), slf.get());
        if own.comes_round(py) {
            return Ok(());
        }
        own.schedule(slf, intern!(py, "call_soon"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        self.in_context.traverse(&visit)
    }
}
