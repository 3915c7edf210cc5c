//! One call of a handler on an event loop: calling it, and driving the coroutine that it returns.

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;

use super::context::{Contexts, Entered};
use super::signature::is_awaitable;
use super::{Envelope, Subscription};
use crate::once::intern;
use crate::python::{self, Raised, Sent};

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
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "it is called from few places, and they are hot"
)]
pub fn call<'py>(
    contexts: &mut Contexts<'py>,
    py: Python<'py>,
    subscription: &Subscription,
    envelope: &Envelope,
) -> Result<Option<Bound<'py, PyAny>>, Raised> {
    contexts.enter(&subscription.handler.context)?;
    // Making the context can start the collector, and so end the subscription.
    if subscription.is_cancelled() {
        return Ok(None);
    }
    let handler = &subscription.handler;
    handler.call(py, contexts, &envelope.message).map(Some)
}

/// Calls a handler and drives what it returns until that suspends or ends.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "it is called from few places, and they are hot"
)]
pub fn start<'py>(
    contexts: &mut Contexts<'py>,
    py: Python<'py>,
    subscription: &Subscription,
    envelope: &Envelope,
) -> Outcome {
    match call(contexts, py, subscription, envelope) {
        Ok(Some(value)) => drive(value, || contexts.take()),
        Ok(None) => Outcome::Done,
        Err(raised) => Outcome::Failed(raised.fetch(py)),
    }
}

/// Begins to await what a handler returned, in a context.
pub fn begin(py: Python<'_>, value: &Py<PyAny>, context: &Py<PyAny>) -> Outcome {
    let context = context.bind(py);
    match Entered::enter(context.clone()) {
        Ok(_entered) => drive(value.bind(py).clone(), || Some(context.clone())),
        Err(raised) => Outcome::Failed(raised.fetch(py)),
    }
}

/// Drives an awaitable on, or throws an exception into it.
pub fn resume(
    py: Python<'_>,
    awaitable: &Py<PyAny>,
    context: &Py<PyAny>,
    thrown: Option<PyErr>,
) -> Outcome {
    let (awaitable, context) = (awaitable.bind(py), context.bind(py));
    let _entered = match Entered::enter(context.clone()) {
        Ok(entered) => entered,
        Err(raised) => return Outcome::Failed(raised.fetch(py)),
    };
    let sent = match thrown {
        None => python::send(awaitable),
        Some(error) => Raised::from_result(py, throw(awaitable, error)),
    };
    outcome(sent, awaitable, || Some(context.clone()))
}

/// Drives what a handler returned until that suspends or ends; `context` gives the context in
/// which it does, to go on in it.
#[inline]
fn drive<'py>(
    value: Bound<'py, PyAny>,
    context: impl FnOnce() -> Option<Bound<'py, PyAny>>,
) -> Outcome {
    // SAFETY: attached, and `value` is alive.
    if unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) } != 0 {
        return outcome(python::send(&value), &value, context);
    }
    if value.is_none() {
        return Outcome::Done;
    }
    match iterator(value) {
        Ok(Some(awaitable)) => outcome(python::send(&awaitable), &awaitable, context),
        Ok(None) => Outcome::Done,
        Err(error) => Outcome::Failed(error),
    }
}

#[inline]
fn outcome<'py>(
    sent: Result<Sent<'py>, Raised>,
    awaitable: &Bound<'py, PyAny>,
    context: impl FnOnce() -> Option<Bound<'py, PyAny>>,
) -> Outcome {
    match sent {
        Ok(Sent::Returned) => Outcome::Done,
        Ok(Sent::Yielded(yielded)) => match context() {
            Some(context) => suspended(awaitable, context, yielded),
            None => Outcome::Done,
        },
        Err(raised) => Outcome::Failed(raised.fetch(awaitable.py())),
    }
}

/// What has to be driven to await `value`, which is no coroutine; `None` if it cannot be awaited.
#[cold]
fn iterator(value: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyAny>>> {
    if !is_awaitable(&value)? {
        return Ok(None);
    }
    match value.getattr(intern!(value.py(), "__await__")) {
        Ok(method) => python::call(&method, []).map(Some),
        // A generator that `types.coroutine` marked.
        Err(_) => Ok(Some(value)),
    }
}

fn suspended(
    awaitable: &Bound<'_, PyAny>,
    context: Bound<'_, PyAny>,
    yielded: Bound<'_, PyAny>,
) -> Outcome {
    Outcome::Suspended(Suspended {
        awaitable: awaitable.clone().unbind(),
        context: context.unbind(),
        yielded: yielded.unbind(),
    })
}

fn throw<'py>(awaitable: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Sent<'py>> {
    let py = awaitable.py();
    let method = awaitable.getattr(intern!(py, "throw"))?;
    match python::call(&method, [error.into_value(py).bind(py).as_any()]) {
        Ok(yielded) => Ok(Sent::Yielded(yielded)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Sent::Returned),
        Err(error) => Err(error),
    }
}
