//! One call of a handler on an event loop: calling it, and driving the coroutine that it returns.

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::handler::{Inside, is_awaitable};
use super::{Envelope, Subscription};
use crate::python::{self, Sent};

/// What a handler did.
pub enum Outcome {
    /// It is done.
    Done,
    /// It awaits something.
    Suspended(Suspended),
    /// It raised.
    Failed(PyErr),
}

/// A handler that awaits something.
pub struct Suspended {
    /// What is driven.
    pub awaitable: Py<PyAny>,
    /// The context in which it is driven.
    pub context: Py<PyAny>,
    /// What it yielded, for the event loop.
    pub yielded: Py<PyAny>,
}

/// Calls a handler, unless its subscription has ended; returns what it returned.
#[inline]
pub fn call<'py>(
    py: Python<'py>,
    subscription: &Subscription,
    envelope: &Envelope,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let context = subscription.handler.context(py)?;
    let _inside = Inside::enter(&context)?;
    call_inside(py, subscription, envelope)
}

#[inline]
fn call_inside<'py>(
    py: Python<'py>,
    subscription: &Subscription,
    envelope: &Envelope,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    // Making the context can start the collector, and so end the subscription.
    if subscription.is_cancelled() {
        return Ok(None);
    }
    subscription.handler.call(py, &envelope.message).map(Some)
}

/// Calls a handler and drives what it returns until that suspends or ends.
#[inline]
pub fn start(py: Python<'_>, subscription: &Subscription, envelope: &Envelope) -> Outcome {
    let outcome = subscription.handler.context(py).and_then(|context| {
        let _inside = Inside::enter(&context)?;
        match call_inside(py, subscription, envelope)?
            .map(iterator)
            .transpose()?
            .flatten()
        {
            Some(awaitable) => send(&awaitable, &context),
            None => Ok(Outcome::Done),
        }
    });
    outcome.unwrap_or_else(Outcome::Failed)
}

/// Begins to await what a handler returned, in a context.
pub fn begin(py: Python<'_>, value: &Py<PyAny>, context: &Py<PyAny>) -> Outcome {
    let (value, context) = (value.bind(py), context.bind(py));
    let outcome = Inside::enter(context).and_then(|_inside| match iterator(value.clone())? {
        Some(awaitable) => send(&awaitable, context),
        None => Ok(Outcome::Done),
    });
    outcome.unwrap_or_else(Outcome::Failed)
}

/// Drives an awaitable on, or throws an exception into it.
pub fn resume(
    py: Python<'_>,
    awaitable: &Py<PyAny>,
    context: &Py<PyAny>,
    thrown: Option<PyErr>,
) -> Outcome {
    let (awaitable, context) = (awaitable.bind(py), context.bind(py));
    let outcome = Inside::enter(context).and_then(|_inside| match thrown {
        None => send(awaitable, context),
        Some(error) => throw(awaitable, context, error),
    });
    outcome.unwrap_or_else(Outcome::Failed)
}

/// What has to be driven to await `value`; `None` if it cannot be awaited.
fn iterator(value: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static COROUTINE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    if value.is_none() {
        return Ok(None);
    }
    if value
        .get_type()
        .is(COROUTINE.import(py, "types", "CoroutineType")?)
    {
        return Ok(Some(value));
    }
    if !is_awaitable(&value)? {
        return Ok(None);
    }
    match value.getattr(intern!(py, "__await__")) {
        Ok(method) => python::call(&method, []).map(Some),
        // A generator that `types.coroutine` marked.
        Err(_) => Ok(Some(value)),
    }
}

fn suspended(
    awaitable: &Bound<'_, PyAny>,
    context: &Bound<'_, PyAny>,
    yielded: Bound<'_, PyAny>,
) -> Outcome {
    Outcome::Suspended(Suspended {
        awaitable: awaitable.clone().unbind(),
        context: context.clone().unbind(),
        yielded: yielded.unbind(),
    })
}

fn throw(
    awaitable: &Bound<'_, PyAny>,
    context: &Bound<'_, PyAny>,
    error: PyErr,
) -> PyResult<Outcome> {
    let py = awaitable.py();
    let (method, error) = (
        awaitable.getattr(intern!(py, "throw"))?,
        error.into_value(py),
    );
    let result = python::call(&method, [error.bind(py).as_any()]);
    match result {
        Ok(yielded) => Ok(suspended(awaitable, context, yielded)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

#[inline]
fn send(awaitable: &Bound<'_, PyAny>, context: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    Ok(match python::send(awaitable)? {
        Sent::Yielded(yielded) => suspended(awaitable, context, yielded),
        Sent::Returned => Outcome::Done,
    })
}
