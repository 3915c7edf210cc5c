//! How a reader that waits is woken.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::delivery::event_loop::{is_closed, running};
use crate::once::{Once, intern};
use crate::python;

/// A reader that waits.
pub enum Waiter {
    /// A task, for a future.
    Task {
        /// The future.
        future: Py<PyAny>,
        /// The event loop that runs the task.
        event_loop: Py<PyAny>,
    },
    /// A thread, for a lock to be released.
    Thread(Py<PyAny>),
}

impl Waiter {
    /// Wakes it, from whatever thread; `false` if its event loop is closed. The second value is what
    /// came from outside meanwhile, as with [`python::insist`].
    pub fn wake(&self, py: Python<'_>) -> (PyResult<bool>, PyResult<()>) {
        match self {
            Self::Thread(lock) => {
                let release = intern!(py, "release");
                let released = python::call_method(lock.bind(py), release, [], None);
                (released.map(|_| true), Ok(()))
            }
            Self::Task { future, event_loop } => {
                wake_or_close(future.bind(py), event_loop.bind(py))
            }
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Thread(lock) => visit.call(lock),
            Self::Task { future, event_loop } => {
                visit.call(future)?;
                visit.call(event_loop)
            }
        }
    }
}

fn wake_or_close(
    future: &Bound<'_, PyAny>,
    event_loop: &Bound<'_, PyAny>,
) -> (PyResult<bool>, PyResult<()>) {
    let py = future.py();
    // Woken twice, it wakes up once; scheduled, but the loop not woken, it never would.
    let (woken, outside) = python::insist(py, || wake_task(future, event_loop));
    let Err(error) = woken else {
        return (Ok(true), outside);
    };
    let (is_closed, again) = python::insist(py, || is_closed(event_loop));
    let woken = if is_closed.unwrap_or(false) {
        Ok(false)
    } else {
        Err(error)
    };
    (woken, outside.and(again))
}

fn wake_task(future: &Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    static RESOLVE: Once<Py<PyAny>> = Once::new();
    let py = future.py();
    if running(py)?.is_some_and(|running| running.is(event_loop)) {
        return resolve(future);
    }
    let resolve = RESOLVE.get_or_try_init(|| {
        wrap_pyfunction!(resolve, py).map(|resolve| resolve.into_any().unbind())
    })?;
    let schedule = intern!(py, "call_soon_threadsafe");
    python::call_method(event_loop, schedule, [resolve.bind(py), future], None).map(drop)
}

/// Ends the wait for a future, unless that has ended otherwise; on its loop's own thread.
#[pyfunction]
fn resolve(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if python::call_method(future, intern!(py, "done"), [], None)?.is_truthy()? {
        return Ok(());
    }
    let set_result = intern!(py, "set_result");
    python::call_method(future, set_result, [py.None().bind(py)], None).map(drop)
}
