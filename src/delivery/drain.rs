//! The tasks that deliver on an event loop: coroutines whose steps are written in Rust.
//!
//! A task per delivery costs more than most handlers do, so one *drain* task walks the deliveries
//! and drives each handler's coroutine itself. A coroutine that ends without suspending costs
//! nothing more. When one suspends, the drain task *becomes* that handler's task: it passes on
//! what the coroutine yields, so that `asyncio.current_task()`, `asyncio.timeout()` and
//! `cancel()` mean that handler and nothing else; a fresh drain task takes the rest.
//!
//! A handler that looked at its task, or kept it, without suspending owns it as well: it is not
//! used for anybody else's delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{ffi, intern};

use super::event_loop::{self, LoopLane};
use super::handler::{Kind, is_awaitable, is_quit};
use super::{Envelope, Fanout, Subscription};
use crate::core::router::Parked;
use crate::hub::{PubSubHub, SYNC};
use crate::report;

/// How long a drain task keeps the loop before other callbacks get their turn.
const SLICE: Duration = Duration::from_millis(1);
/// Deliveries between two looks at the clock, at the most.
const STRIDE: u32 = 64;
/// Drain tasks made at once, at the most, when handler after handler suspends.
const SPARES: usize = 64;

// ---- who has to deliver ---------------------------------------------------------------------

/// The duty to empty a loop's log. Drain tasks share it; it ends when one finds the log empty.
/// If the last one goes before that, because the loop was closed, the messages are reported.
pub struct Duty {
    hub: Py<PubSubHub>,
    lane: Arc<LoopLane>,
    done: AtomicBool,
    /// A drain task waits for its next turn: the others are not needed.
    resting: AtomicBool,
}

impl Duty {
    /// The duty of a lane that was just woken.
    pub fn new(hub: Py<PubSubHub>, lane: Arc<LoopLane>) -> Self {
        Self {
            hub,
            lane,
            done: AtomicBool::new(false),
            resting: AtomicBool::new(false),
        }
    }

    /// Whether a task that was made to spare has anything to do.
    fn needs_another(&self) -> bool {
        !self.done.load(Ordering::Acquire) && !self.resting.load(Ordering::Acquire)
    }

    /// The next message, if there is one; else the duty ends.
    fn next_fanout(&self, py: Python<'_>) -> Option<Fanout> {
        let hub = self.hub.bind(py);
        let change = |router: &mut super::Router, trash: &mut super::Trash| {
            let fanout = router.next_fanout(self.lane.key, trash);
            self.done.store(fanout.is_none(), Ordering::Release);
            fanout
        };
        let fanout = hub.get().change(py, change)?;
        report::topic_recovered(hub, &fanout);
        Some(fanout)
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if *self.done.get_mut() {
            return;
        }
        Python::try_attach(|py| {
            let hub = self.hub.bind(py);
            let current = self.lane.current.lock().take();
            let count = hub
                .get()
                .change(py, |router, trash| router.abandon(self.lane.key, trash));
            report::undeliverable(
                hub,
                count + usize::from(current.is_some()),
                "the event loop is closed",
            );
        });
    }
}

/// One handler's message, and the messages that wait behind it.
pub struct Serving {
    hub: Py<PubSubHub>,
    lane: Arc<LoopLane>,
    subscription: Arc<Subscription>,
    envelope: Arc<Envelope>,
    /// What it awaits; `None` before the handler is called.
    awaitable: Option<Py<PyAny>>,
    /// The handler's calls are in order, so the next message waits for this one.
    serial: bool,
}

impl Serving {
    fn new(
        hub: Py<PubSubHub>,
        lane: Arc<LoopLane>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
        awaitable: Option<Py<PyAny>>,
    ) -> Self {
        let serial = !subscription.handler.overlaps;
        let (subscription, envelope) = (subscription.clone(), envelope.clone());
        Self {
            hub,
            lane,
            subscription,
            envelope,
            awaitable,
            serial,
        }
    }

    /// Frees the handler, or takes the message that waits for it.
    fn next_envelope(&self, py: Python<'_>) -> Option<Arc<Envelope>> {
        let hub = self.hub.bind(py);
        if self.subscription.handler.kind == Kind::Sync && hub.get().executor().is_some() {
            let ready = |ready| {
                if let Some(executor) = hub.get().executor() {
                    executor.ready(ready);
                }
            };
            let wake = hub.get().change(py, |router, _| {
                router.requeue(SYNC, &self.subscription, ready)
            });
            if let Some(Err(error)) = wake.map(|deliverer| deliverer.wake(hub)) {
                error.write_unraisable(py, Some(hub));
            }
            return None;
        }
        let (next, burst) = hub
            .get()
            .change(py, |router, _| router.unpark(&self.subscription));
        report::recovered(hub, &self.subscription, burst);
        next
    }

    /// Lets the waiting messages go: the loop that they wait for is closed.
    fn give_up(&self, py: Python<'_>) {
        let (hub, mut count) = (self.hub.bind(py), 0);
        while let (Some(_), _) = hub
            .get()
            .change(py, |router, _| router.unpark(&self.subscription))
        {
            count += 1;
        }
        report::undeliverable(hub, count, "the event loop is closed");
    }

    /// Goes on with the messages that wait, if any, in a task of its own.
    fn pass_on(mut self, py: Python<'_>) {
        if !std::mem::take(&mut self.serial) {
            return;
        }
        if let Some(envelope) = self.next_envelope(py) {
            let (hub, lane) = (self.hub.clone_ref(py), self.lane.clone());
            let next = Self::new(hub, lane.clone(), &self.subscription, &envelope, None);
            respawn(py, &lane, Phase::Serving(next));
        }
    }
}

impl Drop for Serving {
    /// A task that was destroyed while its handler waited: the handler's other messages go on.
    fn drop(&mut self) {
        if !self.serial {
            return;
        }
        self.serial = false;
        Python::try_attach(|py| {
            let (hub, lane) = (self.hub.clone_ref(py), self.lane.clone());
            if lane.check_open(py).is_err() {
                self.give_up(py);
                return;
            }
            if let Some(envelope) = self.next_envelope(py) {
                let next = Self::new(hub, lane.clone(), &self.subscription, &envelope, None);
                if let Err(error) = lane.start(py, Phase::Serving(next)) {
                    error.write_unraisable(py, None);
                }
            }
        });
    }
}

// ---- the task -------------------------------------------------------------------------------

/// What a drain task does next.
pub enum Phase {
    /// Walk the log.
    Dispatching(Arc<Duty>),
    /// Drive one handler's coroutine.
    Serving(Serving),
}

/// The coroutine of a drain task.
#[pyclass(frozen, module = "pagebus._core", weakref)]
pub struct Drain {
    lane: Arc<LoopLane>,
    phase: Mutex<Option<Phase>>,
    /// Somebody looked at the task.
    touched: AtomicBool,
    /// The task waits for its next turn in the middle of a walk.
    rests: AtomicBool,
}

/// Makes a task for `phase`; on the loop's own thread.
pub fn spawn(py: Python<'_>, lane: &Arc<LoopLane>, phase: Phase) -> PyResult<()> {
    static TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (phase, touched, rests) = (
        Mutex::new(Some(phase)),
        AtomicBool::default(),
        AtomicBool::default(),
    );
    let drain = Drain {
        lane: lane.clone(),
        phase,
        touched,
        rests,
    };
    let task = TASK.import(py, "pagebus._task", "HandlerTask")?;
    task.call((drain,), Some(lane.on_loop(py))).map(drop)
}

/// [`spawn`] where there is nobody to tell of a failure but the log.
fn respawn(py: Python<'_>, lane: &Arc<LoopLane>, phase: Phase) {
    if let Err(error) = spawn(py, lane, phase) {
        error.write_unraisable(py, None);
    }
}

type Step = PyResult<Option<Py<PyAny>>>;

#[pymethods]
impl Drain {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Step {
        self.step(py, None)
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = value.py();
        self.step(py, None)?
            .ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        let error = PyErr::from_value(value.unwrap_or(kind).clone());
        self.step(kind.py(), Some(error))?
            .ok_or_else(|| PyStopIteration::new_err(()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let phase = self.phase.lock().take();
        let Some(Phase::Serving(mut serving)) = phase else {
            return Ok(());
        };
        let awaitable = serving.awaitable.take();
        serving.pass_on(py);
        awaitable.map_or(Ok(()), |a| {
            a.bind(py).call_method0(intern!(py, "close")).map(drop)
        })
    }

    /// Called when anybody looks at the task.
    fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(phase) = self.phase.try_lock()
            && let Some(Phase::Serving(serving)) = &*phase
        {
            visit.call(&serving.hub)?;
            visit.call(&serving.awaitable)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let phase = self.phase.try_lock().and_then(|mut phase| phase.take());
        drop(phase);
    }
}

impl Drain {
    fn step(&self, py: Python<'_>, thrown: Option<PyErr>) -> Step {
        let phase = self.phase.lock().take();
        match phase {
            None => thrown.map_or(Ok(None), Err),
            Some(Phase::Serving(serving)) => self.serve(py, serving, thrown),
            Some(Phase::Dispatching(duty)) => {
                let rested = self.rests.swap(false, Ordering::AcqRel);
                if rested {
                    duty.resting.store(false, Ordering::Release);
                }
                match thrown {
                    None if rested || duty.needs_another() => self.dispatch(py, duty),
                    None => Ok(None),
                    // The task was cancelled between two handlers: nobody's message is lost.
                    Some(error) => {
                        self.succeed(py, duty);
                        Err(error)
                    }
                }
            }
        }
    }

    // ---- walking the log --------------------------------------------------------------------

    fn dispatch(&self, py: Python<'_>, duty: Arc<Duty>) -> Step {
        let watch = Watch::new(py, &self.touched)?;
        let current = self.lane.current.lock().take();
        let mut current = current.or_else(|| duty.next_fanout(py));
        let mut walk = Walk {
            duty: &duty,
            watch,
            slice: Slice::new(),
            delivered: 0,
        };
        let stop = loop {
            let Some(fanout) = &mut current else {
                self.lane.spares.store(1, Ordering::Relaxed);
                return Ok(None);
            };
            match walk.run(py, fanout) {
                None => current = duty.next_fanout(py),
                Some(stop) => break stop,
            }
        };
        drop(walk);
        *self.lane.current.lock() = current;
        self.stop(py, duty, stop)
    }

    /// Ends this task's turn, or its part of the walk.
    fn stop(&self, py: Python<'_>, duty: Arc<Duty>, stop: Stop) -> Step {
        if matches!(stop, Stop::Turn) {
            duty.resting.store(true, Ordering::Release);
            self.rests.store(true, Ordering::Release);
            *self.phase.lock() = Some(Phase::Dispatching(duty));
            return Ok(Some(py.None()));
        }
        self.succeed(py, duty);
        match stop {
            Stop::Suspended(serving, yielded) => {
                *self.phase.lock() = Some(Phase::Serving(*serving));
                Ok(Some(yielded))
            }
            Stop::Quit(error) => Err(error),
            Stop::Turn | Stop::Owned => Ok(None),
        }
    }

    /// Sees to it that some other task takes the rest of the walk. Where one handler suspended,
    /// the next ones probably do too: tasks made together run in the same turn of the loop.
    fn succeed(&self, py: Python<'_>, duty: Arc<Duty>) {
        if Arc::strong_count(&duty) > 1 || duty.done.load(Ordering::Acquire) {
            return;
        }
        let mut current = self.lane.current.lock().take();
        if !current.as_mut().is_some_and(Fanout::seek) {
            current = duty.next_fanout(py);
        }
        let Some(fanout) = current else { return };
        let left = fanout.remaining();
        *self.lane.current.lock() = Some(fanout);
        let spares = self.lane.spares.load(Ordering::Relaxed);
        self.lane
            .spares
            .store((spares * 2).min(SPARES), Ordering::Relaxed);
        for _ in 1..spares.min(left) {
            respawn(py, &self.lane, Phase::Dispatching(duty.clone()));
        }
        respawn(py, &self.lane, Phase::Dispatching(duty));
    }

    // ---- driving one handler ----------------------------------------------------------------

    fn serve(&self, py: Python<'_>, mut serving: Serving, thrown: Option<PyErr>) -> Step {
        let watch = Watch::new(py, &self.touched)?;
        let mut slice = Slice::new();
        let resumed = serving.awaitable.take();
        let mut owned = resumed.is_some();
        let mut outcome = match (resumed, thrown) {
            (Some(awaitable), thrown) => serving.resume(py, awaitable, thrown),
            (None, None) => serving.start(py),
            (None, Some(error)) => {
                // Cancelled before the handler was called: its message goes on.
                respawn(py, &self.lane, Phase::Serving(serving));
                return Err(error);
            }
        };
        loop {
            let hub = serving.hub.bind(py);
            match outcome {
                Outcome::Suspended(awaitable, yielded) => {
                    serving.awaitable = Some(awaitable);
                    *self.phase.lock() = Some(Phase::Serving(serving));
                    return Ok(Some(yielded));
                }
                Outcome::Failed(error) if is_quit(py, &error) => {
                    serving.pass_on(py);
                    return Err(error);
                }
                Outcome::Failed(error) => {
                    report::failure(hub, &serving.subscription, &serving.envelope, error);
                }
                Outcome::Done => {}
            }
            owned = owned || watch.owned() || slice.is_over();
            if owned || !serving.serial {
                serving.pass_on(py);
                return Ok(None);
            }
            let Some(envelope) = serving.next_envelope(py) else {
                serving.serial = false;
                return Ok(None);
            };
            serving.envelope = envelope;
            outcome = serving.start(py);
        }
    }
}

// ---- one walk -------------------------------------------------------------------------------

/// Why a walk stops before the log is empty.
enum Stop {
    /// Other callbacks of the loop get their turn.
    Turn,
    /// A handler suspended: the task is its own now.
    Suspended(Box<Serving>, Py<PyAny>),
    /// A handler looked at the task, or kept it: the task is its own now.
    Owned,
    /// An exception meant for the process.
    Quit(PyErr),
}

struct Walk<'a, 'py> {
    duty: &'a Duty,
    watch: Watch<'a, 'py>,
    slice: Slice,
    delivered: u64,
}

impl Walk<'_, '_> {
    /// Calls the handlers that get one message; `None` when all were called.
    fn run(&mut self, py: Python<'_>, fanout: &mut Fanout) -> Option<Stop> {
        while fanout.seek()
            && let Some(subscription) = fanout.current()
        {
            let envelope = &fanout.envelope;
            if subscription.is_busy() && self.waits(py, subscription, envelope) {
                fanout.advance();
                continue;
            }
            self.delivered += 1;
            let mut stop = None;
            match start(py, subscription, envelope) {
                Outcome::Done => {}
                Outcome::Suspended(awaitable, yielded) => {
                    let serving = self.serving(py, subscription, envelope, awaitable);
                    stop = Some(Stop::Suspended(Box::new(serving), yielded));
                }
                Outcome::Failed(error) if is_quit(py, &error) => stop = Some(Stop::Quit(error)),
                Outcome::Failed(error) => {
                    report::failure(self.duty.hub.bind(py), subscription, envelope, error);
                }
            }
            fanout.advance();
            if stop.is_some() {
                return stop;
            }
            if self.watch.owned() {
                return Some(Stop::Owned);
            }
            if self.slice.is_over() {
                return Some(Stop::Turn);
            }
        }
        None
    }

    fn serving(
        &self,
        py: Python<'_>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
        awaitable: Py<PyAny>,
    ) -> Serving {
        let (hub, lane) = (self.duty.hub.clone_ref(py), self.duty.lane.clone());
        let serving = Serving::new(hub, lane, subscription, envelope, Some(awaitable));
        if serving.serial {
            self.duty
                .hub
                .get()
                .change(py, |router, _| router.set_busy(subscription, true));
        }
        serving
    }

    /// Leaves the message for a handler that is busy.
    fn waits(
        &self,
        py: Python<'_>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
    ) -> bool {
        let hub = self.duty.hub.bind(py);
        let parked = hub.get().change(py, |router, trash| {
            router.park(subscription, envelope, trash)
        });
        report::parked(hub, subscription, &parked);
        !matches!(parked, Parked::Free)
    }
}

impl Drop for Walk<'_, '_> {
    fn drop(&mut self) {
        self.duty.hub.get().counters.add_delivered(self.delivered);
    }
}

/// Notices when somebody takes an interest in the task that runs.
struct Watch<'a, 'py> {
    task: Bound<'py, PyAny>,
    references: isize,
    touched: &'a AtomicBool,
}

impl<'a, 'py> Watch<'a, 'py> {
    fn new(py: Python<'py>, touched: &'a AtomicBool) -> PyResult<Self> {
        static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let task = CELL.import(py, "asyncio", "current_task")?.call0()?;
        touched.store(false, Ordering::Release);
        let references = references(&task);
        Ok(Self {
            task,
            references,
            touched,
        })
    }

    /// Whether a handler used the task, or kept it.
    fn owned(&self) -> bool {
        self.touched.load(Ordering::Acquire) || references(&self.task) > self.references
    }
}

fn references(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: attached, and `object` is alive.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// A drain task's turn. Looks at the clock the more often the slower the handlers are.
struct Slice {
    started: Instant,
    calls: u32,
    unchecked: u32,
}

impl Slice {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            calls: 0,
            unchecked: 1,
        }
    }

    fn is_over(&mut self) -> bool {
        self.calls += 1;
        self.unchecked -= 1;
        if self.unchecked > 0 {
            return false;
        }
        let elapsed = self.started.elapsed();
        let each = (elapsed / self.calls).max(Duration::from_nanos(1));
        let left = SLICE.saturating_sub(elapsed).as_nanos() / each.as_nanos();
        self.unchecked = u32::try_from(left / 4).unwrap_or(STRIDE).clamp(1, STRIDE);
        elapsed >= SLICE
    }
}

// ---- one call -------------------------------------------------------------------------------

/// What a handler did.
enum Outcome {
    /// It is done.
    Done,
    /// It awaits: what is driven, and what it yielded to the loop.
    Suspended(Py<PyAny>, Py<PyAny>),
    /// It raised.
    Failed(PyErr),
}

impl Outcome {
    fn of(result: PyResult<Self>) -> Self {
        result.unwrap_or_else(Self::Failed)
    }
}

/// Calls a handler and drives what it returns until that suspends or ends.
fn start(py: Python<'_>, subscription: &Subscription, envelope: &Envelope) -> Outcome {
    let handler = &subscription.handler;
    Outcome::of(handler.enter(py).and_then(|_inside| {
        let value = handler.call_inside(py, &envelope.message)?;
        match iterator(value)? {
            Some(awaitable) => drive(&awaitable, None),
            None => Ok(Outcome::Done),
        }
    }))
}

impl Serving {
    fn start(&self, py: Python<'_>) -> Outcome {
        self.hub.get().counters.add_delivered(1);
        start(py, &self.subscription, &self.envelope)
    }

    fn resume(&self, py: Python<'_>, awaitable: Py<PyAny>, thrown: Option<PyErr>) -> Outcome {
        let inside = self.subscription.handler.enter(py);
        Outcome::of(inside.and_then(|_inside| drive(&awaitable.into_bound(py), thrown)))
    }
}

/// What has to be driven to await `value`; `None` if it cannot be awaited.
fn iterator(value: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static COROUTINE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    if value.is_none() {
        return Ok(None);
    }
    if value
        .get_type()
        .is(COROUTINE.import(py, "types", "CoroutineType")?)
    {
        return Ok(Some(value));
    }
    if !is_awaitable(&value)? {
        return Ok(None);
    }
    match value.getattr(intern!(py, "__await__")) {
        Ok(method) => method.call0().map(Some),
        // A generator that `types.coroutine` marked.
        Err(_) => Ok(Some(value)),
    }
}

/// Sends `None`, or throws an exception, into an awaitable's iterator.
fn drive(awaitable: &Bound<'_, PyAny>, thrown: Option<PyErr>) -> PyResult<Outcome> {
    let py = awaitable.py();
    let suspended = |yielded| Outcome::Suspended(awaitable.clone().unbind(), yielded);
    if let Some(error) = thrown {
        let result = awaitable.call_method1(intern!(py, "throw"), (error.into_value(py),));
        return match result {
            Ok(yielded) => Ok(suspended(yielded.unbind())),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Outcome::Done),
            Err(error) => Err(error),
        };
    }
    let mut result = std::ptr::null_mut();
    // SAFETY: attached; both objects are alive; `result` receives a new reference, or null
    // together with an exception.
    let status =
        unsafe { ffi::PyIter_Send(awaitable.as_ptr(), py.None().as_ptr(), &raw mut result) };
    if status == ffi::PySendResult::PYGEN_ERROR {
        return Err(PyErr::fetch(py));
    }
    // SAFETY: the send succeeded, so `result` is a new reference.
    let result = unsafe { Bound::from_owned_ptr(py, result) };
    match status {
        ffi::PySendResult::PYGEN_NEXT => Ok(suspended(result.unbind())),
        _ => Ok(Outcome::Done),
    }
}

/// Awaits, on a loop, what a sync handler returned. Until it is done, the handler is busy.
pub fn finish_on_loop(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
    value: &Bound<'_, PyAny>,
) {
    if let Err(error) = try_finish_on_loop(hub, subscription, envelope, value) {
        report::failure(hub, subscription, envelope, error);
    }
}

fn try_finish_on_loop(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let Some(awaitable) = iterator(value.clone())? else {
        return Ok(());
    };
    let (py, own) = (hub.py(), hub.get());
    let Some(lane) = lane_to_finish_on(hub, subscription)? else {
        awaitable.call_method0(intern!(py, "close"))?;
        return Err(PyRuntimeError::new_err(
            "the handler returned an awaitable, and there is no event loop to await it on: \
             create the hub with PubSubHub(loop=...)",
        ));
    };
    lane.check_open(py)?;
    let awaitable = Some(awaitable.unbind());
    let serving = Serving::new(
        hub.clone().unbind(),
        lane.clone(),
        subscription,
        envelope,
        awaitable,
    );
    if serving.serial {
        own.change(py, |router, _| router.set_busy(subscription, true));
    }
    lane.start(py, Phase::Serving(serving))
}

fn lane_to_finish_on(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
) -> PyResult<Option<Arc<LoopLane>>> {
    let py = hub.py();
    if let Some(lane) = hub.get().event_loop() {
        return Ok(Some(lane.clone()));
    }
    let home = subscription
        .handler
        .home(py)
        .map(|home| home.clone().unbind());
    let event_loop = home.map_or_else(|| event_loop::running(py), |home| Ok(Some(home)))?;
    event_loop
        .map(|found| LoopLane::new(found.bind(py), false).map(Arc::new))
        .transpose()
}
