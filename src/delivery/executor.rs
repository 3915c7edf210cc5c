//! Delivery on worker threads: sync handlers of a hub with an executor.
//!
//! A job on the executor takes call after call from the log, and with each the session that makes
//! it. Calls whose session is inside another one wait in the session's queue, which stands in a
//! run queue when the session is free again. One job serves many sessions; a handler that blocks
//! occupies one worker and its own session, nobody else: a further job is started as soon as there
//! is work and every job is inside a handler.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use once_cell::sync::Lazy;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyType;
use triomphe::Arc;

use super::context::Contexts;
use super::delivering::Delivering;
use super::handler::is_quit;
use super::nudge::Nudge;
use super::pace::Pace;
use super::{Deliverer, Envelope, Router, Subscription, Trash, call, finish};
use crate::core::router::{NextCall, Ready};
use crate::core::worker::{Site, Worker};
use crate::fork::{Heir, Process};
use crate::hub::{PubSubHub, SYNC};
use crate::name::must_be;
use crate::once::intern;
use crate::python;
use crate::report;
use crate::timing::Sampler;

type Next = NextCall<super::Handler, super::Message>;

/// Deliveries between two looks at the clock: sync handlers may block, and so hold up others.
const STRIDE: u32 = 4;

/// Workers where an executor does not say how many it has: what `ThreadPoolExecutor` would take.
static DEFAULT_WORKERS: Lazy<usize> = Lazy::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores + 4).min(32)
});

/// The hub's executor and its run queue.
pub struct ExecutorLane {
    /// `None` where a child process cannot have one.
    executor: Mutex<Option<Py<PyAny>>>,
    /// How many jobs the executor can run at once.
    pub workers: usize,
    nudge: Option<Nudge>,
    ready: (Sender<Ready>, Receiver<Ready>),
}

impl ExecutorLane {
    /// The executor that a hub was given.
    pub fn new(executor: &Bound<'_, PyAny>, nudge: Option<Nudge>) -> PyResult<Self> {
        let py = executor.py();
        let submit = executor.getattr(intern!(py, "submit"));
        if !submit.is_ok_and(|submit| submit.is_callable()) || executor.is_instance_of::<PyType>() {
            return Err(must_be(
                "executor",
                "an object with a submit() method",
                executor,
            ));
        }
        if is_process_pool(executor)? {
            return Err(PyTypeError::new_err(
                "executor must run in this process, as threads do",
            ));
        }
        let workers = executor
            .getattr(intern!(py, "_max_workers"))
            .and_then(|n| n.extract());
        let workers = workers.unwrap_or(*DEFAULT_WORKERS).max(1);
        let executor = Mutex::new(Some(executor.clone().unbind()));
        let lane = Self {
            executor,
            workers,
            nudge,
            ready: crossbeam_channel::unbounded(),
        };
        lane.check_open(py)
            .map_err(|_| PyValueError::new_err("executor is shut down"))?;
        Ok(lane)
    }

    /// An error if the executor is shut down.
    pub fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        let flag = self.executor(py)?.getattr(intern!(py, "_shutdown"));
        if flag.and_then(|flag| flag.is_truthy()).unwrap_or(false) {
            return Err(PyRuntimeError::new_err("the hub's executor is shut down"));
        }
        Ok(())
    }

    fn executor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let executor = self.executor.lock();
        let executor = executor
            .as_ref()
            .map(|executor| executor.bind(py).to_owned());
        executor.ok_or_else(|| {
            PyRuntimeError::new_err(
                "the threads of the hub's executor are in the process that forked this one: \
                 make a hub with an executor of this process",
            )
        })
    }

    /// Starts a job for a worker that was entered. If the executor takes none, that is the
    /// sender's error, unless another worker does the work.
    pub fn wake(&self, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
        let (submitted, outside) = self.submit(hub);
        match submitted {
            Err(error) if lose_worker(hub) => Err(error),
            _ => outside,
        }
    }

    /// Gives the executor a job; if it takes none, the worker's place stays with the caller. The
    /// second value is what came from outside meanwhile, as with [`python::insist`].
    fn submit(&self, hub: &Bound<'_, PubSubHub>) -> (PyResult<()>, PyResult<()>) {
        let py = hub.py();
        let job = Job {
            hub: Mutex::new(Some(hub.clone().unbind())),
            process: Process::this(),
        };
        let ready = self
            .executor(py)
            .and_then(|e| Ok((e, Bound::new(py, job)?)));
        let (executor, job) = match ready {
            Ok(ready) => ready,
            Err(error) => return (Err(error), Ok(())),
        };
        // Submitted twice, it works once.
        let (submitted, outside) = python::insist(py, || {
            let submit = intern!(py, "submit");
            python::call_method(&executor, submit, [job.as_any()], None).map(drop)
        });
        let submitted = submitted.or_else(|error| {
            // Where the error came after all, the job may be at work.
            let hub = job.get().hub.lock().take();
            hub.map_or(Ok(()), |_hub| Err(error))
        });
        (submitted, outside)
    }

    /// Enters a session, or a call that may overlap, for any worker to take.
    pub fn ready(&self, ready: Ready) {
        // The receiver lives as long as the sender: sending cannot fail.
        let _ = self.ready.0.send(ready);
    }

    /// Forgets whatever was entered.
    pub fn forget_ready(&self) {
        while self.ready.1.try_recv().is_ok() {}
    }

    fn has_ready(&self) -> bool {
        !self.ready.1.is_empty()
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(executor) = self.executor.try_lock() {
            visit.call(&*executor)?;
        }
        self.nudge
            .as_ref()
            .map_or(Ok(()), |nudge| nudge.traverse(visit))
    }
}

impl Heir for ExecutorLane {
    fn inherit(&self, py: Python<'_>) {
        if let Ok(executor) = self.executor(py) {
            let heir = heir_of(&executor).unwrap_or_else(|error| {
                error.write_unraisable(py, Some(&executor));
                None
            });
            // The parent's is let go of: nobody empties its queue here, and that refers to the hub.
            let before = std::mem::replace(&mut *self.executor.lock(), heir);
            drop(before);
        }
        if let Some(nudge) = &self.nudge {
            nudge.inherit(nudge.is_running(py));
        }
    }
}

/// What takes an executor's place in a child process, if anything can.
fn heir_of(executor: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    let module = executor.py().import("pagebus._fork")?;
    let heir = python::call(&module.getattr("heir_of")?, [executor])?;
    Ok((!heir.is_none()).then(|| heir.unbind()))
}

fn is_process_pool(executor: &Bound<'_, PyAny>) -> PyResult<bool> {
    let modules = executor.py().import("sys")?.getattr("modules")?;
    match modules.get_item("concurrent.futures.process") {
        Ok(module) => executor.is_instance(&module.getattr("ProcessPoolExecutor")?),
        Err(_) => Ok(false),
    }
}

// ---- the job --------------------------------------------------------------------------------

/// What the executor runs. Dropping one that never ran (the executor was shut down) reports what
/// it would have delivered, unless another job will. The copies that a child process has of its
/// parent's do nothing.
#[pyclass(frozen, module = "pagebus._core")]
pub struct Job {
    hub: Mutex<Option<Py<PubSubHub>>>,
    process: Process,
}

#[pymethods]
impl Job {
    fn __call__(&self, py: Python<'_>) {
        let hub = self.hub.lock().take();
        if let Some(hub) = hub
            && self.process.is_this()
        {
            run(hub.bind(py));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get_mut().take()
            && self.process.is_this()
        {
            python::in_drop(|py| {
                lose_worker(hub.bind(py));
            });
        }
    }
}

/// Enters that a worker is gone. The last one, as it tells, takes what it would have delivered
/// with it.
fn lose_worker(hub: &Bound<'_, PubSubHub>) -> bool {
    let Some(lane) = hub.get().executor() else {
        return false;
    };
    let left = hub.get().change(hub.py(), |router, trash| {
        router.lose_worker(SYNC).then(|| {
            while lane.ready.1.try_recv().is_ok() {}
            router.abandon(SYNC, trash) + router.abandon_calls(SYNC, trash)
        })
    });
    report::undeliverable(hub, left.unwrap_or(0), "the executor takes no work");
    left.is_some()
}

// ---- the work -------------------------------------------------------------------------------

/// A job at work.
struct Bench<'a, 'py> {
    hub: &'a Bound<'py, PubSubHub>,
    lane: &'a ExecutorLane,
    contexts: Contexts<'py>,
    pace: Pace,
    sampler: Sampler<'a>,
    /// A handler can fork: the copy of the worker in the child has nothing more to do.
    process: Process,
}

fn run(hub: &Bound<'_, PubSubHub>) {
    if let Some(lane) = hub.get().executor() {
        let _delivering = Delivering::begin(hub.get());
        let bench = Bench {
            hub,
            lane,
            contexts: Contexts::new(hub.py()),
            pace: Pace::new(STRIDE),
            sampler: Sampler::new(hub.get()),
            process: Process::this(),
        };
        Worker::new(bench, SYNC).work();
    }
}

impl Site for Bench<'_, '_> {
    type Handler = super::Handler;
    type Message = super::Message;
    type Deliverer = Deliverer;

    fn is_here(&self) -> bool {
        self.process.is_this()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Router, &mut Trash) -> T) -> T {
        self.hub.get().change(self.hub.py(), change)
    }

    fn enter_ready(&self, ready: Ready) {
        self.lane.ready(ready);
    }

    fn has_ready(&self) -> bool {
        self.lane.has_ready()
    }

    fn take_ready(&self) -> Option<Ready> {
        self.lane.ready.1.try_recv().ok()
    }

    fn start_worker(&self) {
        let woken = self.lane.wake(self.hub);
        self.pass_to_program(woken);
    }

    fn submit_successor(&self) -> bool {
        if self.lane.check_open(self.hub.py()).is_err() {
            return false;
        }
        let (submitted, outside) = self.lane.submit(self.hub);
        self.pass_to_program(outside);
        submitted.is_ok()
    }

    fn call(&mut self, next: &Next) {
        let (subscription, envelope) = &next.call;
        self.deliver(subscription, envelope);
        if let Some(nudge) = &self.lane.nudge {
            nudge.nudge(self.hub.py());
        }
    }

    /// Whether the event loop waits for its turn.
    fn must_pause(&mut self) -> bool {
        if !self.pace.count() {
            return false;
        }
        self.sampler.suspect(self.pace.lap());
        let nudge = self.lane.nudge.as_ref();
        nudge.is_some_and(|nudge| nudge.is_overdue(self.hub.py()))
    }

    fn pause(&mut self) {
        if let Some(nudge) = &self.lane.nudge {
            nudge.give_way(self.hub.py());
        }
    }

    #[cold]
    fn report(&self) {
        report::losses(self.hub);
    }

    fn elapsed(&self) -> Duration {
        self.pace.elapsed()
    }

    fn begin_turn(&mut self) {
        self.pace = Pace::new(STRIDE);
    }
}

impl Bench<'_, '_> {
    /// What is meant for the process and came to a worker.
    fn pass_to_program(&self, result: PyResult<()>) {
        if let Err(error) = result
            && is_quit(self.hub.py(), &error)
        {
            report::contained(self.hub.py(), Err(error), Some(self.hub));
        }
    }

    fn deliver(&mut self, subscription: &Arc<Subscription>, envelope: &Arc<Envelope>) {
        let (hub, py) = (self.hub, self.hub.py());
        let timed = self
            .sampler
            .picks()
            .then(|| self.sampler.begin(subscription, envelope));
        let result = call::call(&mut self.contexts, py, subscription, envelope);
        let result = result.map_err(|raised| raised.fetch(py));
        self.contexts.leave();
        if let Some(timed) = timed {
            self.sampler.end(py, timed, &subscription.handler);
        }
        match result {
            // A hook may have run since the call was handed out, and ended the subscription.
            Ok(None) => return,
            Ok(Some(value)) if value.is_none() => {}
            Ok(Some(value)) => {
                if let Err(error) = finish::on_loop(hub, subscription, envelope, &value) {
                    report::failure(hub, subscription, envelope, error);
                }
            }
            Err(error) => report::failure(hub, subscription, envelope, error),
        }
        hub.get().counters.add_delivered(1);
    }
}
