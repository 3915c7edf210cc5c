//! What is made at its first use and kept: interned strings, and what modules have.
//!
//! `PyO3`'s own cells let other threads have the interpreter while they are filled. A daemon thread
//! that wants it back while the process exits would be ended in the middle of our frames: see
//! `python.rs`. And who asks for one while it is being filled, as what the garbage collector runs
//! may do at any allocation, waits for itself. These never give the interpreter up, and wait for nobody.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// A cell that is filled once.
pub struct Once<T>(OnceLock<T>);

impl<T> Once<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What is in it, if anything.
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// What is in it, or else what `make` makes; of two threads that make it at once, the first
    /// one's is kept.
    #[inline]
    pub fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        match self.get() {
            Some(value) => Ok(value),
            None => make().map(|value| self.get_or_keep(value)),
        }
    }

    /// What is in it, or else `value`.
    pub fn get_or_keep(&self, value: T) -> &T {
        self.0.get_or_init(|| value)
    }
}

/// What a module has under a name.
pub struct Imported {
    module: &'static str,
    name: &'static str,
    object: Once<Py<PyAny>>,
}

impl Imported {
    /// That.
    pub const fn new(module: &'static str, name: &'static str) -> Self {
        let object = Once::new();
        Self {
            module,
            name,
            object,
        }
    }

    /// It.
    #[inline]
    pub fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let import = || {
            py.import(self.module)?
                .getattr(self.name)
                .map(Bound::unbind)
        };
        self.object
            .get_or_try_init(import)
            .map(|object| object.bind(py))
    }
}

/// A Python string that stands in the source.
pub struct Interned {
    text: &'static str,
    string: Once<Py<PyString>>,
}

impl Interned {
    /// That.
    pub const fn new(text: &'static str) -> Self {
        let string = Once::new();
        Self { text, string }
    }

    /// It.
    #[inline]
    pub fn get<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        let string = self.string.get().unwrap_or_else(|| {
            let made = PyString::intern(py, self.text).unbind();
            self.string.get_or_keep(made)
        });
        string.bind(py)
    }
}

/// The Python string of a literal.
macro_rules! intern {
    ($py:expr, $text:expr) => {{
        static INTERNED: $crate::once::Interned = $crate::once::Interned::new($text);
        INTERNED.get($py)
    }};
}
pub(crate) use intern;
