//! What Python sees of a hub.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::arguments::{Given, Linking, check_hook, check_limit};
use super::{PubSubHub, SYNC};
use crate::close::{self, TIMEOUT, Timeout};
use crate::core::backlog::OverflowPolicy;
use crate::core::counters::Counters;
use crate::core::fanout::Audience;
use crate::core::history::History;
use crate::core::registry::Scope;
use crate::delivery::event_loop::LoopLane;
use crate::delivery::executor::ExecutorLane;
use crate::delivery::handler::Message;
use crate::delivery::nudge::Nudge;
use crate::delivery::{Deliverer, Router, Trash};
use crate::fork::{self, Process};
use crate::history::{self, Replay};
use crate::link::{Counts, Link};
use crate::name;
use crate::once::Once;
use crate::presence;
use crate::stats::{Failures, Stats};
use crate::stream::{Listener, Stream};
use crate::subscribe::{self, Concurrent, Options, Source};
use crate::subscription::Subscription;
use crate::timing::Timing;

#[pymethods]
impl PubSubHub {
    #[new]
    #[pyo3(signature = (
        r#loop=None, executor=None, *, max_pending=Given::NOT, overflow=OverflowPolicy::DropOldest,
        on_error=None, on_overflow=None, history=Given::NOT, max_history=Given::NOT, link=None,
        namespace=Given::NOT, codec=None, max_message_bytes=Given::NOT, max_outbox=Given::NOT,
        on_gap=None, on_link_state=None, presence=Given::NOT
    ), text_signature = "(loop=None, executor=None, *, max_pending=10000, overflow='drop_oldest', on_error=None, on_overflow=None, history=0, max_history=100000, link=None, namespace='default', codec=None, max_message_bytes=1048576, max_outbox=10000, on_gap=None, on_link_state=None, presence=False)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    fn new<'py>(
        r#loop: Option<&Bound<'py, PyAny>>,
        executor: Option<&Bound<'py, PyAny>>,
        max_pending: Given<'py>,
        overflow: OverflowPolicy,
        on_error: Option<&Bound<'py, PyAny>>,
        on_overflow: Option<&Bound<'py, PyAny>>,
        history: Given<'py>,
        max_history: Given<'py>,
        link: Option<&Bound<'py, PyAny>>,
        namespace: Given<'py>,
        codec: Option<&Bound<'py, PyAny>>,
        max_message_bytes: Given<'py>,
        max_outbox: Given<'py>,
        on_gap: Option<&Bound<'py, PyAny>>,
        on_link_state: Option<&Bound<'py, PyAny>>,
        presence: Given<'py>,
    ) -> PyResult<Self> {
        let mut router = Router::new(max_pending.get().map_or(Ok(10_000), check_limit)?, overflow);
        router.make_notices(Message::notice, Message::presence);
        router.limit_history(history::limit(max_history.get())?);
        router.keep_all(history::general(history.get())?);
        let linking = Linking {
            link,
            namespace: namespace.get(),
            codec,
            max_message_bytes: max_message_bytes.get(),
            max_outbox: max_outbox.get(),
            on_gap,
            on_link_state,
            presence: presence.get(),
        };
        let link = linking.link()?.map(Box::new);
        if let Some(link) = &link {
            router.note_interest();
            if link.shares_presence() {
                router.share_presence();
            }
        }
        let event_loop = r#loop.map(LoopLane::given).transpose()?;
        let nudge = r#loop.map(Nudge::new).transpose()?;
        let executor = executor
            .map(|given| ExecutorLane::new(given, nudge))
            .transpose()?;
        let executor = executor.map(fork::share);
        let workers = executor.as_ref().map_or(1, |executor| executor.workers);
        router.add_lane(true, workers, |_| {
            executor
                .clone()
                .map_or(Deliverer::Inline, Deliverer::Executor)
        });
        if executor.is_some() {
            router.is_remote(SYNC);
        }
        let event_loop = event_loop.map(|lane| {
            let mut kept = None;
            router.add_lane(true, 1, |key| {
                let lane = fork::share(lane.with_key(key));
                kept = Some(lane.clone());
                Deliverer::Loop(lane)
            });
            if let Some(lane) = &kept {
                router.is_remote(lane.key);
            }
            kept
        });
        Ok(Self {
            router: Mutex::new(router),
            process: Process::this(),
            event_loop: event_loop.flatten(),
            executor,
            counters: Counters::default(),
            timing: Timing::default(),
            failures: Failures::default(),
            on_error: check_hook(on_error, "on_error")?,
            on_overflow: check_hook(on_overflow, "on_overflow")?,
            overflow,
            passed: AtomicU64::new(0),
            watchers: Mutex::default(),
            losers: Mutex::default(),
            this: Once::new(),
            loops: Mutex::default(),
            link,
        })
    }

    fn send_all(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::publish(slf, None, Audience::Everyone, message)
    }

    fn send_all_on_topic(
        slf: &Bound<'_, Self>,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = name::string(topic, "topic")?;
        Self::publish(slf, Some(topic), Audience::Everyone, message)
    }

    fn send_others(
        slf: &Bound<'_, Self>,
        except_session_id: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let except = name::bytes(name::string(except_session_id, "except_session_id")?)?;
        Self::publish(slf, None, Audience::Others(&except), message)
    }

    fn send_others_on_topic(
        slf: &Bound<'_, Self>,
        except_session_id: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let except = name::bytes(name::string(except_session_id, "except_session_id")?)?;
        let topic = name::string(topic, "topic")?;
        Self::publish(slf, Some(topic), Audience::Others(&except), message)
    }

    fn send_to(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let session = name::bytes(name::string(session_id, "session_id")?)?;
        Self::publish(slf, None, Audience::Only(&session), message)
    }

    #[pyo3(signature = (session_id, handler, *, concurrent=Concurrent(false), replay=Replay(0)), text_signature = "($self, session_id, handler, *, concurrent=False, replay=0)")]
    fn subscribe(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
        replay: Replay,
    ) -> PyResult<Subscription> {
        let session_id = name::string(session_id, "session_id")?;
        let options = Options::new(concurrent, replay);
        subscribe::subscribe(slf, session_id, Source::Everything, handler, &options)
    }

    #[pyo3(signature = (session_id, topic, handler, *, concurrent=Concurrent(false), replay=Replay(0)), text_signature = "($self, session_id, topic, handler, *, concurrent=False, replay=0)")]
    fn subscribe_topic(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
        replay: Replay,
    ) -> PyResult<Subscription> {
        let session_id = name::string(session_id, "session_id")?;
        let topic = Source::Topic(name::string(topic, "topic")?);
        let options = Options::new(concurrent, replay);
        subscribe::subscribe(slf, session_id, topic, handler, &options)
    }

    fn subscribe_presence(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
    ) -> PyResult<Subscription> {
        let session_id = name::string(session_id, "session_id")?;
        let presence = Source::Presence(name::string(topic, "topic")?);
        subscribe::subscribe(slf, session_id, presence, handler, &Options::default())
    }

    #[pyo3(signature = (topic, *, messages, seconds=None))]
    fn keep(
        &self,
        py: Python<'_>,
        topic: Option<&Bound<'_, PyAny>>,
        messages: &Bound<'_, PyAny>,
        seconds: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let topic = name::optional_bytes(name::optional_string(topic, "topic")?)?;
        let retention = history::retention(messages, seconds)?;
        self.change(py, |router, trash| {
            router.keep(topic.as_deref(), retention, trash);
        });
        Ok(())
    }

    #[pyo3(signature = (topic=None))]
    fn sessions<'py>(
        &self,
        py: Python<'py>,
        topic: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let topic = name::optional_bytes(name::optional_string(topic, "topic")?)?;
        let members = self.change(py, |router, _| match &topic {
            Some(topic) => router.registry().members(topic),
            None => router.registry().everybody(),
        });
        presence::by_id(py, &members)
    }

    fn topics<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyString>>> {
        let names: Vec<_> = self.change(py, |router, _| {
            router.registry().topics().cloned().collect()
        });
        names.iter().map(|topic| name::text(py, topic)).collect()
    }

    fn subscriber_count(&self, topic: &Bound<'_, PyAny>) -> PyResult<usize> {
        let (py, topic) = (topic.py(), name::bytes(name::string(topic, "topic")?)?);
        Ok(self.change(py, |router, _| router.registry().count_on(&topic)))
    }

    #[pyo3(signature = (session_id, topic=None, *, replay=Replay(0)), text_signature = "($self, session_id, topic=None, *, replay=0)")]
    fn stream(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        topic: Option<&Bound<'_, PyAny>>,
        replay: Replay,
    ) -> PyResult<Stream> {
        let options = Options::new(Concurrent(false), replay);
        let session_id = name::string(session_id, "session_id")?;
        Stream::new(slf, session_id, topic, options)
    }

    #[pyo3(signature = (session_id, topic=None, *, timeout=Timeout(None), replay=Replay(0)), text_signature = "($self, session_id, topic=None, *, timeout=None, replay=0)")]
    fn listen(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        topic: Option<&Bound<'_, PyAny>>,
        timeout: Timeout,
        replay: Replay,
    ) -> PyResult<Listener> {
        let options = Options::new(Concurrent(false), replay);
        let session_id = name::string(session_id, "session_id")?;
        Listener::new(slf, session_id, topic, &timeout, options)
    }

    fn unsubscribe(&self, session_id: &Bound<'_, PyAny>) -> PyResult<()> {
        self.remove_named(session_id, &Scope::Everything)
    }

    fn unsubscribe_topic(
        &self,
        session_id: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = name::bytes(name::string(topic, "topic")?)?;
        self.remove_named(session_id, &Scope::Topic(&topic))
    }

    fn unsubscribe_all(&self, session_id: &Bound<'_, PyAny>) -> PyResult<()> {
        self.remove_named(session_id, &Scope::All)
    }

    #[pyo3(signature = (timeout=Timeout(Some(TIMEOUT))), text_signature = "($self, timeout=5.0)")]
    fn close(slf: &Bound<'_, Self>, timeout: Timeout) -> PyResult<()> {
        close::close(slf, &timeout)
    }

    #[pyo3(signature = (timeout=Timeout(Some(TIMEOUT))), text_signature = "($self, timeout=5.0)")]
    fn aclose<'py>(slf: &Bound<'py, Self>, timeout: Timeout) -> PyResult<Bound<'py, PyAny>> {
        close::aclose(slf, &timeout)
    }

    fn _close_anywhere(slf: &Bound<'_, Self>, timeout: Timeout) -> PyResult<()> {
        close::close_anywhere(slf, &timeout)
    }

    fn _wait_for_room(&self, timeout: Timeout) {
        if let Some(link) = &self.link {
            link.wait_for_room(timeout);
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __exit__(
        slf: &Bound<'_, Self>,
        _exc_type: &Bound<'_, PyAny>,
        _exc: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        close::close(slf, &Timeout(Some(TIMEOUT)))
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        close::entered(slf)
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        _exc_type: &Bound<'py, PyAny>,
        _exc: &Bound<'py, PyAny>,
        _traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        close::aclose(slf, &Timeout(Some(TIMEOUT)))
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        self.change(py, |router, _| router.is_closed())
    }

    #[getter]
    fn link_state(slf: &Bound<'_, Self>) -> PyResult<Option<&'static str>> {
        let Some(link) = slf.get().link() else {
            return Ok(None);
        };
        // A child process gets a link of its own.
        slf.get().change(slf.py(), |_, _| ());
        link.start(slf)?;
        Ok(Some(link.state(slf.py())))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        let (sizes, busiest) = self.change(py, |router, _| {
            (self.sizes(router), router.registry().busiest())
        });
        let link = self.link().map_or_else(Counts::default, Link::counts);
        Stats::new(py, self, &sizes, busiest, &link)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let sizes = self.change(py, |router, _| self.sizes(router));
        let (sessions, topics, pending) = (sizes.sessions, sizes.topics, sizes.pending);
        format!("<PubSubHub sessions={sessions} topics={topics} pending={pending}>")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.on_error)?;
        visit.call(&self.on_overflow)?;
        if let Some(watchers) = self.watchers.try_lock() {
            watchers.traverse(&visit)?;
        }
        if let Some(losers) = self.losers.try_lock() {
            losers.iter().try_for_each(|reader| visit.call(&**reader))?;
        }
        if let Some(link) = &self.link {
            link.traverse(&visit)?;
        }
        let Some(router) = self.router.try_lock() else {
            return Ok(());
        };
        for deliverer in router.deliverers() {
            deliverer.traverse(&visit)?;
        }
        for subscription in router.registry().iter() {
            subscription.handler.traverse(&visit)?;
        }
        for identity in router.registry().identities() {
            identity.says.traverse(&visit)?;
        }
        for kept in router.history().into_iter().flat_map(History::iter) {
            kept.message.traverse(&visit)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let mut trash = Trash::default();
        if let Some(mut router) = self.router.try_lock() {
            router.clear(&mut trash);
        }
        // A reader keeps its hub alive: those of this hub are garbage too.
        drop(trash);
    }
}

impl PubSubHub {
    fn remove_named(&self, session_id: &Bound<'_, PyAny>, scope: &Scope<'_>) -> PyResult<()> {
        let session: Cow<'_, [u8]> = name::bytes(name::string(session_id, "session_id")?)?;
        self.remove(session_id.py(), &session, scope);
        Ok(())
    }
}
