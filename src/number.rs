//! Numbers among the arguments: what is one, and how large it may be.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

use crate::name::must_be;

/// A number of things, of which there may be none.
pub fn count(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<usize> {
    let number = int(value, argument)?;
    if number.lt(0)? {
        return Err(too_small(argument, "must not be negative, but is", number));
    }
    // More than fits in memory is as good as all.
    Ok(number.extract().unwrap_or(usize::MAX))
}

/// A number of things, of which there has to be one.
pub fn positive(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<usize> {
    let number = int(value, argument)?;
    if number.lt(1)? {
        return Err(too_small(argument, "must be at least 1, not", number));
    }
    Ok(number.extract().unwrap_or(usize::MAX))
}

/// The value as a float; an int that is too large for one is infinite. `None` for what is no number.
pub fn float(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if value.is_instance_of::<PyBool>() {
        return Ok(None);
    }
    match value.extract() {
        Ok(number) => Ok(Some(number)),
        Err(_) if !value.is_instance_of::<PyInt>() => Ok(None),
        Err(_) if value.lt(0)? => Ok(Some(f64::NEG_INFINITY)),
        Err(_) => Ok(Some(f64::INFINITY)),
    }
}

fn int<'a, 'py>(value: &'a Bound<'py, PyAny>, argument: &str) -> PyResult<&'a Bound<'py, PyInt>> {
    let number = value.cast::<PyInt>().ok();
    let number = number.filter(|number| !number.is_instance_of::<PyBool>());
    number.ok_or_else(|| must_be(argument, "an int", value))
}

fn too_small(argument: &str, expected: &str, number: &Bound<'_, PyInt>) -> PyErr {
    // Python writes no int of many thousand digits.
    let number = number.str().map_or_else(
        |_| "that".to_owned(),
        |number| number.to_string_lossy().into_owned(),
    );
    PyValueError::new_err(format!("{argument} {expected} {number}"))
}
