//! Delivery on an event loop: how sending threads wake it, and what it starts when woken.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use triomphe::Arc;

use super::drain::{self, Drain, Phase};
use super::duty::Duty;
use super::nudge::Nudge;
use crate::core::LaneKey;
use crate::fork::{Heir, Process, Shared};
use crate::hub::PubSubHub;
use crate::name::must_be;
use crate::once::{Imported, intern};
use crate::python::{self, Keyword};
use crate::report;

/// An event loop that delivers to async handlers.
pub struct LoopLane {
    /// The lane's place in the router.
    pub key: LaneKey,
    /// Whether the hub was given this loop, rather than found it running at `subscribe`.
    pub given: bool,
    event_loop: Py<PyAny>,
    /// `context=` an empty context: what the hub itself schedules keeps nobody's variables alive.
    in_context: Keyword,
    /// `loop=` the event loop, `name=` one for all tasks: to make a name for each costs time.
    task_arguments: Py<PyDict>,
    nudge: Nudge,
    /// A handler was suspended on it.
    pub has_suspended: AtomicBool,
    /// How far the walk is over those who get a message: `Fanout::passed`.
    pub passed: AtomicU64,
    /// The loop was running at a fork, in the parent of this process.
    is_the_parents: AtomicBool,
    /// It was logged that nothing is delivered any more.
    has_told_end: AtomicBool,
}

impl LoopLane {
    /// A lane on `event_loop`.
    pub fn new(event_loop: &Bound<'_, PyAny>, given: bool) -> PyResult<Self> {
        let py = event_loop.py();
        let task_arguments = PyDict::new(py);
        task_arguments.set_item(intern!(py, "loop"), event_loop)?;
        task_arguments.set_item(intern!(py, "name"), intern!(py, "pagebus"))?;
        Ok(Self {
            key: LaneKey::MAX,
            given,
            event_loop: event_loop.clone().unbind(),
            in_context: in_empty_context(py)?,
            task_arguments: task_arguments.unbind(),
            nudge: Nudge::new(event_loop)?,
            has_suspended: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            is_the_parents: AtomicBool::new(false),
            has_told_end: AtomicBool::new(false),
        })
    }

    /// A lane on the loop that a hub was given.
    pub fn given(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        static KIND: Imported = Imported::new("asyncio", "AbstractEventLoop");
        let py = event_loop.py();
        let kind = KIND.get(py)?;
        if !event_loop.is_instance(kind)? {
            return Err(must_be("loop", "an event loop", event_loop));
        }
        let lane = Self::new(event_loop, true)?;
        lane.check_open(py)
            .map_err(|_| PyValueError::new_err("loop is closed"))?;
        Ok(lane)
    }

    /// The same lane, at its place in the router.
    pub fn with_key(self, key: LaneKey) -> Self {
        Self { key, ..self }
    }

    /// Whether this is the lane of `event_loop`.
    pub fn runs_on(&self, event_loop: &Py<PyAny>) -> bool {
        self.event_loop.is(event_loop)
    }

    /// Whether the loop belongs to the parent of this process, where it was running: it cannot run
    /// here.
    pub fn is_the_parents(&self) -> bool {
        self.is_the_parents.load(Ordering::Acquire)
    }

    /// Whether the loop is closed, or belongs to another process.
    pub fn is_closed(&self, py: Python<'_>) -> bool {
        let event_loop = self.event_loop.bind(py);
        let (is_closed, outside) = python::insist(py, || is_closed(event_loop));
        report::contained(py, outside, None);
        self.is_the_parents() || is_closed.unwrap_or(true)
    }

    /// An error if the loop is closed, or belongs to another process.
    pub fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_the_parents() {
            return Err(PyRuntimeError::new_err(
                "the hub's event loop was running when this process was forked, and does not run \
                 here: make a hub with a loop of this process",
            ));
        }
        if is_closed(self.event_loop.bind(py))? {
            return Err(PyRuntimeError::new_err("the hub's event loop is closed"));
        }
        Ok(())
    }

    /// The event loop.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.event_loop.bind(py)
    }

    /// What runs in the tasks of the event loop that deliver and are not done.
    pub fn drains<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, Drain>>> {
        static ALL_TASKS: Imported = Imported::new("asyncio", "all_tasks");
        let all_tasks = ALL_TASKS.get(py)?;
        let tasks = python::call(all_tasks, [self.event_loop.bind(py)])?;
        let mut drains = Vec::new();
        for task in tasks.try_iter()? {
            let coroutine = python::call_method(&task?, intern!(py, "get_coro"), [], None);
            // Tasks of other classes may have none.
            drains.extend(coroutine.ok().and_then(|found| found.cast_into().ok()));
        }
        Ok(drains)
    }

    /// Keyword arguments for a task on the event loop.
    pub fn task_arguments<'py>(&self, py: Python<'py>) -> &Bound<'py, PyDict> {
        self.task_arguments.bind(py)
    }

    /// Why nothing is delivered by a lane that is closed.
    pub fn why_closed(&self) -> &'static str {
        if self.is_the_parents() {
            "the event loop does not run in this process"
        } else {
            "the event loop is closed"
        }
    }

    /// Reports that messages are lost because the loop is closed: once, since every session that
    /// leaves afterwards may lose what it would have told others by that.
    pub fn tell_end(&self, hub: &Bound<'_, PubSubHub>, count: usize) {
        if count > 0 && !self.has_told_end.swap(true, Ordering::Relaxed) {
            report::undeliverable(hub, count, self.why_closed());
        }
    }

    /// Wakes the loop, if this thread is not the one that runs it.
    pub fn nudge_from_thread(&self, py: Python<'_>) {
        if !self.is_the_parents() && !self.is_running_here(py).unwrap_or(false) {
            self.nudge.nudge(py);
        }
    }

    /// Runs `phase` in a task of its own, soon, from whatever thread.
    pub fn start(self: &Shared<Self>, py: Python<'_>, phase: Phase) -> PyResult<()> {
        if self.is_the_parents() {
            return self.check_open(py);
        }
        let starter = Starter {
            process: Process::this(),
            lane: self.clone(),
            phase: Mutex::new(Some(phase)),
        };
        let schedule = if self.is_running_here(py)? {
            intern!(py, "call_soon")
        } else {
            intern!(py, "call_soon_threadsafe")
        };
        let starter = Bound::new(py, starter)?;
        let event_loop = self.event_loop.bind(py);
        // Scheduled twice, it starts once; scheduled, but the loop not woken, it would never start.
        python::insist_then_raise(py, || {
            let arguments = [starter.as_any()];
            python::call_method(event_loop, schedule, arguments, Some(&self.in_context)).map(drop)
        })
    }

    fn is_running_here(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(running(py)?.is_some_and(|running| self.runs_on(&running)))
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        self.in_context.traverse(visit)?;
        visit.call(&self.task_arguments)?;
        self.nudge.traverse(visit)
    }
}

impl Heir for LoopLane {
    fn inherit(&self, py: Python<'_>) {
        let is_running = is_running(self.event_loop.bind(py)).unwrap_or(false);
        self.is_the_parents.fetch_or(is_running, Ordering::AcqRel);
        self.nudge.inherit(is_running);
    }
}

/// `context=` an empty one.
pub fn in_empty_context(py: Python<'_>) -> PyResult<Keyword> {
    static CONTEXT: Imported = Imported::new("contextvars", "Context");
    let context = CONTEXT.get(py)?.call0()?;
    Keyword::new(intern!(py, "context"), context)
}

/// The event loop that runs on this thread.
pub fn running(py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
    static CELL: Imported = Imported::new("asyncio", "_get_running_loop");
    let event_loop = CELL.get(py)?.call0()?;
    Ok((!event_loop.is_none()).then(|| event_loop.unbind()))
}

/// Whether an event loop is closed.
pub fn is_closed(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    python::call_method(event_loop, intern!(event_loop.py(), "is_closed"), [], None)?.is_truthy()
}

/// Whether an event loop is running, on whatever thread.
pub fn is_running(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    python::call_method(event_loop, intern!(event_loop.py(), "is_running"), [], None)?.is_truthy()
}

/// Makes the loop come for what is in its log. A loop that the hub was given and that is closed
/// is the sender's error; the subscribers of any other closed loop are cut off.
pub fn wake(lane: &Shared<LoopLane>, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let py = hub.py();
    let duty = Arc::new(Duty::new(hub.clone().unbind(), lane.clone(), None));
    let Err(error) = lane.start(py, Phase::Dispatching(duty)) else {
        return Ok(());
    };
    if !lane.is_closed(py) {
        return Err(error);
    }
    if lane.given {
        return lane.check_open(py);
    }
    hub.get().cut_off(py, lane);
    Ok(())
}

/// A callback that makes a task on the loop's own thread.
#[pyclass(frozen, module = "pagebus._core")]
pub struct Starter {
    process: Process,
    lane: Shared<LoopLane>,
    phase: Mutex<Option<Phase>>,
}

#[pymethods]
impl Starter {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let phase = self.phase.lock().take();
        match phase {
            Some(phase) if self.process.is_this() => drain::spawn(py, &self.lane, phase),
            // What a handler returned is awaited in the parent, and only there.
            Some(Phase::Serving(serving)) => serving.close(py),
            None | Some(Phase::Dispatching(_)) => Ok(()),
        }
    }
}
