//! Closing a hub: what is queued is delivered first, for so long; what is left then is given up.

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::delivery::Deliverer;
use crate::delivery::delivering::Delivering;
use crate::delivery::event_loop::running;
use crate::delivery::handler::is_quit;
use crate::hub::PubSubHub;
use crate::name::must_be;
use crate::number;
use crate::once::{Imported, intern};
use crate::python;
use crate::report;

/// How long a hub has for what is queued, where its user does not say. In seconds.
pub const TIMEOUT: f64 = 5.0;

/// The argument `timeout`, in seconds. `None` is as long as it takes.
pub struct Timeout(pub Option<f64>);

impl<'py> FromPyObject<'_, 'py> for Timeout {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self(None));
        }
        let Some(seconds) = number::float(&value)? else {
            return Err(must_be("timeout", "a number of seconds, or None", &value));
        };
        if seconds.is_nan() {
            return Err(PyValueError::new_err(
                "timeout must be a number of seconds, or None, not nan",
            ));
        }
        if seconds < 0.0 {
            return Err(PyValueError::new_err(format!(
                "timeout must not be negative, but is {seconds}"
            )));
        }
        // `threading` takes no more than this on every system: seven weeks.
        Ok(Self((seconds < 4e6).then_some(seconds)))
    }
}

/// Closes a hub, and waits for what is queued, except where that would be to wait for oneself, or
/// to stop an event loop.
pub fn close(hub: &Bound<'_, PubSubHub>, timeout: &Timeout) -> PyResult<()> {
    let closing = Closing::new(hub.clone())?;
    if closing.would_block(hub.py())? {
        return Ok(());
    }
    closing.wait(hub.py(), timeout)
}

/// The same for a hub that no event loop serves: to stop one for a moment is better than to lose what
/// is queued.
pub fn close_anywhere(hub: &Bound<'_, PubSubHub>, timeout: &Timeout) -> PyResult<()> {
    Closing::new(hub.clone())?.wait(hub.py(), timeout)
}

/// The same as a coroutine, which lets the event loop go on meanwhile.
pub fn aclose<'py>(hub: &Bound<'py, PubSubHub>, timeout: &Timeout) -> PyResult<Bound<'py, PyAny>> {
    static WAIT: Imported = Imported::new("pagebus._closing", "aclose");
    let py = hub.py();
    let wait = WAIT.get(py)?;
    let closing = Bound::new(py, Closing::new(hub.clone())?)?;
    python::call(
        wait,
        [closing.as_any(), timeout.0.into_pyobject(py)?.as_any()],
    )
}

/// What `async with` gives: the hub.
pub fn entered<'py>(hub: &Bound<'py, PubSubHub>) -> PyResult<Bound<'py, PyAny>> {
    static ENTERED: Imported = Imported::new("pagebus._closing", "entered");
    let entered = ENTERED.get(hub.py())?;
    python::call(entered, [hub.as_any()])
}

/// Gives up handlers that are suspended on loops that are closed: they never end.
fn forsake(hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let (py, own) = (hub.py(), hub.get());
    let (mut lost, mut calls) = (0, 0);
    for lane in own.loops(py) {
        if !lane.is_closed(py) {
            continue;
        }
        for drain in lane.drains(py)? {
            if let Some(subscription) = drain.get().forsake(hub) {
                lost += own.change(py, |router, trash| router.forsake(&subscription, trash));
                calls += 1;
            }
        }
    }
    report::given_up(hub, lost, calls);
    Ok(())
}

/// What is to be called when a hub has nothing left to deliver.
#[derive(Default)]
pub struct Watchers(Vec<Py<PyAny>>);

impl Watchers {
    /// Adds one.
    pub fn add(&mut self, callback: Py<PyAny>) {
        self.0.push(callback);
    }

    /// Calls them.
    pub fn tell(self, py: Python<'_>) {
        for callback in self.0 {
            let called = python::call(callback.bind(py), []).map(drop);
            report::contained(py, called, None);
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.iter().try_for_each(|callback| visit.call(callback))
    }
}

/// A hub that closes.
#[pyclass(frozen, module = "pagebus._core")]
pub struct Closing(Py<PubSubHub>);

impl Closing {
    /// Closes the hub. Fails only with what is meant for the process, which a handler can raise.
    fn new(hub: Bound<'_, PubSubHub>) -> PyResult<Self> {
        let asleep = hub.get().change(hub.py(), |router, _| router.close());
        let mut result = Ok(());
        for deliverer in asleep {
            match deliverer.wake(&hub) {
                Err(error) if is_quit(hub.py(), &error) => result = Err(error),
                // A loop or an executor that takes no work: what is lost by that has been reported.
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(link) = hub.get().link() {
            link.close();
        }
        let forsaken = forsake(&hub);
        report::contained(hub.py(), forsaken, Some(&hub));
        result.map(|()| Self(hub.unbind()))
    }

    fn wait(&self, py: Python<'_>, timeout: &Timeout) -> PyResult<()> {
        static EVENT: Imported = Imported::new("threading", "Event");
        if self.is_done(py) {
            return Ok(());
        }
        let event = EVENT.get(py)?.call0()?;
        self.when_done(&event.getattr(intern!(py, "set"))?);
        // Interruptible: Ctrl-C ends the wait, and what is queued is still delivered.
        let wait = event.getattr(intern!(py, "wait"))?;
        if !python::call(&wait, [timeout.0.into_pyobject(py)?.as_any()])?.is_truthy()? {
            self.give_up(py);
        }
        Ok(())
    }

    /// Whether this thread would wait for itself, as inside one of the hub's handlers, or would
    /// keep an event loop from going on.
    fn would_block(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.is_inside() || running(py)?.is_some())
    }
}

impl Drop for Closing {
    /// Nobody waits any more.
    fn drop(&mut self) {
        if let Some(link) = self.0.get().link() {
            link.leave_alone();
        }
    }
}

#[pymethods]
impl Closing {
    fn is_done(&self, py: Python<'_>) -> bool {
        self.0.get().is_over(py)
    }

    /// Whether this thread is inside one of the hub's handlers.
    fn is_inside(&self) -> bool {
        Delivering::includes(self.0.get())
    }

    /// Calls `callback` when everything is delivered, or given up.
    fn when_done(&self, callback: &Bound<'_, PyAny>) {
        let py = callback.py();
        self.0.get().watch(py, callback.clone().unbind());
        if self.is_done(py) {
            // It may have been too late to be told.
            self.0.get().tell_watchers(py);
        }
    }

    fn give_up(&self, py: Python<'_>) {
        let hub = self.0.bind(py);
        let own = hub.get();
        if let Some(link) = own.link() {
            link.give_up();
        }
        let (lost, calls) = own.change(py, |router, trash| {
            if router.is_finished() {
                // Somebody else who closes it has given up at the same time.
                return (0, 0);
            }
            let calls = router.calls_under_way();
            let passed = |deliverer: &Deliverer| own.passed(deliverer);
            (router.give_up(passed, trash), calls)
        });
        report::given_up(hub, lost, calls);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}
