//! Messages for a loop instead of a handler: `async for` on an event loop, `for` in a thread.
//!
//! A reader is subscribed as a handler is, for the length of a block. It has no code to call: what
//! is delivered to it goes into its [`Inbox`].

mod inbox;
mod listener;
mod step;
mod waiter;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;
use triomphe::Arc;

pub use self::inbox::{End, Inbox};
pub use self::listener::Listener;
use self::step::Action;
pub use self::step::Step;
use crate::delivery::Subscription;
use crate::hub::PubSubHub;
use crate::once::Imported;
use crate::python;
use crate::subscribe::Options;

/// A session's messages, for a task.
#[pyclass(frozen, module = "pagebus", weakref)]
pub struct Stream {
    inbox: Inbox,
}

impl Stream {
    /// A stream that is not subscribed yet.
    pub fn new(
        hub: &Bound<'_, PubSubHub>,
        session_id: &Bound<'_, PyString>,
        topic: Option<&Bound<'_, PyAny>>,
        options: Options,
    ) -> PyResult<Self> {
        let inbox = Inbox::new(hub, session_id, topic, options)?;
        Ok(Self { inbox })
    }
}

#[pymethods]
impl Stream {
    #[getter]
    fn session_id(&self, py: Python<'_>) -> Py<PyString> {
        self.inbox.session_id.clone_ref(py)
    }

    #[getter]
    fn topic(&self, py: Python<'_>) -> Option<Py<PyString>> {
        self.inbox.topic.as_ref().map(|topic| topic.clone_ref(py))
    }

    #[getter]
    fn dropped(&self, py: Python<'_>) -> u64 {
        self.inbox.dropped(py)
    }

    fn __aenter__(slf: Py<Self>) -> Step {
        Step::new(slf, Action::Enter)
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __aexit__(
        slf: Py<Self>,
        _exc_type: &Bound<'_, PyAny>,
        _exc: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> Step {
        Step::new(slf, Action::Leave)
    }

    fn ready<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static READY: Imported = Imported::new("pagebus._linking", "ready");
        slf.get().inbox.check_inside(slf.as_any())?;
        python::call(READY.get(slf.py())?, [slf.as_any()])
    }

    fn _when_ready(&self, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.inbox.when_ready(callback)
    }

    fn _forget_ready(&self, callback: &Bound<'_, PyAny>) {
        self.inbox.forget_ready(callback);
    }

    fn __aiter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().inbox.check_inside(slf.as_any())?;
        Ok(slf)
    }

    fn __anext__(slf: Py<Self>) -> Step {
        Step::new(slf, Action::Next)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Stream of {}>", self.inbox.place(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.inbox.traverse(&visit)
    }

    fn __clear__(&self) {
        self.inbox.clear();
    }
}

/// The inbox of a reader; `None` for a handler, which is called instead.
#[inline]
pub fn inbox_of<'a>(handler: &'a Bound<'_, PyAny>) -> Option<&'a Inbox> {
    if let Ok(stream) = handler.cast_exact::<Stream>() {
        return Some(&stream.get().inbox);
    }
    let listener = handler.cast_exact::<Listener>().ok()?;
    Some(&listener.get().inbox)
}

/// Tells the readers among subscriptions that these have ended, where they have.
#[cold]
pub fn tell_ended(py: Python<'_>, subscriptions: &[Arc<Subscription>], how: End) {
    for subscription in subscriptions {
        if subscription.is_cancelled() {
            subscription.handler.ended(py, how);
        }
    }
}
