//! Keeping the last messages of topics: what the arguments mean.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};

use crate::core::history::Retention;
use crate::name;
use crate::number::{self, count};

/// Messages that a hub keeps in all, if nothing else is said.
const MAX_HISTORY: usize = 100_000;

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

/// How much of a topic is kept, from the arguments `messages` and `seconds`; `None` for as much as of
/// topics without a rule of their own.
pub fn retention(
    messages: &Bound<'_, PyAny>,
    seconds: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Retention>> {
    if !messages.is_none() {
        return Ok(Some(Retention {
            messages: count(messages, "messages")?,
            age: seconds.map(age).transpose()?.flatten(),
        }));
    }
    if seconds.is_some() {
        return Err(PyValueError::new_err(
            "seconds needs a number of messages: without one, the rule of all topics holds again",
        ));
    }
    Ok(None)
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
    let number = number::float(seconds)?.filter(|_| is_number);
    let number = number.ok_or_else(|| name::must_be("seconds", "a number", seconds))?;
    if number.is_nan() || number <= 0.0 {
        return Err(PyValueError::new_err(format!(
            "seconds must be more than 0, but is {number}"
        )));
    }
    Ok(Duration::try_from_secs_f64(number).ok())
}
