//! What can be a handler: checked when it subscribes, so that a mistake shows where it was made.

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::handler::Kind;
use crate::name::must_be;
use crate::once::{Imported, intern};
use crate::python;

/// Flags of a code object: it takes `*args`; calling it makes a coroutine.
const CO_VARARGS: u32 = 0x04;
const CO_COROUTINE: u32 = 0x80;
/// An odd number without pattern: 2 to the power of 64, divided by the golden ratio.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// How to call a handler, or a `TypeError` that says why it cannot be one.
pub fn check(callable: &Bound<'_, PyAny>, arguments: &[&str]) -> PyResult<Kind> {
    if !callable.is_callable() {
        return Err(must_be("handler", "callable", callable));
    }
    let count = if arguments.len() == 1 { 1 } else { 2 };
    let plain = Plain::of(callable)?;
    let fits = match &plain {
        Some(plain) => plain.takes(count)?,
        None => None,
    };
    if !fits.map_or_else(|| signature_takes(callable, count), Ok)? {
        return Err(wrong_arity(callable, arguments));
    }
    match plain {
        Some(plain) => plain.kind(callable),
        None => kind(callable),
    }
}

fn wrong_arity(callable: &Bound<'_, PyAny>, arguments: &[&str]) -> PyErr {
    let names = arguments.join(", ");
    let count = if arguments.len() == 1 {
        "one argument"
    } else {
        "two arguments"
    };
    let name = crate::report::describe(callable);
    PyTypeError::new_err(format!(
        "handler must take {count}: {names}; {name} does not"
    ))
}

/// Part of Python's hash of a handler, mixed so that other hashes have other parts.
pub fn digest(callable: &Bound<'_, PyAny>) -> PyResult<u16> {
    static CELL: Imported = Imported::new("builtins", "hash");
    let hash = CELL.get(callable.py())?;
    let hash = python::call(hash, [callable]).and_then(|hash| hash.extract::<i64>());
    let hash = hash.map(|hash| (hash.cast_unsigned().wrapping_mul(SCATTER) >> 48) as u16);
    hash.map_err(|error| {
        if !error.is_instance_of::<PyTypeError>(callable.py()) {
            return error;
        }
        let unhashable = PyTypeError::new_err("handler must be hashable");
        let unhashable = python::settled(callable.py(), unhashable);
        unhashable.set_cause(callable.py(), Some(error));
        unhashable
    })
}

fn is_coroutine_function(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    static INSPECT: Imported = Imported::new("inspect", "iscoroutinefunction");
    python::call(INSPECT.get(callable.py())?, [callable])?.is_truthy()
}

/// Whether a value that a handler returned is to be awaited.
pub fn is_awaitable(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    static INSPECT: Imported = Imported::new("inspect", "isawaitable");
    python::call(INSPECT.get(value.py())?, [value])?.is_truthy()
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
    static CELL: Imported = Imported::new("functools", "partial");
    let partial = CELL.get(callable.py())?.clone();
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
        static METHOD: Imported = Imported::new("types", "MethodType");
        let (py, mut function, mut bound) = (callable.py(), callable.clone(), 0);
        let method = METHOD.get(py)?;
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
        if !python::may_have_attributes(&self.function) {
            return Ok(false);
        }
        let attributes = self
            .function
            .getattr(intern!(self.function.py(), "__dict__"))?;
        Ok(!attributes.cast::<PyDict>()?.is_empty())
    }
}

/// Whether a callable's signature allows `count` positional arguments; yes if it has none.
fn signature_takes(callable: &Bound<'_, PyAny>, count: u32) -> PyResult<bool> {
    static INSPECT: Imported = Imported::new("inspect", "signature");
    let py = callable.py();
    let Ok(signature) = python::call(INSPECT.get(py)?, [callable]) else {
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
