//! The hub that the sessions of one app share.

use std::borrow::Cow;

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyString};

use crate::close::{self, TIMEOUT, Timeout, Watchers};
use crate::core::backlog::OverflowPolicy;
use crate::core::registry::Scope;
use crate::core::router::Published;
use crate::core::subscription as core;
use crate::core::{LaneKey, Name};
use crate::delivery::event_loop::LoopLane;
use crate::delivery::executor::ExecutorLane;
use crate::delivery::handler::{Handler, Message};
use crate::delivery::nudge::Nudge;
use crate::delivery::{Deliverer, Router, Trash};
use crate::fork::{self, Process, Shared};
use crate::lock::lock;
use crate::name;
use crate::report;
use crate::stats::{Counters, Stats};
use crate::subscribe;
use crate::subscription::Subscription;

pyo3::create_exception!(pagebus, HubClosed, PyRuntimeError);

/// The lane of sync handlers: inline, or on the executor.
pub const SYNC: LaneKey = 0;

/// The router of one app's sessions.
#[pyclass(frozen, module = "pagebus", weakref)]
pub struct PubSubHub {
    router: Mutex<Router>,
    /// The process whose messages the router holds.
    process: Process,
    /// The loop that the hub was given.
    event_loop: Option<Shared<LoopLane>>,
    /// The executor that the hub was given.
    executor: Option<Shared<ExecutorLane>>,
    pub(crate) counters: Counters,
    on_error: Option<Py<PyAny>>,
    on_overflow: Option<Py<PyAny>>,
    overflow: OverflowPolicy,
    /// Who waits for the hub to close.
    watchers: Mutex<Watchers>,
}

// ---- what Rust code does with a hub ---------------------------------------------------------

impl PubSubHub {
    /// Runs `change` on the router with the lock held, and drops what it let go of afterwards.
    pub fn change<T>(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&mut Router, &mut Trash) -> T,
    ) -> T {
        let mut trash = Trash::default();
        let (result, finished) = {
            let mut router = lock(py, &self.router);
            if !self.process.is_this() {
                self.begin_anew(&mut router, &mut trash);
            }
            let was_finished = router.is_finished();
            let result = change(&mut router, &mut trash);
            let closes = router.is_closed() && !was_finished;
            (result, closes && router.finish(&mut trash))
        };
        trash.discard();
        if finished {
            self.tell_watchers(py);
        }
        result
    }

    /// Lets `callback` be called when the hub is closed and has nothing left to deliver.
    pub fn watch(&self, py: Python<'_>, callback: Py<PyAny>) {
        lock(py, &self.watchers).add(callback);
    }

    /// Calls those who watch.
    #[cold]
    pub fn tell_watchers(&self, py: Python<'_>) {
        let watchers = std::mem::take(&mut *lock(py, &self.watchers));
        watchers.tell(py);
    }

    /// Makes a child process's copy of a hub the child's own: what is queued is the parent's to
    /// deliver, and nobody can come for it here.
    #[cold]
    fn begin_anew(&self, router: &mut Router, trash: &mut Trash) {
        self.process.becomes_this();
        router.renew(trash);
        if let Some(executor) = &self.executor {
            executor.forget_ready();
        }
        let lanes: Vec<_> = router.deliverers().cloned().collect();
        for deliverer in lanes {
            if let Deliverer::Loop(lane) = deliverer
                && !lane.given
                && lane.is_the_parents()
            {
                router.cut_off(lane.key, trash);
            }
        }
    }

    /// The loop that the hub was given.
    pub fn event_loop(&self) -> Option<&Shared<LoopLane>> {
        self.event_loop.as_ref()
    }

    /// The executor that the hub was given.
    pub fn executor(&self) -> Option<&Shared<ExecutorLane>> {
        self.executor.as_ref()
    }

    /// The hook for failed calls.
    pub fn on_error(&self) -> Option<&Py<PyAny>> {
        self.on_error.as_ref()
    }

    /// The hook for dropped messages.
    pub fn on_overflow(&self) -> Option<&Py<PyAny>> {
        self.on_overflow.as_ref()
    }

    /// What a full queue does.
    pub fn overflow(&self) -> OverflowPolicy {
        self.overflow
    }

    /// Sends a message: to all or on a topic, with or without the exclusion of one session.
    pub fn publish(
        slf: &Bound<'_, Self>,
        topic: Option<&Bound<'_, PyString>>,
        except: Option<&[u8]>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (py, hub) = (slf.py(), slf.get());
        let name = topic.map(name::bytes).transpose()?;
        let published = hub.change(py, |router, trash| {
            (!router.is_closed()).then(|| {
                router.publish(
                    name.as_deref(),
                    except,
                    || Message::new(topic, message),
                    trash,
                )
            })
        });
        let published = published.ok_or_else(|| HubClosed::new_err("the hub is closed"))?;
        if published.burst {
            report::lane_loss(slf, topic);
        }
        Self::wake(slf, published)
    }

    fn wake(slf: &Bound<'_, Self>, published: Published<Deliverer>) -> PyResult<()> {
        // The sender's own work comes last: the others start meanwhile.
        let (mut result, mut own) = (Ok(()), None);
        for deliverer in published.wake {
            match deliverer {
                Deliverer::Inline => own = Some(deliverer),
                other => result = result.and(other.wake(slf)),
            }
        }
        match own {
            None => result,
            Some(own) => result.and(own.wake(slf)),
        }
    }

    /// The topic of a subscription that has not ended.
    pub fn topic_of(
        &self,
        py: Python<'_>,
        subscription: &core::Subscription<Handler>,
    ) -> Option<Name> {
        self.change(py, |router, _| {
            router.registry().topic_of(subscription).cloned()
        })
    }

    /// Ends a session's subscriptions.
    pub fn remove(&self, py: Python<'_>, session: &[u8], scope: &Scope<'_>) {
        self.change(py, |router, trash| {
            router.unsubscribe(session, scope, trash);
        });
    }

    /// Whether a subscription has not ended.
    pub fn is_active(&self, py: Python<'_>, address: core::Address) -> bool {
        self.change(py, |router, _| router.registry().find(address).is_some())
    }

    /// Ends one subscription, if it has not ended.
    pub fn cancel(&self, py: Python<'_>, address: core::Address) {
        let ended = self.change(py, |router, trash| {
            let subscription = router.registry().find(address)?.clone();
            router.cancel(&subscription, trash);
            Some(subscription)
        });
        // Without the lock, because its handler may go with it.
        drop(ended);
    }

    /// Ends the subscriptions that a loop serves: it is closed.
    pub fn cut_off(&self, py: Python<'_>, lane: &Shared<LoopLane>) {
        self.change(py, |router, trash| match router.deliverer(lane.key) {
            Some(Deliverer::Loop(there)) if Shared::ptr_eq(there, lane) => {
                router.cut_off(lane.key, trash);
            }
            _ => {}
        });
    }
}

fn check_hook(hook: Option<&Bound<'_, PyAny>>, argument: &str) -> PyResult<Option<Py<PyAny>>> {
    match hook {
        Some(hook) if !hook.is_callable() => Err(name::must_be(argument, "callable", hook)),
        hook => Ok(hook.map(|hook| hook.clone().unbind())),
    }
}

fn check_limit(max_pending: &Bound<'_, PyAny>) -> PyResult<u32> {
    let Ok(limit) = max_pending.cast::<PyInt>() else {
        return Err(name::must_be("max_pending", "an int", max_pending));
    };
    if limit.lt(1)? {
        return Err(PyValueError::new_err(format!(
            "max_pending must be at least 1, not {limit}"
        )));
    }
    // Four billion messages do not fit in memory: more is as good as no limit.
    Ok(limit.extract().unwrap_or(u32::MAX))
}

impl<'py> FromPyObject<'_, 'py> for OverflowPolicy {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let policy = name::string(&value, "overflow")?;
        match policy.to_str().unwrap_or_default() {
            "drop_oldest" => Ok(Self::DropOldest),
            "drop_newest" => Ok(Self::DropNewest),
            "unsubscribe" => Ok(Self::Unsubscribe),
            _ => Err(PyValueError::new_err(format!(
                "overflow must be 'drop_oldest', 'drop_newest' or 'unsubscribe', not {}",
                policy.repr()?.to_string_lossy()
            ))),
        }
    }
}

/// The argument `concurrent`.
#[derive(Clone, Copy)]
pub struct Concurrent(pub bool);

impl<'py> FromPyObject<'_, 'py> for Concurrent {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let flag = value.cast::<PyBool>();
        flag.map(|flag| Self(flag.is_true()))
            .map_err(|_| name::must_be("concurrent", "a bool", &value))
    }
}

// ---- what Python sees -----------------------------------------------------------------------

#[pymethods]
impl PubSubHub {
    #[new]
    #[pyo3(signature = (
        r#loop=None, executor=None, *, max_pending=None, overflow=OverflowPolicy::DropOldest,
        on_error=None, on_overflow=None
    ), text_signature = "(loop=None, executor=None, *, max_pending=10000, overflow='drop_oldest', on_error=None, on_overflow=None)")]
    fn new(
        r#loop: Option<&Bound<'_, PyAny>>,
        executor: Option<&Bound<'_, PyAny>>,
        max_pending: Option<&Bound<'_, PyAny>>,
        overflow: OverflowPolicy,
        on_error: Option<&Bound<'_, PyAny>>,
        on_overflow: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut router = Router::new(max_pending.map_or(Ok(10_000), check_limit)?, overflow);
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
        let event_loop = event_loop.map(|lane| {
            let mut kept = None;
            router.add_lane(true, 1, |key| {
                let lane = fork::share(lane.with_key(key));
                kept = Some(lane.clone());
                Deliverer::Loop(lane)
            });
            kept
        });
        Ok(Self {
            router: Mutex::new(router),
            process: Process::this(),
            event_loop: event_loop.flatten(),
            executor,
            counters: Counters::default(),
            on_error: check_hook(on_error, "on_error")?,
            on_overflow: check_hook(on_overflow, "on_overflow")?,
            overflow,
            watchers: Mutex::default(),
        })
    }

    fn send_all(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::publish(slf, None, None, message)
    }

    fn send_all_on_topic(
        slf: &Bound<'_, Self>,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        Self::publish(slf, Some(name::string(topic, "topic")?), None, message)
    }

    fn send_others(
        slf: &Bound<'_, Self>,
        except_session_id: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let except = name::bytes(name::string(except_session_id, "except_session_id")?)?;
        Self::publish(slf, None, Some(&except), message)
    }

    fn send_others_on_topic(
        slf: &Bound<'_, Self>,
        except_session_id: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let except = name::bytes(name::string(except_session_id, "except_session_id")?)?;
        Self::publish(
            slf,
            Some(name::string(topic, "topic")?),
            Some(&except),
            message,
        )
    }

    #[pyo3(signature = (session_id, handler, *, concurrent=Concurrent(false)), text_signature = "($self, session_id, handler, *, concurrent=False)")]
    fn subscribe(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
    ) -> PyResult<Subscription> {
        subscribe::subscribe(
            slf,
            name::string(session_id, "session_id")?,
            None,
            handler,
            concurrent.0,
        )
    }

    #[pyo3(signature = (session_id, topic, handler, *, concurrent=Concurrent(false)), text_signature = "($self, session_id, topic, handler, *, concurrent=False)")]
    fn subscribe_topic(
        slf: &Bound<'_, Self>,
        session_id: &Bound<'_, PyAny>,
        topic: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
        concurrent: Concurrent,
    ) -> PyResult<Subscription> {
        let session_id = name::string(session_id, "session_id")?;
        subscribe::subscribe(
            slf,
            session_id,
            Some(name::string(topic, "topic")?),
            handler,
            concurrent.0,
        )
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

    fn stats(&self, py: Python<'_>) -> Stats {
        let sizes = self.change(py, |router, _| router.sizes());
        Stats::new(&self.counters, &sizes)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let sizes = self.change(py, |router, _| router.sizes());
        let (sessions, topics, pending) = (sizes.sessions, sizes.topics, sizes.pending);
        format!("<PubSubHub sessions={sessions} topics={topics} pending={pending}>")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.on_error)?;
        visit.call(&self.on_overflow)?;
        if let Some(watchers) = self.watchers.try_lock() {
            watchers.traverse(&visit)?;
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
        Ok(())
    }

    fn __clear__(&self) {
        let mut trash = Trash::default();
        if let Some(mut router) = self.router.try_lock() {
            router.clear(&mut trash);
        }
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
