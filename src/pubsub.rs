//! One session's view of a hub: Flet's `page.pubsub`.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::core::registry::Scope;
use crate::hub::{Concurrent, PubSubHub};
use crate::name;
use crate::subscribe;
use crate::subscription::Subscription;

/// A session's client of a hub.
#[pyclass(frozen, module = "pagebus", weakref)]
pub struct PubSub {
    hub: Py<PubSubHub>,
    session_id: Py<PyString>,
    session: Box<[u8]>,
}

#[pymethods]
impl PubSub {
    #[new]
    fn new(hub: &Bound<'_, PyAny>, session_id: &Bound<'_, PyAny>) -> PyResult<Self> {
        let Ok(hub) = hub.cast::<PubSubHub>() else {
            return Err(name::must_be("hub", "a pagebus.PubSubHub", hub));
        };
        let session_id = name::string(session_id, "session_id")?;
        let session = name::bytes(session_id)?.into();
        Ok(Self {
            hub: hub.clone().unbind(),
            session_id: session_id.clone().unbind(),
            session,
        })
    }

    #[getter]
    fn hub(&self, py: Python<'_>) -> Py<PubSubHub> {
        self.hub.clone_ref(py)
    }

    #[getter]
    fn session_id(&self, py: Python<'_>) -> Py<PyString> {
        self.session_id.clone_ref(py)
    }

    fn send_all(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        PubSubHub::publish(self.hub.bind(py), None, None, message)
    }

    fn send_all_on_topic(
        &self,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = name::string(topic, "topic")?;
        PubSubHub::publish(self.hub.bind(topic.py()), Some(topic), None, message)
    }

    fn send_others(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        PubSubHub::publish(self.hub.bind(py), None, Some(&self.session), message)
    }

    fn send_others_on_topic(
        &self,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = name::string(topic, "topic")?;
        let hub = self.hub.bind(topic.py());
        PubSubHub::publish(hub, Some(topic), Some(&self.session), message)
    }

    #[pyo3(signature = (handler, *, concurrent=Concurrent(false)), text_signature = "($self, handler, *, concurrent=False)")]
    fn subscribe(
        &self,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
    ) -> PyResult<Subscription> {
        let py = handler.py();
        subscribe::subscribe(
            self.hub.bind(py),
            self.session_id.bind(py),
            None,
            handler,
            concurrent.0,
        )
    }

    #[pyo3(signature = (topic, handler, *, concurrent=Concurrent(false)), text_signature = "($self, topic, handler, *, concurrent=False)")]
    fn subscribe_topic(
        &self,
        topic: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
    ) -> PyResult<Subscription> {
        let (py, topic) = (topic.py(), name::string(topic, "topic")?);
        subscribe::subscribe(
            self.hub.bind(py),
            self.session_id.bind(py),
            Some(topic),
            handler,
            concurrent.0,
        )
    }

    fn unsubscribe(&self, py: Python<'_>) {
        self.hub.get().remove(py, &self.session, &Scope::Everything);
    }

    fn unsubscribe_topic(&self, topic: &Bound<'_, PyAny>) -> PyResult<()> {
        let topic = name::string(topic, "topic")?;
        let scope = &Scope::Topic(&name::bytes(topic)?);
        self.hub.get().remove(topic.py(), &self.session, scope);
        Ok(())
    }

    fn unsubscribe_all(&self, py: Python<'_>) {
        self.hub.get().remove(py, &self.session, &Scope::All);
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<PubSub of session {}>",
            self.session_id.bind(py).repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)
    }
}
