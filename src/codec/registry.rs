//! Which classes travel, under which names, with which fields.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use once_cell::sync::Lazy;
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use triomphe::Arc;

use super::encode::text_as_bytes;
use crate::lock::lock;

/// A class that travels.
pub struct Kind {
    class: Py<PyType>,
    /// The module and the qualified name of the class: what a reload of the module does not change.
    origin: String,
    /// The name under which it travels.
    pub name: Box<str>,
    /// The name, encoded.
    pub head: Vec<u8>,
    pub fields: Vec<Field>,
    /// Gives an object's fields: a tuple of them, or the only one. There is none without fields.
    pub read: Option<Py<PyAny>>,
    /// Makes an object of its fields as keyword arguments.
    pub build: Py<PyAny>,
}

/// A field of such a class.
pub struct Field {
    /// The name of the attribute.
    pub name: Box<str>,
    /// The name, encoded.
    pub head: Vec<u8>,
    /// The keyword that [`Kind::build`] has for it.
    pub keyword: Py<PyString>,
}

/// The address of a class that is kept alive by its kind.
type Address = usize;

#[derive(Default)]
struct Registry {
    by_class: HashMap<Address, Arc<Kind>, RandomState>,
    by_name: HashMap<Box<str>, Arc<Kind>, RandomState>,
}

static REGISTRY: Lazy<Mutex<Registry>> = Lazy::new(Mutex::default);

/// The kind of objects of a class, if it travels.
pub fn of_class(py: Python<'_>, class: *const ffi::PyTypeObject) -> Option<Arc<Kind>> {
    lock(py, &REGISTRY).by_class.get(&class.addr()).cloned()
}

/// The kind that travels under a name.
pub fn named(py: Python<'_>, name: &str) -> Option<Arc<Kind>> {
    lock(py, &REGISTRY).by_name.get(name).cloned()
}

/// Whether a class was registered, until its module was loaded again.
pub fn was_replaced(class: &Bound<'_, PyType>) -> bool {
    let origin = origin_of(class).unwrap_or_default();
    let registry = lock(class.py(), &REGISTRY);
    let mut kinds = registry.by_name.values();
    kinds.any(|kind| kind.origin == origin)
}

/// Enters a class, with the attributes that are its fields and their keywords.
#[pyfunction]
#[pyo3(name = "_register")]
pub fn register(
    class: &Bound<'_, PyType>,
    name: &str,
    fields: Vec<(String, Bound<'_, PyString>)>,
    read: Option<Py<PyAny>>,
    build: Py<PyAny>,
) -> PyResult<()> {
    let fields = fields.into_iter().map(|(name, keyword)| {
        Ok(Field {
            head: text_as_bytes(class.py(), &name)?,
            name: name.into_boxed_str(),
            keyword: keyword.unbind(),
        })
    });
    let kind = Arc::new(Kind {
        class: class.clone().unbind(),
        origin: origin_of(class)?,
        name: name.into(),
        head: text_as_bytes(class.py(), name)?,
        fields: fields.collect::<PyResult<_>>()?,
        read,
        build,
    });
    // What was replaced is let go of after the lock: that can run anybody's code.
    let entered = lock(class.py(), &REGISTRY).enter(&kind);
    entered.map(drop).map_err(PyValueError::new_err)
}

impl Registry {
    /// Enters a kind. Returns those that it replaces, or says why it cannot be.
    fn enter(&mut self, kind: &Arc<Kind>) -> Result<[Option<Arc<Kind>>; 2], String> {
        let address = kind.class.as_ptr().addr();
        if let Some(known) = self.by_class.get(&address)
            && known.name != kind.name
        {
            let (origin, name) = (&kind.origin, &known.name);
            return Err(format!("{origin} is registered already, as {name:?}"));
        }
        let mut old = None;
        if let Some(known) = self.by_name.get(&kind.name) {
            if known.origin != kind.origin {
                let (name, origin) = (&kind.name, &known.origin);
                return Err(format!(
                    "{name:?} is the name of another class already: {origin}"
                ));
            }
            old = self.by_class.remove(&known.class.as_ptr().addr());
        }
        self.by_class.insert(address, kind.clone());
        let replaced = self.by_name.insert(kind.name.clone(), kind.clone());
        Ok([old, replaced])
    }
}

fn origin_of(class: &Bound<'_, PyType>) -> PyResult<String> {
    let (module, name) = (class.module()?, class.qualname()?);
    Ok(format!("{}.{}", module.to_str()?, name.to_str()?))
}
