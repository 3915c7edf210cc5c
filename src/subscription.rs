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

/// Has `callback` called for each of the channels of a subscription on which nothing is missed any
/// more; returns how many they are.
pub fn when_ready(
    hub: &Bound<'_, PubSubHub>,
    address: Address,
    session_id: &Bound<'_, PyString>,
    topic: Option<&Bound<'_, PyString>>,
    callback: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let Some(link) = hub.get().link() else {
        return Ok(0);
    };
    // This also gives a child process a link of its own.
    let Some(is_watch) = hub.get().is_watch(hub.py(), address) else {
        return Ok(0);
    };
    let channels = if let Some(topic) = topic {
        let topic = (*name::bytes(topic)?).into();
        match is_watch {
            true if link.shares_presence() => vec![Channel::Presence(topic)],
            true => return Ok(0),
            false => vec![Channel::Topic(topic)],
        }
    } else {
        let session = name::bytes(session_id)?;
        vec![Channel::All, Channel::Session((*session).into())]
    };
    let count = channels.len();
    for channel in channels {
        link.when_ready(hub, channel, callback.clone().unbind())?;
    }
    Ok(count)
}

/// `callback` is not to be called any more.
pub fn forget_ready(hub: &PubSubHub, callback: &Bound<'_, PyAny>) {
    if let Some(link) = hub.link() {
        link.forget_ready(callback.py(), callback);
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
        let topic = self.topic.as_ref().map(|topic| topic.bind(py));
        self.hub(py).map_or(Ok(0), |hub| {
            when_ready(
                &hub,
                self.address,
                self.session_id.bind(py),
                topic,
                callback,
            )
        })
    }

    /// `callback` is not to be called any more.
    fn _forget_ready(&self, callback: &Bound<'_, PyAny>) {
        if let Some(hub) = self.hub(callback.py()) {
            forget_ready(hub.get(), callback);
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
