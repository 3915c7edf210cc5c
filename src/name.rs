//! Session ids and topics: between Python strings and the router's names.

use std::borrow::Cow;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// `value` as a string, or a `TypeError` that names the argument.
pub fn string<'a, 'py>(
    value: &'a Bound<'py, PyAny>,
    argument: &str,
) -> PyResult<&'a Bound<'py, PyString>> {
    value
        .cast::<PyString>()
        .map_err(|_| must_be(argument, "a str", value))
}

/// [`string`], of an argument that may be left out.
pub fn optional_string<'a, 'py>(
    value: Option<&'a Bound<'py, PyAny>>,
    argument: &str,
) -> PyResult<Option<&'a Bound<'py, PyString>>> {
    value.map(|value| string(value, argument)).transpose()
}

/// The `TypeError` for an argument of the wrong type.
pub fn must_be(argument: &str, expected: &str, found: &Bound<'_, PyAny>) -> PyErr {
    let kind = found.get_type().name();
    let found = kind.map_or_else(
        |_| "that".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    PyTypeError::new_err(format!("{argument} must be {expected}, not {found}"))
}

/// The text as UTF-8. A lone surrogate, which UTF-8 has no form for, keeps the three bytes that
/// its code point would have, so that different strings stay different.
pub fn bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(text) = text.to_str() {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let py = text.py();
    let encoded = py
        .get_type::<PyString>()
        .call_method1("encode", (text, "utf-8", "surrogatepass"))?
        .cast_into::<PyBytes>()?;
    Ok(Cow::Owned(encoded.as_bytes().to_vec()))
}

/// [`bytes`], of a text that may be missing.
pub fn optional_bytes<'a>(
    text: Option<&'a Bound<'_, PyString>>,
) -> PyResult<Option<Cow<'a, [u8]>>> {
    text.map(bytes).transpose()
}

/// The string of which [`bytes`] gave the name.
pub fn text<'py>(py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyString>> {
    if let Ok(text) = std::str::from_utf8(name) {
        return Ok(PyString::new(py, text));
    }
    let decoded = PyBytes::new(py, name).call_method1("decode", ("utf-8", "surrogatepass"))?;
    Ok(decoded.cast_into::<PyString>()?)
}
