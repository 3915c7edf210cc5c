//! Messages as bytes, and bytes as messages: `MessagePack`, with extension types for what it lacks.
//!
//! docs/codecs.md says byte by byte what is written. What is read comes from somebody else: nothing
//! of it is believed, and nothing is imported, run or set that a registered class does not declare.

mod decode;
mod encode;
mod registry;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

pub use decode::decode;
pub use encode::encode;
pub use registry::register;

use crate::name;
use crate::once::Imported;

/// How deep containers and objects may lie inside each other.
const MAX_DEPTH: usize = 100;

/// The codes of the extension types.
mod code {
    pub const TUPLE: i8 = 1;
    pub const INT: i8 = 2;
    pub const DATETIME: i8 = 3;
    pub const UUID: i8 = 4;
    pub const OBJECT: i8 = 5;
}

/// Bytes of a date and time without an offset, and with one.
const NAIVE: usize = 12;
const AWARE: usize = NAIVE + size_of::<i64>();

pyo3::create_exception!(pagebus, DecodeError, PyValueError);

/// The codec that hubs use if they are given none.
#[pyclass(frozen, module = "pagebus")]
pub struct MessagePack;

#[pymethods]
impl MessagePack {
    #[new]
    fn new() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "a codec is an object")]
    fn encode<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let data = encode(message)?;
        PyBytes::new_with(message.py(), data.len(), |bytes| {
            bytes.copy_from_slice(&data);
            Ok(())
        })
    }

    #[expect(clippy::unused_self, reason = "a codec is an object")]
    fn decode<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let bytes = data.cast::<PyBytes>();
        let bytes = bytes.map_err(|_| name::must_be("data", "bytes", data))?;
        decode(data.py(), bytes.as_bytes())
    }
}

/// The object as a `T`, if that is its very type and not only a base of it.
fn exact<'a, 'py, T: pyo3::PyTypeInfo>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, T>> {
    let is_exact = object.is_exact_instance_of::<T>();
    // SAFETY: it is one.
    is_exact.then(|| unsafe { object.cast_unchecked() })
}

/// `uuid.UUID`.
fn uuid_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: Imported = Imported::new("uuid", "UUID");
    Ok(CLASS.get(py)?.cast()?)
}

/// Imports now what is needed later, for the reason that `_core`'s own imports have.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    pyo3::types::PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, None)?;
    uuid_class(py).map(drop)
}
