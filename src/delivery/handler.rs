//! A Python handler: checked when it subscribes, called in the context in which it subscribed.

use pyo3::exceptions::{PyAttributeError, PyKeyboardInterrupt, PySystemExit, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use super::context::Captured;
use crate::name::must_be;
use crate::python;

/// Flags of a code object: it takes `*args`; calling it makes a generator of either kind.
const CO_VARARGS: u32 = 0x04;

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
    callable: Py<PyAny>,
    /// The context in which it subscribed.
    pub context: Captured,
    /// Python's hash of the callable: equal handlers have equal ones.
    pub hash: isize,
    /// How it is called.
    pub kind: Kind,
    /// The loop that ran when it was subscribed, for what a sync handler leaves to be awaited in
    /// a hub without a loop.
    home: Option<Py<PyAny>>,
}

impl Handler {
    /// A handler that was checked, in a copy of the current context.
    pub fn new(
        callable: &Bound<'_, PyAny>,
        hash: isize,
        kind: Kind,
        home: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let py = callable.py();
        Ok(Self {
            callable: callable.clone().unbind(),
            context: Captured::current(py)?,
            hash,
            kind,
            home,
        })
    }

    /// The callable.
    pub fn callable<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.callable.bind(py)
    }

    /// The loop that ran when it was subscribed.
    pub fn home<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        self.home.as_ref().map(|home| home.bind(py))
    }

    /// Whether it is the same handler, as Python says.
    pub fn equals(&self, callable: &Bound<'_, PyAny>) -> PyResult<bool> {
        static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let own = self.callable.bind(callable.py());
        if own.is(callable) {
            return Ok(true);
        }
        let equal = CELL.import(callable.py(), "operator", "eq")?;
        python::call(equal, [own, callable])?.is_truthy()
    }

    /// Calls it with a message; its context has been entered.
    #[inline]
    pub fn call<'py>(&self, py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyAny>> {
        let (callable, body) = (self.callable.bind(py), message.body.bind(py));
        match &message.topic {
            None => python::call(callable, [body]),
            Some(topic) => python::call(callable, [topic.bind(py).as_any(), body]),
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callable)?;
        self.context.traverse(visit)?;
        visit.call(&self.home)
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
    check_arity(callable, on_topic)?;
    kind(callable)
}

/// Python's hash of a handler.
pub fn hash(callable: &Bound<'_, PyAny>) -> PyResult<isize> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let hash = CELL.import(callable.py(), "builtins", "hash")?;
    let hash = python::call(hash, [callable]).and_then(|hash| hash.extract());
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

fn kind(callable: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let py = callable.py();
    if is_coroutine_function(callable)? {
        return Ok(Kind::Async);
    }
    if is_plain_function(callable)? {
        return Ok(Kind::Sync);
    }
    let inner = unwrap_partial(callable.clone())?;
    let call = inner.get_type().getattr(intern!(py, "__call__"));
    let is_async = is_coroutine_function(&inner)? || is_coroutine_function(&call?)?;
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

/// Whether it is a Python function or a bound method of one.
fn is_plain_function(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(plain_function(callable)?.is_some())
}

/// A Python function, with the number of arguments that are bound already.
fn plain_function<'py>(callable: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyAny>, u32)>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (py, found) = (callable.py(), callable.get_type());
    if found.is(FUNCTION.import(py, "types", "FunctionType")?) {
        return Ok(Some((callable.clone(), 0)));
    }
    if found.is(METHOD.import(py, "types", "MethodType")?) {
        let inner = callable.getattr(intern!(py, "__func__"))?;
        return Ok(plain_function(&inner)?.map(|(function, bound)| (function, bound + 1)));
    }
    Ok(None)
}

fn check_arity(callable: &Bound<'_, PyAny>, on_topic: bool) -> PyResult<()> {
    let count = if on_topic { 2 } else { 1 };
    let fits = match plain_function(callable)? {
        Some((function, bound)) => function_takes(&function, bound + count)?,
        None => None,
    };
    if fits.map_or_else(|| signature_takes(callable, count), Ok)? {
        return Ok(());
    }
    let arguments = if on_topic {
        "two arguments: topic, message"
    } else {
        "one argument: message"
    };
    let name = crate::report::describe(callable);
    Err(PyTypeError::new_err(format!(
        "handler must take {arguments}; {name} does not"
    )))
}

/// Whether a Python function can be called with `count` positional arguments; `None` where only
/// its signature can tell.
fn function_takes(function: &Bound<'_, PyAny>, count: u32) -> PyResult<Option<bool>> {
    let py = function.py();
    let code = function.getattr(intern!(py, "__code__"))?;
    let number = |name| code.getattr(name)?.extract::<u32>();
    let takes = number(intern!(py, "co_argcount"))?;
    if takes == count && number(intern!(py, "co_kwonlyargcount"))? == 0 {
        return Ok(Some(true));
    }
    if takes < count && number(intern!(py, "co_flags"))? & CO_VARARGS == 0 {
        return Ok(Some(false));
    }
    Ok(None)
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
