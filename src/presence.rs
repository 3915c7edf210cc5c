//! Who is on a topic, as Python sees it.

use std::sync::OnceLock;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMappingProxy, PyString};
use triomphe::Arc;

use crate::core::presence as core;
use crate::delivery::handler::Message;
use crate::name;
use crate::once::Once;
use crate::report::quoted;

/// Who came to a topic, and who left it.
#[pyclass(frozen, module = "pagebus", get_all, weakref)]
pub struct Presence {
    topic: Py<PyString>,
    joined: Py<PyAny>,
    left: Py<PyAny>,
}

#[pymethods]
impl Presence {
    fn __repr__(&self, py: Python<'_>) -> String {
        let topic = quoted(self.topic.bind(py));
        let count = |all: &Py<PyAny>| all.bind(py).len().unwrap_or_default();
        let (joined, left) = (count(&self.joined), count(&self.left));
        format!("<Presence on topic {topic}: {joined} joined, {left} left>")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.joined)?;
        visit.call(&self.left)
    }
}

/// What the hub tells those who watch a topic. The record is made when the first of them is called.
pub struct Notice {
    presence: Arc<core::Presence<Message>>,
    record: OnceLock<Py<PyAny>>,
}

impl Notice {
    /// A notice of changes, some of which may come later.
    pub fn new(presence: Arc<core::Presence<Message>>) -> Self {
        Self {
            presence,
            record: OnceLock::new(),
        }
    }

    /// The changes.
    pub fn presence(&self) -> &Arc<core::Presence<Message>> {
        &self.presence
    }

    /// The topic.
    pub fn topic<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        name::text(py, &self.presence.topic)
    }

    /// The record, once the notice has left the hub's queues.
    pub fn record<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<&'a Bound<'py, PyAny>> {
        if let Some(record) = self.record.get() {
            return Ok(record.bind(py));
        }
        let (joined, left) = self.presence.joined_and_left();
        let record = Presence {
            topic: self.topic(py)?.unbind(),
            joined: read_only(&by_id(py, &joined)?).unbind(),
            left: read_only(&by_id(py, &left)?).unbind(),
        };
        // Not made inside the cell: what is made here can let another thread in, which would wait.
        let made = Bound::new(py, record)?.into_any().unbind();
        Ok(self.record.get_or_init(|| made).bind(py))
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.record
            .get()
            .map_or(Ok(()), |record| visit.call(record))
    }
}

/// What sessions say of themselves, by their ids.
pub fn by_id<'py>(
    py: Python<'py>,
    members: &[core::Member<Message>],
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for member in members {
        let id = name::text(py, member.owner.id())?;
        match &member.identity {
            Some(identity) => dict.set_item(id, identity.says.body(py)?)?,
            None => dict.set_item(id, nothing(py)?)?,
        }
    }
    Ok(dict)
}

/// What a session that never said anything says of itself.
fn nothing(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static NOTHING: Once<Py<PyAny>> = Once::new();
    let nothing = NOTHING.get_or_try_init(|| identity(&PyDict::new(py)).map(Bound::unbind))?;
    Ok(nothing.bind(py))
}

/// A mapping that nobody changes, to be shown to others.
pub fn identity<'py>(said: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    Ok(read_only(&said.copy()?))
}

/// Several handlers get the same one.
fn read_only<'py>(dict: &Bound<'py, PyDict>) -> Bound<'py, PyAny> {
    PyMappingProxy::new(dict.py(), dict.as_mapping()).into_any()
}
