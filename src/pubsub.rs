//! One session's view of a hub: Flet's `page.pubsub`.

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use triomphe::Arc;

use crate::close::Timeout;
use crate::cluster::wire::now;
use crate::core::Name;
use crate::core::fanout::Audience;
use crate::core::presence::Said;
use crate::core::registry::Scope;
use crate::delivery::handler::Message;
use crate::history::Replay;
use crate::hub::PubSubHub;
use crate::name;
use crate::presence;
use crate::stream::{Listener, Stream};
use crate::subscribe::{self, Concurrent, Options, Source};
use crate::subscription::Subscription;

/// A session's client of a hub.
#[pyclass(frozen, module = "pagebus", weakref)]
pub struct PubSub {
    hub: Py<PubSubHub>,
    session_id: Py<PyString>,
    session: Box<[u8]>,
    /// What the session says of itself.
    identity: Mutex<Option<Saying>>,
}

/// What a session says of itself, as its client knows it.
struct Saying {
    said: Py<PyAny>,
    when: u64,
    encoded: Option<Name>,
}

impl Saying {
    fn new(hub: &PubSubHub, info: &Bound<'_, PyDict>) -> PyResult<Self> {
        let link = hub.link().filter(|link| link.shares_presence());
        let encoded = link.map(|link| link.encode_identity(info)).transpose()?;
        Ok(Self {
            said: presence::identity(info)?.unbind(),
            when: encoded.as_ref().map_or(0, |_| now()),
            encoded,
        })
    }

    fn said(&self, py: Python<'_>) -> Said<Message> {
        Said {
            says: Message::new(None, self.said.bind(py)),
            when: self.when,
            encoded: self.encoded.clone(),
        }
    }
}

impl PubSub {
    /// What the session says of itself, if it does. Runs no Python, and may be asked with the
    /// router's lock held.
    pub fn identity(&self, py: Python<'_>) -> Option<Said<Message>> {
        let identity = self.identity.lock();
        identity.as_ref().map(|saying| saying.said(py))
    }

    /// The options, for a session that says of itself what this client knows.
    fn introduced(slf: &Bound<'_, Self>, options: Options) -> Options {
        Options {
            client: Some(slf.clone().unbind()),
            ..options
        }
    }

    fn subscribe_to(
        slf: &Bound<'_, Self>,
        source: Source<'_, '_>,
        handler: &Bound<'_, PyAny>,
        options: Options,
    ) -> PyResult<Subscription> {
        let (py, own) = (slf.py(), slf.get());
        let options = Self::introduced(slf, options);
        let (hub, session_id) = (own.hub.bind(py), own.session_id.bind(py));
        subscribe::subscribe(hub, session_id, source, handler, &options)
    }
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
            identity: Mutex::default(),
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
        PubSubHub::publish(self.hub.bind(py), None, Audience::Everyone, message)
    }

    fn send_all_on_topic(
        &self,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = name::string(topic, "topic")?;
        let hub = self.hub.bind(topic.py());
        PubSubHub::publish(hub, Some(topic), Audience::Everyone, message)
    }

    fn send_others(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let others = Audience::Others(&*self.session);
        PubSubHub::publish(self.hub.bind(py), None, others, message)
    }

    fn send_others_on_topic(
        &self,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = name::string(topic, "topic")?;
        let hub = self.hub.bind(topic.py());
        PubSubHub::publish(hub, Some(topic), Audience::Others(&*self.session), message)
    }

    fn send_to(&self, session_id: &Bound<'_, PyAny>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let session = name::bytes(name::string(session_id, "session_id")?)?;
        let hub = self.hub.bind(message.py());
        PubSubHub::publish(hub, None, Audience::Only(&session), message)
    }

    #[pyo3(signature = (handler, *, concurrent=Concurrent(false), replay=Replay(0)), text_signature = "($self, handler, *, concurrent=False, replay=0)")]
    fn subscribe(
        slf: &Bound<'_, Self>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
        replay: Replay,
    ) -> PyResult<Subscription> {
        let options = Options::new(concurrent, replay);
        Self::subscribe_to(slf, Source::Everything, handler, options)
    }

    #[pyo3(signature = (topic, handler, *, concurrent=Concurrent(false), replay=Replay(0)), text_signature = "($self, topic, handler, *, concurrent=False, replay=0)")]
    fn subscribe_topic(
        slf: &Bound<'_, Self>,
        topic: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
        replay: Replay,
    ) -> PyResult<Subscription> {
        let topic = Source::Topic(name::string(topic, "topic")?);
        Self::subscribe_to(slf, topic, handler, Options::new(concurrent, replay))
    }

    fn subscribe_presence(
        slf: &Bound<'_, Self>,
        topic: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
    ) -> PyResult<Subscription> {
        let presence = Source::Presence(name::string(topic, "topic")?);
        Self::subscribe_to(slf, presence, handler, Options::default())
    }

    #[pyo3(signature = (**info))]
    fn identify(&self, py: Python<'_>, info: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let nothing = PyDict::new(py);
        let saying = Saying::new(self.hub.get(), info.unwrap_or(&nothing))?;
        let said = Arc::new(saying.said(py));
        // Both at once: who says two things at the same time says the same here and there.
        let replaced = self.hub.get().change(py, |router, _| {
            router.identify(&self.session, said);
            self.identity.lock().replace(saying)
        });
        drop(replaced);
        Ok(())
    }

    #[pyo3(signature = (topic=None, *, replay=Replay(0)), text_signature = "($self, topic=None, *, replay=0)")]
    fn stream(
        slf: &Bound<'_, Self>,
        topic: Option<&Bound<'_, PyAny>>,
        replay: Replay,
    ) -> PyResult<Stream> {
        let (py, own) = (slf.py(), slf.get());
        let options = Self::introduced(slf, Options::new(Concurrent(false), replay));
        Stream::new(own.hub.bind(py), own.session_id.bind(py), topic, options)
    }

    #[pyo3(signature = (topic=None, *, timeout=Timeout(None), replay=Replay(0)), text_signature = "($self, topic=None, *, timeout=None, replay=0)")]
    fn listen(
        slf: &Bound<'_, Self>,
        topic: Option<&Bound<'_, PyAny>>,
        timeout: Timeout,
        replay: Replay,
    ) -> PyResult<Listener> {
        let (py, own) = (slf.py(), slf.get());
        let options = Self::introduced(slf, Options::new(Concurrent(false), replay));
        let (hub, session_id) = (own.hub.bind(py), own.session_id.bind(py));
        Listener::new(hub, session_id, topic, &timeout, options)
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
        visit.call(&self.hub)?;
        match self.identity.try_lock().as_deref() {
            Some(Some(saying)) => visit.call(&saying.said),
            _ => Ok(()),
        }
    }
}
