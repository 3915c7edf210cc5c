//! A Python handler, and the message that it is called with.

use pyo3::Borrowed;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};

use super::context::Captured;
use crate::python::{self, Held, Raised};

/// How a handler is to be called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Called for its effect; what it returns is awaited if it can be.
    Sync,
    /// Calling it makes a coroutine.
    Async,
}

/// What was sent.
pub struct Message {
    /// The topic, for a message on a topic, as the sender gave it.
    pub topic: Option<Py<PyString>>,
    /// The message.
    pub body: Held,
}

impl Message {
    /// A message as the sender gave it.
    pub fn new(topic: Option<&Bound<'_, PyString>>, body: &Bound<'_, PyAny>) -> Self {
        Self {
            topic: topic.map(|t| t.clone().unbind()),
            body: Held::new(body),
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.body)
    }
}

/// A handler with the context of the code that subscribed it.
pub struct Handler {
    /// The callable; with a home, a tuple of both, which is no callable: few have a home, and there
    /// are many handlers.
    target: Held,
    /// The context in which it subscribed.
    pub context: Captured,
}

impl Handler {
    /// A handler that was checked, in a copy of the current context. Its home is the loop that
    /// runs now, for what a sync handler leaves to be awaited in a hub without a loop.
    pub fn new(callable: &Bound<'_, PyAny>, home: Option<&Py<PyAny>>) -> PyResult<Self> {
        let py = callable.py();
        let target = match home {
            None => callable.clone(),
            Some(home) => PyTuple::new(py, [callable, home.bind(py)])?.into_any(),
        };
        Ok(Self {
            target: Held::new(&target),
            context: Captured::current(py)?,
        })
    }

    /// The same handler, with the context of another one if both have the same variables.
    pub fn sharing(self, py: Python<'_>, other: Option<&Self>) -> (Self, Option<Captured>) {
        match other {
            Some(other) if self.context.equals(py, &other.context) => {
                let context = other.context.share(py);
                (Self { context, ..self }, Some(self.context))
            }
            _ => (self, None),
        }
    }

    /// The callable.
    #[inline]
    pub fn callable<'a, 'py: 'a>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        self.with_home(py).map_or_else(
            || self.target.bind(py).as_borrowed(),
            |(callable, _home)| callable,
        )
    }

    /// The loop that ran when it was subscribed.
    pub fn home<'a, 'py: 'a>(&'a self, py: Python<'py>) -> Option<Borrowed<'a, 'py, PyAny>> {
        self.with_home(py).map(|(_callable, home)| home)
    }

    #[inline]
    fn with_home<'a, 'py: 'a>(
        &'a self,
        py: Python<'py>,
    ) -> Option<(Borrowed<'a, 'py, PyAny>, Borrowed<'a, 'py, PyAny>)> {
        let both = self.target.bind(py).cast_exact::<PyTuple>().ok()?;
        Some((
            both.get_borrowed_item(0).ok()?,
            both.get_borrowed_item(1).ok()?,
        ))
    }

    /// Whether it is the same handler, as Python says.
    pub fn equals(&self, callable: &Bound<'_, PyAny>) -> PyResult<bool> {
        static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let own = self.callable(callable.py());
        if own.is(callable) {
            return Ok(true);
        }
        let equal = CELL.import(callable.py(), "operator", "eq")?;
        python::call(equal, [&*own, callable])?.is_truthy()
    }

    /// Calls it with a message; its context has been entered.
    #[inline]
    pub fn call<'py>(
        &self,
        py: Python<'py>,
        message: &Message,
    ) -> Result<Bound<'py, PyAny>, Raised> {
        let body = message.body.bind(py);
        match &message.topic {
            None => self.call_with(py, [body]),
            Some(topic) => self.call_with(py, [topic.bind(py).as_any(), body]),
        }
    }

    #[inline]
    fn call_with<'py, const N: usize>(
        &self,
        py: Python<'py>,
        args: [&Bound<'py, PyAny>; N],
    ) -> Result<Bound<'py, PyAny>, Raised> {
        // A tuple has no entry, so most calls need not ask whether there is a home.
        python::try_entry(self.target.bind(py), args)
            .unwrap_or_else(|| python::try_call(&self.callable(py), args))
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.target)?;
        self.context.traverse(visit)
    }
}

/// Whether an exception is meant for the process, not for the one who delivers.
pub fn is_quit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}
