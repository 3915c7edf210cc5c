//! Keeping the last messages of topics: what the arguments mean.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use crate::core::history::Retention;
use crate::name;

/// Messages that a hub keeps in all, if nothing else is said.
const MAX_HISTORY: usize = 100_000;

/// The number of messages that an argument of that name says.
pub fn count(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<usize> {
    let number = value.cast::<PyInt>();
    let Some(number) = number.ok().filter(|n| !n.is_instance_of::<PyBool>()) else {
        return Err(name::must_be(argument, "an int", value));
    };
    if number.lt(0)? {
        return Err(PyValueError::new_err(format!(
            "{argument} must not be negative, but is {number}"
        )));
    }
    // More messages than fit in memory are as good as all.
    Ok(number.extract().unwrap_or(usize::MAX))
}

/// How much is kept of topics without a rule of their own, from the argument `history`.
pub fn general(history: Option<&Bound<'_, PyAny>>) -> PyResult<Retention> {
    let messages = history.map_or(Ok(0), |value| count(value, "history"))?;
    Ok(Retention {
        messages,
        age: None,
    })
}

/// How many messages are kept in all, from the argument `max_history`.
pub fn limit(max_history: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    max_history.map_or(Ok(MAX_HISTORY), |value| count(value, "max_history"))
}

/// How much of a topic is kept, from the arguments `messages` and `seconds`.
pub fn retention(
    messages: &Bound<'_, PyAny>,
    seconds: Option<&Bound<'_, PyAny>>,
) -> PyResult<Retention> {
    Ok(Retention {
        messages: count(messages, "messages")?,
        age: seconds.map(age).transpose()?.flatten(),
    })
}

/// The argument `replay`.
#[derive(Clone, Copy)]
pub struct Replay(pub usize);

impl<'py> FromPyObject<'_, 'py> for Replay {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        count(&value, "replay").map(Self)
    }
}

/// `None` for longer than anything lasts.
fn age(seconds: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    let is_number = seconds.is_instance_of::<PyInt>() || seconds.is_instance_of::<PyFloat>();
    if !is_number || seconds.is_instance_of::<PyBool>() {
        return Err(name::must_be("seconds", "a number", seconds));
    }
    // What is no float is an int that is too large for one.
    let number: f64 = match seconds.extract() {
        Ok(number) => number,
        Err(_) if seconds.lt(0)? => f64::NEG_INFINITY,
        Err(_) => f64::INFINITY,
    };
    if number.is_nan() || number <= 0.0 {
        return Err(PyValueError::new_err(format!(
            "seconds must be more than 0, but is {number}"
        )));
    }
    Ok(Duration::try_from_secs_f64(number).ok())
}
