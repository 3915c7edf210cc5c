//! Delivery on worker threads: sync handlers of a hub with an executor.
//!
//! Sessions with undelivered messages stand in a run queue. A job on the executor dispatches the
//! log to the sessions, takes a ready session, makes a bounded number of its calls, puts it back
//! if it has more, and goes on. One job serves many sessions; a handler that blocks occupies one
//! worker and its own session, nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use once_cell::sync::Lazy;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;

use super::event_loop::Nudge;
use super::{Envelope, Subscription, drain};
use crate::core::SessionKey;
use crate::core::router::Ready;
use crate::hub::{PubSubHub, SYNC};
use crate::report;

/// Calls dispatched before the first one is made.
const DISPATCH: usize = 1024;
/// Calls of one session before the next session gets its turn.
const BATCH: usize = 64;
/// Time of one session before the next session gets its turn.
const SESSION_TURN: Duration = Duration::from_millis(5);
/// Time of one job before other users of the executor get their turn.
const JOB_TURN: Duration = Duration::from_millis(50);

/// Workers where an executor does not say how many it has: what `ThreadPoolExecutor` would take.
static DEFAULT_WORKERS: Lazy<usize> = Lazy::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores + 4).min(32)
});

/// The hub's executor and its run queue.
pub struct ExecutorLane {
    executor: Py<PyAny>,
    workers: usize,
    nudge: Option<Nudge>,
    ready: (Sender<Ready>, Receiver<Ready>),
}

impl ExecutorLane {
    /// The executor that a hub was given.
    pub fn new(executor: &Bound<'_, PyAny>, nudge: Option<Nudge>) -> PyResult<Self> {
        let py = executor.py();
        let submit = executor.getattr(intern!(py, "submit"));
        if !submit.is_ok_and(|submit| submit.is_callable()) {
            let found = executor.get_type();
            let message = format!("executor must have a submit() method; {found} has none");
            return Err(PyTypeError::new_err(message));
        }
        let workers = executor
            .getattr(intern!(py, "_max_workers"))
            .and_then(|n| n.extract());
        let workers = workers.unwrap_or(*DEFAULT_WORKERS).max(1);
        let executor = executor.clone().unbind();
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
        let shut_down = self.executor.bind(py).getattr(intern!(py, "_shutdown"));
        if shut_down.and_then(|flag| flag.is_truthy()).unwrap_or(false) {
            return Err(PyRuntimeError::new_err("the hub's executor is shut down"));
        }
        Ok(())
    }

    /// Starts a job; the caller has entered it as a worker.
    pub fn wake(&self, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
        let py = hub.py();
        let job = Bound::new(py, Job(Mutex::new(Some(hub.clone().unbind()))))?;
        let submitted = self
            .executor
            .bind(py)
            .call_method1(intern!(py, "submit"), (&job,));
        submitted.map(drop).inspect_err(|_| job.get().lose(py))
    }

    /// Enters a session, or a call that may overlap, for any worker to take.
    pub fn ready(&self, ready: Ready) {
        // The receiver lives as long as the sender: sending cannot fail.
        let _ = self.ready.0.send(ready);
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.executor)?;
        self.nudge
            .as_ref()
            .map_or(Ok(()), |nudge| nudge.traverse(visit))
    }
}

/// What the executor runs. Dropping one that never ran (the executor was shut down) reports what
/// it would have delivered.
#[pyclass(frozen, module = "pagebus._core")]
pub struct Job(Mutex<Option<Py<PubSubHub>>>);

#[pymethods]
impl Job {
    fn __call__(&self, py: Python<'_>) {
        let hub = self.0.lock().take();
        if let Some(hub) = hub {
            run(hub.bind(py));
        }
    }
}

impl Job {
    fn lose(&self, py: Python<'_>) {
        let hub = self.0.lock().take();
        if let Some(hub) = hub {
            lose_worker(hub.bind(py));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(hub) = self.0.get_mut().take() {
            Python::try_attach(|py| lose_worker(hub.bind(py)));
        }
    }
}

/// Enters that a worker is gone; the last one takes what it would have delivered with it.
fn lose_worker(hub: &Bound<'_, PubSubHub>) {
    let own = hub.get();
    let left = own.change(hub.py(), |router, trash| {
        if router.lose_worker(SYNC) {
            router.abandon(SYNC, trash)
        } else {
            0
        }
    });
    report::undeliverable(hub, left, "the executor is shut down");
}

fn run(hub: &Bound<'_, PubSubHub>) {
    let Some(lane) = hub.get().executor() else {
        return;
    };
    let started = Instant::now();
    loop {
        dispatch(hub, lane);
        match lane.ready.1.try_recv() {
            Ok(ready) => {
                hire(hub, lane);
                serve(hub, lane, &ready);
            }
            Err(_) if dismissed(hub, lane) => return,
            Err(_) => {}
        }
        if started.elapsed() > JOB_TURN {
            // The job's place as a worker passes to the one that takes its turn.
            if let Err(error) = lane.wake(hub) {
                error.write_unraisable(hub.py(), Some(hub));
            }
            return;
        }
    }
}

/// Moves what was sent to the sessions' queues.
fn dispatch(hub: &Bound<'_, PubSubHub>, lane: &ExecutorLane) {
    let mut losses = Vec::new();
    hub.get().change(hub.py(), |router, trash| {
        if router.has_log(SYNC) {
            let (overlaps, ready) = (|h: &super::Handler| h.overlaps, |r| lane.ready(r));
            router.dispatch(SYNC, DISPATCH, overlaps, ready, &mut losses, trash);
        }
    });
    for (subscription, count) in &losses {
        report::loss(hub, subscription, *count);
    }
}

/// Gets one more worker, if there is work for one.
fn hire(hub: &Bound<'_, PubSubHub>, lane: &ExecutorLane) {
    let hired = hub.get().change(hub.py(), |router, _| {
        (!lane.ready.1.is_empty() || router.has_log(SYNC)) && router.hire(SYNC, lane.workers)
    });
    if hired && let Err(error) = lane.wake(hub) {
        error.write_unraisable(hub.py(), Some(hub));
    }
}

fn dismissed(hub: &Bound<'_, PubSubHub>, lane: &ExecutorLane) -> bool {
    hub.get().change(hub.py(), |router, _| {
        router.dismiss(SYNC, || lane.ready.1.is_empty())
    })
}

fn serve(hub: &Bound<'_, PubSubHub>, lane: &ExecutorLane, ready: &Ready) {
    let delivered = match *ready {
        Ready::Session(session) => serve_session(hub, lane, session),
        Ready::Overlapping => {
            let next = |router: &mut super::Router, trash: &mut super::Trash| {
                router.next_overlapping(SYNC, trash)
            };
            hub.get().change(hub.py(), next).map_or(0, |(call, burst)| {
                report::recovered(hub, &call.0, burst);
                make(hub, lane, &call.0, &call.1);
                1
            })
        }
    };
    hub.get().counters.add_delivered(delivered);
}

fn serve_session(hub: &Bound<'_, PubSubHub>, lane: &ExecutorLane, session: SessionKey) -> u64 {
    let (py, own, started) = (hub.py(), hub.get(), Instant::now());
    for delivered in 0..BATCH {
        dispatch(hub, lane);
        let next = own.change(py, |router, trash| router.next_call(session, trash));
        let Some((call, burst)) = next else {
            return delivered as u64;
        };
        report::recovered(hub, &call.0, burst);
        make(hub, lane, &call.0, &call.1);
        if started.elapsed() > SESSION_TURN {
            put_back(hub, lane, session);
            return delivered as u64 + 1;
        }
    }
    put_back(hub, lane, session);
    BATCH as u64
}

fn put_back(hub: &Bound<'_, PubSubHub>, lane: &ExecutorLane, session: SessionKey) {
    hub.get().change(hub.py(), |router, _| {
        if router.put_back(session) {
            lane.ready(Ready::Session(session));
        }
    });
}

fn make(
    hub: &Bound<'_, PubSubHub>,
    lane: &ExecutorLane,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
) {
    let py = hub.py();
    match subscription.handler.call(py, &envelope.message) {
        Ok(value) if value.is_none() => {}
        Ok(value) => drain::finish_on_loop(hub, subscription, envelope, &value),
        Err(error) => report::failure(hub, subscription, envelope, error),
    }
    if let Some(nudge) = &lane.nudge {
        nudge.nudge(py);
    }
}
