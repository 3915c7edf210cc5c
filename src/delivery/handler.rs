//! A Python handler: checked when it subscribes, called in the context in which it subscribed.

use pyo3::exceptions::{PyAttributeError, PyKeyboardInterrupt, PySystemExit, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{Borrowed, intern};

use super::context::Captured;
use crate::name::must_be;
use crate::python::{self, Raised};

/// Flags of a code object: it takes `*args`; calling it makes a coroutine.
const CO_VARARGS: u32 = 0x04;
const CO_COROUTINE: u32 = 0x80;

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
    pub body: Py<PyAny>,
}

impl Message {
    /// A message as the sender gave it.
    pub fn new(topic: Option<&Bound<'_, PyString>>, body: &Bound<'_, PyAny>) -> Self {
        Self {
            topic: topic.map(|t| t.clone().unbind()),
            body: body.clone().unbind(),
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.body)
    }
}

/// A handler with the context of the code that subscribed it.
pub struct Handler {
    /// The callable; with a home, a tuple of both: few have one, and there are many handlers.
    target: Py<PyAny>,
    /// The context in which it subscribed.
    pub context: Captured,
    /// Part of Python's hash of the callable: equal handlers have equal ones, and most others
    /// do not.
    pub hash: u16,
    /// How it is called.
    pub kind: Kind,
    has_home: bool,
}

impl Handler {
    /// A handler that was checked, in a copy of the current context. Its home is the loop that
    /// runs now, for what a sync handler leaves to be awaited in a hub without a loop.
    pub fn new(
        callable: &Bound<'_, PyAny>,
        hash: u16,
        kind: Kind,
        home: Option<&Py<PyAny>>,
    ) -> PyResult<Self> {
        let py = callable.py();
        let target = match home {
            None => callable.clone(),
            Some(home) => PyTuple::new(py, [callable, home.bind(py)])?.into_any(),
        };
        Ok(Self {
            target: target.unbind(),
            context: Captured::current(py)?,
            hash,
            kind,
            has_home: home.is_some(),
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
        if !self.has_home {
            return None;
        }
        let both = self.target.bind(py).cast::<PyTuple>().ok()?;
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
        let (callable, body) = (self.callable(py), message.body.bind(py));
        match &message.topic {
            None => python::try_call(&callable, [body]),
            Some(topic) => python::try_call(&callable, [topic.bind(py).as_any(), body]),
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.target)?;
        self.context.traverse(visit)
    }
}

/// Whether an exception is meant for the process, not for the one who delivers.
pub fn is_quit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

// ---- checks at subscribe --------------------------------------------------------------------

/// How to call a handler, or a `TypeError` that says why it cannot be one.
pub fn check(callable: &Bound<'_, PyAny>, on_topic: bool) -> PyResult<Kind> {
    if !callable.is_callable() {
        return Err(must_be("handler", "callable", callable));
    }
    let count = if on_topic { 2 } else { 1 };
    let plain = Plain::of(callable)?;
    let fits = match &plain {
        Some(plain) => plain.takes(count)?,
        None => None,
    };
    if !fits.map_or_else(|| signature_takes(callable, count), Ok)? {
        return Err(wrong_arity(callable, on_topic));
    }
    match plain {
        Some(plain) => plain.kind(callable),
        None => kind(callable),
    }
}

fn wrong_arity(callable: &Bound<'_, PyAny>, on_topic: bool) -> PyErr {
    let arguments = if on_topic {
        "two arguments: topic, message"
    } else {
        "one argument: message"
    };
    let name = crate::report::describe(callable);
    PyTypeError::new_err(format!("handler must take {arguments}; {name} does not"))
}

/// Part of Python's hash of a handler.
pub fn hash(callable: &Bound<'_, PyAny>) -> PyResult<u16> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let hash = CELL.import(callable.py(), "builtins", "hash")?;
    let hash = python::call(hash, [callable]).and_then(|hash| hash.extract::<isize>());
    let hash = hash.map(|hash| {
        hash.to_ne_bytes()
            .chunks(2)
            .fold(0, |all, part| all ^ u16::from_ne_bytes([part[0], part[1]]))
    });
    hash.map_err(|error| {
        if !error.is_instance_of::<PyTypeError>(callable.py()) {
            return error;
        }
        let unhashable = PyTypeError::new_err("handler must be hashable");
        unhashable.set_cause(callable.py(), Some(error));
        unhashable
    })
}

fn inspect<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.import(py, "inspect", name)
}

fn is_coroutine_function(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    python::call(
        inspect(callable.py(), &CELL, "iscoroutinefunction")?,
        [callable],
    )?
    .is_truthy()
}

/// Whether a value that a handler returned is to be awaited.
pub fn is_awaitable(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    python::call(inspect(value.py(), &CELL, "isawaitable")?, [value])?.is_truthy()
}

/// How to call what is no Python function.
fn kind(callable: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let inner = unwrap_partial(callable.clone())?;
    let call = inner
        .get_type()
        .getattr(intern!(callable.py(), "__call__"))?;
    let is_async = is_coroutine_function(callable)?
        || is_coroutine_function(&inner)?
        || is_coroutine_function(&call)?;
    Ok(if is_async { Kind::Async } else { Kind::Sync })
}

/// The callable inside any number of `functools.partial`.
fn unwrap_partial(mut callable: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let partial = CELL.import(callable.py(), "functools", "partial")?.clone();
    while callable.is_instance(&partial)? {
        callable = callable.getattr(intern!(callable.py(), "func"))?;
    }
    Ok(callable)
}

/// A Python function, or a bound method of one: what its code says need not be asked of
/// `inspect`, which takes longer than all the rest.
struct Plain<'py> {
    function: Bound<'py, PyAny>,
    code: Bound<'py, PyAny>,
    flags: u32,
    /// The number of arguments that are bound already.
    bound: u32,
}

impl<'py> Plain<'py> {
    fn of(callable: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        static METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, mut function, mut bound) = (callable.py(), callable.clone(), 0);
        let method = METHOD.import(py, "types", "MethodType")?;
        while function.get_type().is(method) {
            function = function.getattr(intern!(py, "__func__"))?;
            bound += 1;
        }
        if !python::is_function(&function) {
            return Ok(None);
        }
        let code = function.getattr(intern!(py, "__code__"))?;
        let flags = code.getattr(intern!(py, "co_flags"))?.extract()?;
        Ok(Some(Self {
            function,
            code,
            flags,
            bound,
        }))
    }

    /// Whether it can be called with `count` positional arguments; `None` where only its
    /// signature can tell.
    fn takes(&self, count: u32) -> PyResult<Option<bool>> {
        let (py, count) = (self.code.py(), self.bound + count);
        let number = |name| self.code.getattr(name)?.extract::<u32>();
        let keywords = number(intern!(py, "co_kwonlyargcount"))?;
        let takes = number(intern!(py, "co_argcount"))?;
        if keywords == 0 && takes == count {
            return Ok(Some(true));
        }
        // A decorator's function can take anything, and say so of the function inside.
        if keywords > 0 || self.has_attributes()? {
            return Ok(None);
        }
        if takes < count {
            return Ok(Some(self.flags & CO_VARARGS != 0));
        }
        let defaults = self.function.getattr(intern!(py, "__defaults__"))?;
        let defaults = defaults.cast::<PyTuple>().map_or(0, PyTupleMethods::len);
        Ok(Some(takes as usize <= count as usize + defaults))
    }

    /// How to call it. A function that does not make a coroutine can be marked as if it did, by
    /// an attribute.
    fn kind(&self, callable: &Bound<'_, PyAny>) -> PyResult<Kind> {
        let is_async = self.flags & CO_COROUTINE != 0
            || (self.has_attributes()? && is_coroutine_function(callable)?);
        Ok(if is_async { Kind::Async } else { Kind::Sync })
    }

    fn has_attributes(&self) -> PyResult<bool> {
        let attributes = self
            .function
            .getattr(intern!(self.function.py(), "__dict__"))?;
        Ok(!attributes.cast::<PyDict>()?.is_empty())
    }
}

/// Whether a callable's signature allows `count` positional arguments; yes if it has none.
fn signature_takes(callable: &Bound<'_, PyAny>, count: u32) -> PyResult<bool> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = callable.py();
    let Ok(signature) = python::call(inspect(py, &CELL, "signature")?, [callable]) else {
        return Ok(true);
    };
    let (bind, none) = (
        signature.getattr(intern!(py, "bind"))?,
        py.None().into_bound(py),
    );
    let bound = if count == 1 {
        python::call(&bind, [&none])
    } else {
        python::call(&bind, [&none, &none])
    };
    match bound {
        Ok(_) => Ok(true),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Ok(false),
        Err(error) if error.is_instance_of::<PyAttributeError>(py) => Ok(true),
        Err(error) => Err(error),
    }
}
