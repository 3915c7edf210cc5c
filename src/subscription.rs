//! The handle on one handler's subscription.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyWeakrefMethods, PyWeakrefReference};

use crate::core::interest::Channel;
use crate::core::subscription::Address;
use crate::hub::PubSubHub;
use crate::once::Imported;
use crate::{name, python};

/// A handle on a subscription; keeps neither it nor its handler alive.
#[pyclass(frozen, module = "pagebus", weakref)]
pub struct Subscription {
    hub: Py<PyWeakrefReference>,
    address: Address,
    session_id: Py<PyString>,
    topic: Option<Py<PyString>>,
}

impl Subscription {
    /// A handle on a subscription of `hub`.
    pub fn new(
        hub: Py<PyWeakrefReference>,
        address: Address,
        session_id: Py<PyString>,
        topic: Option<Py<PyString>>,
    ) -> Self {
        Self {
            hub,
            address,
            session_id,
            topic,
        }
    }

    fn hub<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PubSubHub>> {
        let hub = self.hub.bind(py).upgrade()?;
        hub.cast_into().ok()
    }
}

#[pymethods]
impl Subscription {
    #[getter]
    fn active(&self, py: Python<'_>) -> bool {
        let hub = self.hub(py);
        hub.is_some_and(|hub| hub.get().is_active(py, self.address))
    }

    #[getter]
    fn session_id(&self, py: Python<'_>) -> Py<PyString> {
        self.session_id.clone_ref(py)
    }

    #[getter]
    fn topic(&self, py: Python<'_>) -> Option<Py<PyString>> {
        self.topic.as_ref().map(|topic| topic.clone_ref(py))
    }

    fn cancel(&self, py: Python<'_>) {
        if let Some(hub) = self.hub(py) {
            hub.get().cancel(py, self.address);
        }
    }

    fn ready<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static READY: Imported = Imported::new("pagebus._linking", "ready");
        let ready = READY.get(slf.py())?;
        python::call(ready, [slf.as_any()])
    }

    /// Has `callback` called for each of the channels on which nothing is missed any more; returns
    /// how many they are.
    fn _when_ready(&self, py: Python<'_>, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        let Some(hub) = self.hub(py) else {
            return Ok(0);
        };
        let Some(link) = hub.get().link() else {
            return Ok(0);
        };
        // This also gives a child process a link of its own.
        let Some(is_watch) = hub.get().is_watch(py, self.address) else {
            return Ok(0);
        };
        let channels = if let Some(topic) = &self.topic {
            let topic = (*name::bytes(topic.bind(py))?).into();
            match is_watch {
                true if link.shares_presence() => vec![Channel::Presence(topic)],
                true => return Ok(0),
                false => vec![Channel::Topic(topic)],
            }
        } else {
            let session = name::bytes(self.session_id.bind(py))?;
            vec![Channel::All, Channel::Session((*session).into())]
        };
        let count = channels.len();
        for channel in channels {
            link.when_ready(&hub, channel, callback.clone().unbind())?;
        }
        Ok(count)
    }

    /// `callback` is not to be called any more.
    fn _forget_ready(&self, callback: &Bound<'_, PyAny>) {
        let hub = self.hub(callback.py());
        if let Some(link) = hub.as_ref().and_then(|hub| hub.get().link()) {
            link.forget_ready(callback.py(), callback);
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __exit__(
        &self,
        py: Python<'_>,
        _exc_type: Bound<'_, PyAny>,
        _exc: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) {
        self.cancel(py);
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let session = self.session_id.bind(py).repr()?;
        let state = if self.active(py) {
            "active"
        } else {
            "cancelled"
        };
        Ok(match &self.topic {
            Some(topic) => {
                format!(
                    "<Subscription of {session} on topic {} {state}>",
                    topic.bind(py).repr()?
                )
            }
            None => format!("<Subscription of {session} {state}>"),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)
    }
}
