//! Closing a hub: what is queued is delivered first, for so long; what is left then is given up.

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;

use crate::delivery::delivering::Delivering;
use crate::delivery::event_loop::running;
use crate::delivery::handler::is_quit;
use crate::hub::PubSubHub;
use crate::name::must_be;
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
        let is_number = !value.is_instance_of::<PyBool>();
        let Some(seconds) = value.extract::<f64>().ok().filter(|_| is_number) else {
            return Err(must_be("timeout", "a number of seconds, or None", &value));
        };
        if seconds.is_nan() || seconds < 0.0 {
            return Err(PyValueError::new_err(format!(
                "timeout must not be negative, and is {seconds}"
            )));
        }
        // `threading` takes no more than this on every system: seven weeks.
        Ok(Self((seconds < 4e6).then_some(seconds)))
    }
}

/// Closes a hub, and waits for what is queued, except where that would be to wait for oneself, or
/// to stop an event loop.
pub fn close(hub: &Bound<'_, PubSubHub>, timeout: &Timeout) -> PyResult<()> {
    static EVENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = hub.py();
    let closing = Closing::new(hub.clone())?;
    if closing.is_done(py) || closing.would_block(py)? {
        return Ok(());
    }
    let event = EVENT.import(py, "threading", "Event")?.call0()?;
    closing.when_done(&event.getattr(intern!(py, "set"))?);
    // Interruptible: Ctrl-C ends the wait, and what is queued is still delivered.
    let wait = event.getattr(intern!(py, "wait"))?;
    if !python::call(&wait, [timeout.0.into_pyobject(py)?.as_any()])?.is_truthy()? {
        closing.give_up(py);
    }
    Ok(())
}

/// The same as a coroutine, which lets the event loop go on meanwhile.
pub fn aclose<'py>(hub: &Bound<'py, PubSubHub>, timeout: &Timeout) -> PyResult<Bound<'py, PyAny>> {
    static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = hub.py();
    let wait = WAIT.import(py, "pagebus._closing", "aclose")?;
    let closing = Bound::new(py, Closing::new(hub.clone())?)?;
    python::call(
        wait,
        [closing.as_any(), timeout.0.into_pyobject(py)?.as_any()],
    )
}

/// What `async with` gives: the hub.
pub fn entered<'py>(hub: &Bound<'py, PubSubHub>) -> PyResult<Bound<'py, PyAny>> {
    static ENTERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let entered = ENTERED.import(hub.py(), "pagebus._closing", "entered")?;
    python::call(entered, [hub.as_any()])
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
        result.map(|()| Self(hub.unbind()))
    }

    /// Whether this thread would wait for itself, as inside one of the hub's handlers, or would
    /// keep an event loop from going on.
    fn would_block(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.is_inside() || running(py)?.is_some())
    }
}

#[pymethods]
impl Closing {
    fn is_done(&self, py: Python<'_>) -> bool {
        self.0.get().change(py, |router, _| router.is_finished())
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
        let (lost, calls) = hub.get().change(py, |router, trash| {
            let calls = router.calls_under_way();
            (router.give_up(trash), calls)
        });
        report::given_up(hub, lost, calls);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}
