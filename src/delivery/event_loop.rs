//! Delivery on an event loop: how sending threads wake it, and what it starts when woken.

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use triomphe::Arc;

use super::drain::{self, Phase};
use super::duty::Duty;
use super::nudge::Nudge;
use crate::core::LaneKey;
use crate::hub::PubSubHub;
use crate::name::must_be;
use crate::python::{self, Keyword};

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
        })
    }

    /// A lane on the loop that a hub was given.
    pub fn given(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        static KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = event_loop.py();
        let kind = KIND.import(py, "asyncio", "AbstractEventLoop")?;
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

    /// Whether the loop is closed.
    pub fn is_closed(&self, py: Python<'_>) -> bool {
        is_closed(self.event_loop.bind(py)).unwrap_or(true)
    }

    /// An error if the loop is closed.
    pub fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        if is_closed(self.event_loop.bind(py))? {
            return Err(PyRuntimeError::new_err("the hub's event loop is closed"));
        }
        Ok(())
    }

    /// The event loop.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.event_loop.bind(py)
    }

    /// Keyword arguments for a task on the event loop.
    pub fn task_arguments<'py>(&self, py: Python<'py>) -> &Bound<'py, PyDict> {
        self.task_arguments.bind(py)
    }

    /// Wakes the loop, if this thread is not the one that runs it.
    pub fn nudge_from_thread(&self, py: Python<'_>) {
        if !self.is_running_here(py).unwrap_or(false) {
            self.nudge.nudge(py);
        }
    }

    /// Runs `phase` in a task of its own, soon, from whatever thread.
    pub fn start(lane: &Arc<Self>, py: Python<'_>, phase: Phase) -> PyResult<()> {
        let starter = Starter {
            lane: lane.clone(),
            phase: Mutex::new(Some(phase)),
        };
        let schedule = if lane.is_running_here(py)? {
            intern!(py, "call_soon")
        } else {
            intern!(py, "call_soon_threadsafe")
        };
        let starter = Bound::new(py, starter)?;
        let event_loop = lane.event_loop.bind(py);
        python::call_method(
            event_loop,
            schedule,
            [starter.as_any()],
            Some(&lane.in_context),
        )?;
        Ok(())
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

/// `context=` an empty one.
pub fn in_empty_context(py: Python<'_>) -> PyResult<Keyword> {
    static CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let context = CONTEXT.import(py, "contextvars", "Context")?.call0()?;
    Keyword::new(intern!(py, "context"), context)
}

/// The event loop that runs on this thread.
pub fn running(py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let event_loop = CELL.import(py, "asyncio", "_get_running_loop")?.call0()?;
    Ok((!event_loop.is_none()).then(|| event_loop.unbind()))
}

/// Whether an event loop is closed.
pub fn is_closed(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    python::call_method(event_loop, intern!(event_loop.py(), "is_closed"), [], None)?.is_truthy()
}

/// Makes the loop come for what is in its log. A loop that the hub was given and that is closed
/// is the sender's error; the subscribers of any other closed loop are cut off.
pub fn wake(lane: &Arc<LoopLane>, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let py = hub.py();
    let duty = Arc::new(Duty::new(hub.clone().unbind(), lane.clone()));
    let Err(error) = LoopLane::start(lane, py, Phase::Dispatching(duty)) else {
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
struct Starter {
    lane: Arc<LoopLane>,
    phase: Mutex<Option<Phase>>,
}

#[pymethods]
impl Starter {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let phase = self.phase.lock().take();
        phase.map_or(Ok(()), |phase| drain::spawn(py, &self.lane, phase))
    }
}
