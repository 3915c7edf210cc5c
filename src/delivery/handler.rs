//! A Python handler, and the message that it is called with.

use pyo3::Borrowed;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use triomphe::Arc;

use super::context::{Captured, Contexts};
use crate::core::presence::Presence;
use crate::once::Imported;
use crate::presence::Notice;
use crate::python::{self, Held, Raised};
use crate::stream::{self, End};

/// How a handler is to be called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Called for its effect; what it returns is awaited if it can be.
    Sync,
    /// Calling it makes a coroutine.
    Async,
}

/// What was sent, or is told by the hub.
pub struct Message {
    /// The topic, where the handler is called with it too, as the sender gave it.
    topic: Option<Py<PyString>>,
    body: Body,
}

enum Body {
    Sent(Held),
    Told(Notice),
}

impl Message {
    /// A message as the sender gave it.
    pub fn new(topic: Option<&Bound<'_, PyString>>, body: &Bound<'_, PyAny>) -> Self {
        Self {
            topic: topic.map(|t| t.clone().unbind()),
            body: Body::Sent(Held::new(body)),
        }
    }

    /// What the hub tells of who comes and goes.
    pub fn notice(presence: Arc<Presence<Self>>) -> Self {
        Self {
            topic: None,
            body: Body::Told(Notice::new(presence)),
        }
    }

    /// The changes that it tells of, if it is the hub's own.
    pub fn presence(&self) -> Option<&Arc<Presence<Self>>> {
        match &self.body {
            Body::Sent(_) => None,
            Body::Told(notice) => Some(notice.presence()),
        }
    }

    /// What the handler is given.
    #[inline]
    pub fn body<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<&'a Bound<'py, PyAny>> {
        match &self.body {
            Body::Sent(body) => Ok(body.bind(py)),
            Body::Told(notice) => notice.record(py),
        }
    }

    /// The topic that it is about.
    pub fn topic(&self, py: Python<'_>) -> PyResult<Option<Py<PyString>>> {
        match &self.body {
            Body::Sent(_) => Ok(self.topic.as_ref().map(|topic| topic.clone_ref(py))),
            Body::Told(notice) => Ok(Some(notice.topic(py)?.unbind())),
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.body {
            Body::Sent(body) => visit.call(&**body),
            Body::Told(notice) => notice.traverse(visit),
        }
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
        static CELL: Imported = Imported::new("operator", "eq");
        let own = self.callable(callable.py());
        if own.is(callable) {
            return Ok(true);
        }
        let equal = CELL.get(callable.py())?;
        python::call(equal, [&*own, callable])?.is_truthy()
    }

    /// Calls it with a message; its context has been entered, and may be left afterwards.
    #[inline]
    pub fn call<'py>(
        &self,
        py: Python<'py>,
        contexts: &mut Contexts<'py>,
        message: &Message,
    ) -> Result<Bound<'py, PyAny>, Raised> {
        let Body::Sent(body) = &message.body else {
            return self.tell(py, contexts, message);
        };
        let body = body.bind(py);
        match &message.topic {
            None => self.call_with(py, contexts, [body]),
            Some(topic) => self.call_with(py, contexts, [topic.bind(py).as_any(), body]),
        }
    }

    /// Calls it with what the hub tells.
    #[cold]
    fn tell<'py>(
        &self,
        py: Python<'py>,
        contexts: &mut Contexts<'py>,
        message: &Message,
    ) -> Result<Bound<'py, PyAny>, Raised> {
        let body = Raised::from_result(py, message.body(py))?;
        self.call_with(py, contexts, [body])
    }

    #[inline]
    fn call_with<'py, const N: usize>(
        &self,
        py: Python<'py>,
        contexts: &mut Contexts<'py>,
        args: [&Bound<'py, PyAny>; N],
    ) -> Result<Bound<'py, PyAny>, Raised> {
        // Neither a tuple nor a reader has an entry, so most calls need not ask what it is.
        python::try_entry(self.target.bind(py), args)
            .unwrap_or_else(|| self.call_without_entry(py, contexts, args))
    }

    #[inline(never)]
    fn call_without_entry<'py, const N: usize>(
        &self,
        py: Python<'py>,
        contexts: &mut Contexts<'py>,
        args: [&Bound<'py, PyAny>; N],
    ) -> Result<Bound<'py, PyAny>, Raised> {
        let target = self.target.bind(py);
        let Some(inbox) = stream::inbox_of(target) else {
            return python::try_call(&self.callable(py), args);
        };
        // What a reader loses is told to the hub's owner, who is not to see the subscriber's variables.
        let put = inbox.put(target, args[N - 1], || contexts.leave());
        Raised::from_result(py, put.map(|()| py.None().into_bound(py)))
    }

    /// Tells a reader that its subscription has ended.
    pub fn ended(&self, py: Python<'_>, how: End) {
        if let Some(inbox) = stream::inbox_of(self.target.bind(py)) {
            inbox.end(py, how);
        }
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
