//! Records: frozen classes of which nothing counts but their fields, as with Python's dataclasses.

use pyo3::PyTypeInfo;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Gives a class what a dataclass has: it is equal to one with the same fields, can be matched by
/// them, and made into a dictionary. A function of the class says how it shows itself.
macro_rules! record {
    ($class:ident { $($field:ident),+ $(,)? }, $repr:expr) => {
        #[pyo3::pymethods]
        impl $class {
            #[classattr]
            #[pyo3(name = "__match_args__")]
            fn match_args(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
                PyTuple::new(py, Self::FIELDS)
            }

            fn asdict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
                $crate::record::as_dict(slf, &Self::FIELDS)
            }

            fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, Self>) -> PyResult<bool> {
                let fields = |record| $crate::record::values(record, &Self::FIELDS);
                fields(slf)?.eq(fields(other)?)
            }

            fn __hash__(slf: &Bound<'_, Self>) -> PyResult<isize> {
                $crate::record::values(slf, &Self::FIELDS)?.hash()
            }

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                let repr: fn(&Bound<'_, Self>) -> PyResult<String> = $repr;
                repr(slf)
            }
        }

        impl $class {
            const FIELDS: [&'static str; [$(stringify!($field)),+].len()] =
                [$(stringify!($field)),+];
        }
    };
}

pub(crate) use record;

/// The values of a record's fields.
pub fn values<'py, T>(record: &Bound<'py, T>, fields: &[&str]) -> PyResult<Bound<'py, PyTuple>> {
    let values = fields.iter().map(|field| record.as_any().getattr(*field));
    PyTuple::new(record.py(), values.collect::<PyResult<Vec<_>>>()?)
}

/// The fields with their values; records within become dictionaries too.
pub fn as_dict<'py, T>(record: &Bound<'py, T>, fields: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(record.py());
    for (field, value) in fields.iter().zip(values(record, fields)?) {
        let value = match value.cast::<PyTuple>() {
            Ok(records) => dicts(records)?.into_any(),
            Err(_) => value,
        };
        dict.set_item(field, value)?;
    }
    Ok(dict)
}

fn dicts<'py>(records: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
    let dicts = records.iter().map(|record| record.call_method0("asdict"));
    PyTuple::new(records.py(), dicts.collect::<PyResult<Vec<_>>>()?)
}

/// A record with all its fields, as it would be written.
pub fn shown<T: PyTypeInfo>(record: &Bound<'_, T>, fields: &[&str]) -> PyResult<String> {
    let values = values(record, fields)?;
    let shown = fields.iter().zip(values).map(|(field, value)| {
        let value = value.repr()?;
        Ok(format!("{field}={}", value.to_string_lossy()))
    });
    let shown: Vec<_> = shown.collect::<PyResult<_>>()?;
    Ok(format!(
        "{}({})",
        record.as_any().get_type().name()?,
        shown.join(", ")
    ))
}
