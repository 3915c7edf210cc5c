//! The tasks that deliver on an event loop: coroutines whose steps are written in Rust.
//!
//! A task per delivery costs more than most handlers do, so one *drain* task walks the deliveries
//! and drives each handler's coroutine itself. A coroutine that ends without suspending costs
//! nothing more. When one suspends, the drain task *becomes* that handler's task: it passes on
//! what the coroutine yields, so that `asyncio.current_task()`, `asyncio.timeout()` and
//! `cancel()` mean that handler and nothing else; a fresh drain task takes the rest.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::PyStopIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use triomphe::Arc;

use super::Subscription;
use super::call::Outcome;
use super::delivering::Delivering;
use super::duty::Duty;
use super::event_loop::LoopLane;
use super::handler::is_quit;
use super::pace::Pace;
use super::serving::Serving;
use super::walk::{SLICE, STRIDE, Stop, Walk};
use super::watch::{Interest, Watch};
use crate::fork::Shared;
use crate::hub::PubSubHub;
use crate::once::Imported;
use crate::python;
use crate::report;

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
    lane: Shared<LoopLane>,
    phase: Mutex<Option<Phase>>,
    interest: Interest,
    /// The task ended a turn, and begins the next one.
    rests: AtomicBool,
}

/// Makes a task for `phase`; on the loop's own thread.
pub fn spawn(py: Python<'_>, lane: &Shared<LoopLane>, phase: Phase) -> PyResult<()> {
    let mut phase = Some(phase);
    python::insist_then_raise(py, || try_spawn(py, lane, &mut phase))
}

/// Leaves the phase where it was if it fails. The task may be there all the same: it has nothing
/// to do then.
fn try_spawn(py: Python<'_>, lane: &Shared<LoopLane>, phase: &mut Option<Phase>) -> PyResult<()> {
    static TASK: Imported = Imported::new("pagebus._task", "HandlerTask");
    let task = TASK.get(py)?;
    let drain = Drain {
        lane: lane.clone(),
        phase: Mutex::new(phase.take()),
        interest: Interest::default(),
        rests: AtomicBool::new(false),
    };
    let drain = Bound::new(py, drain)?;
    let made = python::call_with(task, [drain.as_any()], Some(lane.task_arguments(py)));
    let task = made.inspect_err(|_| *phase = drain.get().phase.lock().take())?;
    drain.get().interest.begin(&task);
    Ok(())
}

/// [`spawn`] where there is nobody to tell of a failure.
pub fn respawn(py: Python<'_>, lane: &Shared<LoopLane>, phase: Phase) {
    let spawned = spawn(py, lane, phase);
    report::contained(py, spawned, None);
}

/// What a step yields; `None` is the end.
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
        self.step(value.py(), None)?
            .ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value=None, _traceback=None, /))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let error = PyErr::from_value(value.unwrap_or(kind).clone());
        self.step(kind.py(), Some(error))?
            .ok_or_else(|| PyStopIteration::new_err(()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let phase = self.phase.lock().take();
        match phase {
            Some(Phase::Serving(serving)) => {
                let _delivering = Delivering::begin(serving.hub.get());
                serving.close(py)
            }
            Some(Phase::Dispatching(duty)) => {
                if self.rests.swap(false, Ordering::AcqRel) {
                    duty.begin_turn();
                }
                self.succeed(py, duty);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What asyncio shows of the task.
    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> String {
        let callable = match &*self.phase.lock() {
            Some(Phase::Serving(serving)) => {
                let handler = &serving.subscription.handler;
                handler.callable(py).to_owned()
            }
            _ => return "pagebus deliveries".to_owned(),
        };
        report::describe(&callable)
    }

    /// Called when anybody looks at the task.
    fn touch(&self) {
        self.interest.touch();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.phase.try_lock().as_deref() {
            Some(Some(Phase::Serving(serving))) => serving.traverse(&visit),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let phase = self.phase.try_lock().and_then(|mut phase| phase.take());
        self.lose(phase);
    }
}

impl Drop for Drain {
    /// The loop may have lost the task at the end of a turn, and others wait for the next one.
    fn drop(&mut self) {
        let phase = self.phase.get_mut().take();
        self.lose(phase);
    }
}

impl Drain {
    fn lose(&self, phase: Option<Phase>) {
        if let Some(Phase::Dispatching(duty)) = &phase
            && self.rests.swap(false, Ordering::AcqRel)
        {
            duty.begin_turn();
        }
        drop(phase);
    }

    fn step(&self, py: Python<'_>, thrown: Option<PyErr>) -> Step {
        let phase = self.phase.lock().take();
        match phase {
            None => thrown.map_or(Ok(None), Err),
            Some(Phase::Serving(serving)) => {
                let _delivering = Delivering::begin(serving.hub.get());
                self.serve(py, serving, thrown)
            }
            Some(Phase::Dispatching(duty)) => {
                let _delivering = Delivering::begin(duty.hub.get());
                self.dispatch(py, duty, thrown)
            }
        }
    }

    /// As [`Serving::forsake`]: the loop is closed.
    pub fn forsake(&self, hub: &Bound<'_, PubSubHub>) -> Option<Arc<Subscription>> {
        match &mut *self.phase.lock() {
            Some(Phase::Serving(serving)) => serving.forsake(hub),
            _ => None,
        }
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock() = Some(phase);
    }

    // ---- walking the log --------------------------------------------------------------------

    fn dispatch(&self, py: Python<'_>, duty: Arc<Duty>, thrown: Option<PyErr>) -> Step {
        if self.rests.swap(false, Ordering::AcqRel) {
            duty.begin_turn();
        }
        if let Some(error) = thrown {
            // The task was cancelled between two handlers: nobody's message is lost.
            self.succeed(py, duty);
            return Err(error);
        }
        if duty.is_done() {
            return Ok(None);
        }
        if duty.resting.load(Ordering::Acquire) || duty.walking.load(Ordering::Acquire) {
            self.set(Phase::Dispatching(duty));
            return Ok(Some(py.None()));
        }
        if duty
            .pace
            .lock()
            .get_or_insert_with(|| Pace::new(STRIDE))
            .has_lasted(SLICE)
        {
            return Ok(Some(self.rest(py, duty)));
        }
        let watch = match Watch::new(self.lane.event_loop(py), &self.interest) {
            Ok(watch) => watch,
            Err(error) => {
                self.succeed(py, duty);
                return Err(error);
            }
        };
        duty.walking.store(true, Ordering::Release);
        let stop = Self::walk(py, &duty, watch);
        duty.walking.store(false, Ordering::Release);
        if !duty.process.is_this() {
            return Ok(None);
        }
        match stop {
            None => Ok(None),
            Some(stop) => self.stop(py, duty, stop),
        }
    }

    fn walk<'py>(py: Python<'py>, duty: &Duty, watch: Watch<'_, 'py>) -> Option<Stop> {
        let mut walk = Walk::new(py, duty, watch);
        let mut current = duty.take_current(py);
        while let Some(fanout) = &current
            && duty.process.is_this()
        {
            let stop = walk.run(py, fanout);
            if stop.is_some() {
                *duty.current.lock() = current;
                return stop;
            }
            current = duty.next_fanout(py);
        }
        None
    }

    /// Ends the turn: the loop comes back to this task first.
    fn rest(&self, py: Python<'_>, duty: Arc<Duty>) -> Py<PyAny> {
        duty.resting.store(true, Ordering::Release);
        self.rests.store(true, Ordering::Release);
        self.set(Phase::Dispatching(duty));
        py.None()
    }

    /// Ends this task's turn, or its part of the walk.
    fn stop(&self, py: Python<'_>, duty: Arc<Duty>, stop: Stop) -> Step {
        if matches!(stop, Stop::Turn) {
            return Ok(Some(self.rest(py, duty)));
        }
        self.succeed(py, duty);
        match stop {
            Stop::Suspended(serving, yielded) => {
                self.set(Phase::Serving(*serving));
                Ok(Some(yielded))
            }
            Stop::Quit(error) => Err(error),
            Stop::Turn | Stop::Owned => Ok(None),
        }
    }

    /// Sees to it that some other task takes the rest of the walk. Tasks that are made together
    /// run in the same turn of the loop.
    fn succeed(&self, py: Python<'_>, duty: Arc<Duty>) {
        if Arc::strong_count(&duty) > 1 || duty.is_done() {
            return;
        }
        let Some(fanout) = duty.take_current(py) else {
            return;
        };
        let spares = duty.spares_for(fanout.remaining());
        *duty.current.lock() = Some(fanout);
        for _ in 1..spares {
            respawn(py, &self.lane, Phase::Dispatching(duty.clone()));
        }
        respawn(py, &self.lane, Phase::Dispatching(duty));
    }

    // ---- driving one handler ----------------------------------------------------------------

    fn serve(&self, py: Python<'_>, mut serving: Serving, thrown: Option<PyErr>) -> Step {
        // A handler that was called before has had the time to take an interest in its task.
        let watch = if serving.is_begun() {
            None
        } else if let Some(error) = thrown {
            // Cancelled before the handler was called: its message goes on.
            respawn(py, &self.lane, Phase::Serving(serving));
            return Err(error);
        } else {
            match Watch::new(self.lane.event_loop(py), &self.interest) {
                Ok(watch) => Some(watch),
                Err(error) => {
                    respawn(py, &self.lane, Phase::Serving(serving));
                    return Err(error);
                }
            }
        };
        let is_owned = || watch.as_ref().is_none_or(Watch::is_owned);
        let (mut owned, mut pace) = (watch.is_none(), None);
        let mut outcome = serving.step(py, thrown);
        loop {
            let mut result = Ok(None);
            match outcome {
                Outcome::Done => {}
                Outcome::Suspended(suspended) => {
                    let yielded = serving.suspend(suspended);
                    self.set(Phase::Serving(serving));
                    return Ok(Some(yielded));
                }
                Outcome::Failed(error) if is_quit(py, &error) => result = Err(error),
                // The task that was cancelled says so.
                Outcome::Failed(error) if owned && report::is_cancellation(py, &error) => {
                    result = Err(error);
                }
                Outcome::Failed(error) => {
                    serving.report(py, error);
                }
            }
            owned = owned || is_owned();
            let pace = pace.get_or_insert_with(|| Pace::new(STRIDE));
            if owned || result.is_err() || (pace.count() && pace.elapsed() >= SLICE) {
                return serving.pass_on(py).and(result);
            }
            if !serving.advance(py)? {
                return Ok(None);
            }
            outcome = serving.call_again(py);
        }
    }
}
