//! Messages for a `for` loop of a thread.

use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};

use super::inbox::{Found, Inbox, Ticket};
use super::waiter::Waiter;
use crate::close::Timeout;
use crate::delivery::event_loop::running;
use crate::delivery::handler::Kind;
use crate::hub::PubSubHub;
use crate::once::{Imported, intern};
use crate::python;
use crate::subscribe::Options;

/// A session's messages, for a thread.
#[pyclass(frozen, module = "pagebus", weakref)]
pub struct Listener {
    pub(super) inbox: Inbox,
    timeout: Option<Duration>,
}

impl Listener {
    /// A listener that is not subscribed yet.
    pub fn new(
        hub: &Bound<'_, PubSubHub>,
        session_id: &Bound<'_, PyString>,
        topic: Option<&Bound<'_, PyAny>>,
        timeout: &Timeout,
        options: Options,
    ) -> PyResult<Self> {
        Ok(Self {
            inbox: Inbox::new(hub, session_id, topic, options)?,
            timeout: timeout.0.map(Duration::from_secs_f64),
        })
    }

    fn next(slf: &Bound<'_, Self>) -> PyResult<Found> {
        let (own, py) = (slf.get(), slf.py());
        let deadline = own.timeout.map(|timeout| Instant::now() + timeout);
        let (mut ticket, mut is_over) = (None, false);
        loop {
            match own.inbox.take(slf.as_any(), ticket.take())? {
                Found::Nothing if is_over => return Err(PyTimeoutError::new_err(own.silence())),
                Found::Nothing => own.check_may_wait(py)?,
                found => return Ok(found),
            }
            let lock = locked(py)?;
            ticket = own.inbox.wait(py, Waiter::Thread(lock.clone().unbind()));
            if let Some(ticket) = ticket {
                is_over = !own.acquire(&lock, ticket, deadline)?;
            }
        }
    }

    /// An error where to wait would be to stop an event loop, and with it whoever is to send.
    fn check_may_wait(&self, py: Python<'_>) -> PyResult<()> {
        if self.timeout == Some(Duration::ZERO) || running(py)?.is_none() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "a Listener that waits would stop the event loop that runs on this thread: use stream() \
             and `async for` here, or timeout=0 to look without waiting",
        ))
    }

    /// Waits for a message, and lets other threads have the interpreter meanwhile; `false` if none
    /// comes in time. Ctrl-C and the handlers of other signals come through.
    fn acquire(
        &self,
        lock: &Bound<'_, PyAny>,
        ticket: Ticket,
        deadline: Option<Instant>,
    ) -> PyResult<bool> {
        let py = lock.py();
        let seconds = deadline.map_or(-1.0, |deadline| {
            deadline
                .saturating_duration_since(Instant::now())
                .as_secs_f64()
        });
        let seconds = seconds.into_pyobject(py)?.into_any();
        let blocking = PyBool::new(py, true).to_owned().into_any();
        python::call_method(lock, intern!(py, "acquire"), [&blocking, &seconds], None)
            .and_then(|acquired| acquired.is_truthy())
            .inspect_err(|_| self.inbox.give_up(py, ticket))
    }

    fn silence(&self) -> String {
        let timeout = self.timeout.unwrap_or_default().as_secs_f64();
        format!("no message came within {timeout} seconds")
    }
}

/// A lock that somebody else is to release.
fn locked(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static LOCK: Imported = Imported::new("threading", "Lock");
    let lock = python::call(LOCK.get(py)?, [])?;
    python::call_method(&lock, intern!(py, "acquire"), [], None)?;
    Ok(lock)
}

#[pymethods]
impl Listener {
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

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().inbox.enter(slf.as_any(), Kind::Sync)?;
        Ok(slf)
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __exit__(
        &self,
        py: Python<'_>,
        _exc_type: Bound<'_, PyAny>,
        _exc: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) {
        self.inbox.leave(py);
    }

    #[pyo3(signature = (timeout=Timeout(None)), text_signature = "($self, timeout=None)")]
    fn ready(slf: &Bound<'_, Self>, timeout: Timeout) -> PyResult<()> {
        static READY: Imported = Imported::new("pagebus._linking", "ready_in_a_thread");
        let (own, py) = (slf.get(), slf.py());
        own.inbox.check_inside(slf.as_any())?;
        let patience = timeout.0.into_pyobject(py)?.into_any();
        python::call(READY.get(py)?, [slf.as_any(), &patience]).map(drop)
    }

    fn _when_ready(&self, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.inbox.when_ready(callback)
    }

    fn _forget_ready(&self, callback: &Bound<'_, PyAny>) {
        self.inbox.forget_ready(callback);
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().inbox.check_inside(slf.as_any())?;
        Ok(slf)
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        match Self::next(slf)? {
            Found::Message(message) => Ok(Some(message.clone_ref(slf.py()))),
            Found::Nothing | Found::End => Ok(None),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Listener of {}>", self.inbox.place(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.inbox.traverse(&visit)
    }

    fn __clear__(&self) {
        self.inbox.clear();
    }
}
