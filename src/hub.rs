//! The hub that the sessions of one app share.

mod arguments;
mod methods;

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyWeakrefMethods, PyWeakrefReference};
use smallvec::SmallVec;

use crate::close::Watchers;
use crate::core::backlog::OverflowPolicy;
use crate::core::counters::Counters;
use crate::core::fanout::Audience;
use crate::core::history::Past;
use crate::core::interest::Channel;
use crate::core::registry::Scope;
use crate::core::router::Sizes;
use crate::core::subscription as core;
use crate::core::{LaneKey, Name};
use crate::delivery::event_loop::LoopLane;
use crate::delivery::executor::ExecutorLane;
use crate::delivery::handler::{Handler, Message, is_quit};
use crate::delivery::{Aftermath, Deliverer, Router, Trash};
use crate::fork::{Process, Shared};
use crate::link::Link;
use crate::lock::lock;
use crate::name;
use crate::once::Once;
use crate::python::{self, Held};
use crate::report;
use crate::stats::Failures;
use crate::stream::{self, End};
use crate::timing::Timing;

pyo3::create_exception!(pagebus, HubClosed, PyRuntimeError);

/// The lane of sync handlers: inline, or on the executor.
pub const SYNC: LaneKey = 0;

/// How many of a session's subscriptions are ended at once: what takes about as long as the
/// interpreter lets a thread run while others wait, so that the caller gets half of the time.
const ENDED_AT_ONCE: usize = 16_384;

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
    /// How long deliveries take.
    pub(crate) timing: Timing,
    /// What fails.
    pub(crate) failures: Failures,
    on_error: Option<Py<PyAny>>,
    on_overflow: Option<Py<PyAny>>,
    overflow: OverflowPolicy,
    /// How far the sender that delivers is with a message: `Fanout::passed`.
    pub(crate) passed: AtomicU64,
    /// Who waits for the hub to close.
    watchers: Mutex<Watchers>,
    /// The hub itself, once changes of subscriptions can be told to somebody.
    this: Once<Py<PyWeakrefReference>>,
    /// The loops on which handlers were suspended, for as long as some are.
    loops: Mutex<Vec<Weak<LoopLane>>>,
    /// Readers that have something to tell of what they lost, one for each time that the router
    /// has noted that somebody has; changed together with that.
    losers: Mutex<VecDeque<Held>>,
    /// What connects it to the hubs of other processes.
    link: Option<Box<Link>>,
}

impl PubSubHub {
    /// Runs `change` on the router with the lock held, and drops what it let go of afterwards.
    pub fn change<T>(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&mut Router, &mut Trash) -> T,
    ) -> T {
        self.change_with(py, End::CutOff, change)
    }

    /// [`Self::change`], where readers are told how it ended their subscriptions.
    fn change_with<T>(
        &self,
        py: Python<'_>,
        how: End,
        change: impl FnOnce(&mut Router, &mut Trash) -> T,
    ) -> T {
        let (mut trash, mut inherited) = (Trash::default(), None);
        let (result, finished, ended, aftermath) = {
            let mut router = lock(py, &self.router);
            if !self.process.is_this() {
                self.begin_anew(&mut router, &mut trash);
                inherited = Some(std::mem::take(&mut *self.losers.lock()));
            }
            let was_finished = router.is_finished();
            let result = change(&mut router, &mut trash);
            let ended = trash.subscriptions.len();
            let closes = router.is_closed() && !was_finished;
            let finished = closes && router.finish(&mut trash);
            if let Some(link) = &self.link {
                note_interest(link, &mut router);
            }
            (result, finished, ended, router.aftermath())
        };
        if inherited.is_some() {
            // Who waits for the parent's hub to close is not here.
            drop(self.take_watchers(py));
        }
        // Before anything that runs somebody's code, which may wait for what was entered here.
        if let Some(aftermath) = aftermath {
            self.settle(py, aftermath);
        }
        if !trash.subscriptions.is_empty() {
            let (by_change, by_end) = trash.subscriptions.split_at(ended);
            stream::tell_ended(py, by_change, how);
            stream::tell_ended(py, by_end, End::CutOff);
        }
        trash.discard();
        if finished && self.link.as_ref().is_none_or(|link| link.is_over(py)) {
            self.tell_watchers(py);
        }
        result
    }

    /// As [`Self::change`], and then reports the losses that it brought about or to an end, unless
    /// another thread is reporting: then that one does it, and nobody waits.
    pub fn change_and_report<T>(
        slf: &Bound<'_, Self>,
        change: impl FnOnce(&mut Router, &mut Trash) -> T,
    ) -> T {
        let mut reports = false;
        let result = slf.get().change(slf.py(), |router, trash| {
            let result = change(router, trash);
            reports = router.begin_reports();
            result
        });
        if reports {
            report::losses(slf);
        }
        result
    }

    /// Lets be told what a reader has noted of its losses, when those are told that came before.
    #[cold]
    pub fn tell_losses_of(slf: &Bound<'_, Self>, reader: &Bound<'_, PyAny>) {
        let reader = Held::new(reader);
        Self::change_and_report(slf, |router, _| {
            slf.get().losers.lock().push_back(reader);
            router.note_beyond();
        });
    }

    /// The reader that has something to tell now.
    pub fn next_loser(&self, py: Python<'_>) -> Option<Held> {
        lock(py, &self.losers).pop_front()
    }

    /// Lets go of readers whose losses were to be told when the hub was given up.
    pub fn forget_losers(&self, py: Python<'_>) {
        if self.change(py, |router, _| router.is_finished()) {
            let losers = std::mem::take(&mut *lock(py, &self.losers));
            drop(losers);
        }
    }

    /// Wakes those who tell others of a change of subscriptions.
    #[cold]
    fn settle(&self, py: Python<'_>, aftermath: Aftermath) {
        let this = self.this.get().and_then(|this| this.bind(py).upgrade());
        if let Some(hub) = this.and_then(|hub| hub.cast_into::<Self>().ok()) {
            match Self::wake_all(&hub, aftermath.wake) {
                Err(error) if !is_quit(py, &error) => {
                    // A loop or an executor that takes no work: what is lost by that has been reported.
                }
                result => report::contained(py, result, Some(&hub)),
            }
        }
        drop(aftermath.identities);
    }

    /// Enters that changes of subscriptions can be told to somebody.
    pub fn can_be_watched(&self, this: Bound<'_, PyWeakrefReference>) {
        self.this.get_or_keep(this.unbind());
    }

    /// Lets `callback` be called when the hub is closed and has nothing left to deliver.
    pub fn watch(&self, py: Python<'_>, callback: Py<PyAny>) {
        lock(py, &self.watchers).add(callback);
    }

    /// How far a deliverer is with the message that it is in the middle of.
    pub fn passed(&self, deliverer: &Deliverer) -> u64 {
        let passed = match deliverer {
            Deliverer::Inline => &self.passed,
            Deliverer::Loop(lane) => &lane.passed,
            // It leaves the message in the router, and so does whoever takes a call from it.
            Deliverer::Executor(_) => return 0,
        };
        passed.load(Ordering::Relaxed)
    }

    /// Calls those who watch.
    #[cold]
    pub fn tell_watchers(&self, py: Python<'_>) {
        self.take_watchers(py).tell(py);
    }

    fn take_watchers(&self, py: Python<'_>) -> Watchers {
        std::mem::take(&mut *lock(py, &self.watchers))
    }

    /// Makes a child process's copy of a hub the child's own: what is queued is the parent's to
    /// deliver, and nobody can come for it here.
    #[cold]
    fn begin_anew(&self, router: &mut Router, trash: &mut Trash) {
        self.process.becomes_this();
        router.renew(trash);
        self.counters.forget_unread();
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
        if let Some(link) = &self.link {
            router.take_interest();
            let channels = router.registry().channels().into_iter();
            let kept = channels.map(|channel| (router.kept(&channel), channel));
            link.begin_anew(kept.map(|(kept, channel)| (channel, kept)).collect());
            if link.shares_presence() {
                router.take_memberships();
                link.note_members(router.registry().memberships());
            }
        }
    }

    /// Adds a loop on which a handler is suspended.
    #[cold]
    pub fn add_loop(&self, py: Python<'_>, lane: &Shared<LoopLane>) {
        let mut loops = lock(py, &self.loops);
        if loops.len() == loops.capacity() {
            loops.retain(|lane| lane.strong_count() > 0);
        }
        loops.push(Shared::downgrade(lane));
    }

    /// The loops on which handlers may be suspended.
    pub fn loops(&self, py: Python<'_>) -> Vec<Shared<LoopLane>> {
        let loops = lock(py, &self.loops);
        loops.iter().filter_map(Weak::upgrade).collect()
    }

    /// What connects it to the hubs of other processes.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_deref()
    }

    /// The link has ended: those who wait for the hub to close may have waited for that.
    pub fn link_is_over(&self, py: Python<'_>) {
        if self.change(py, |router, _| router.is_finished()) {
            self.tell_watchers(py);
        }
    }

    /// Whether it is closed, everything is delivered or given up, and its link has ended.
    pub fn is_over(&self, py: Python<'_>) -> bool {
        self.change(py, |router, _| router.is_finished())
            && self.link.as_ref().is_none_or(|link| link.is_over(py))
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

    /// Sends a message, to all or on a topic.
    pub fn publish(
        slf: &Bound<'_, Self>,
        topic: Option<&Bound<'_, PyString>>,
        audience: Audience<&[u8]>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        python::check_memory(slf.py())?;
        match &slf.get().link {
            None => Self::deliver(slf, topic, audience, message),
            Some(link) => Self::publish_over(slf, link, topic, audience, message),
        }
    }

    #[cold]
    fn publish_over(
        slf: &Bound<'_, Self>,
        link: &Link,
        topic: Option<&Bound<'_, PyString>>,
        audience: Audience<&[u8]>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if slf.get().change(slf.py(), |router, _| router.is_closed()) {
            return Err(HubClosed::new_err("the hub is closed"));
        }
        let name = name::optional_bytes(topic)?;
        link.publish(slf, name.as_deref(), audience, message)
    }

    /// Delivers a message to the sessions that are here.
    #[inline]
    pub fn deliver(
        slf: &Bound<'_, Self>,
        topic: Option<&Bound<'_, PyString>>,
        audience: Audience<&[u8]>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let name = name::optional_bytes(topic)?;
        let wake = Self::change_and_report(slf, |router, trash| {
            (!router.is_closed()).then(|| {
                router.publish(
                    name.as_deref(),
                    audience,
                    || Message::new(topic, message),
                    trash,
                )
            })
        });
        let wake = wake.ok_or_else(|| HubClosed::new_err("the hub is closed"))?;
        Self::wake_all(slf, wake)
    }

    /// Takes what was sent on a channel before; those who waited for it get it. Nothing is done unless
    /// `is_timely` says so, which is asked with the router's lock held.
    pub fn recall(
        slf: &Bound<'_, Self>,
        channel: &Channel,
        past: Vec<Past<Message>>,
        is_timely: impl FnOnce() -> bool,
    ) -> PyResult<()> {
        let mut past = Some(past);
        let wake = slf.get().change(slf.py(), |router, trash| {
            let past = past.take_if(|_| is_timely());
            past.map(|past| router.recall(channel, past, trash))
        });
        wake.map_or(Ok(()), |wake| Self::wake_all(slf, wake))
    }

    fn wake_all(slf: &Bound<'_, Self>, deliverers: SmallVec<[Deliverer; 2]>) -> PyResult<()> {
        // The sender's own work comes last: the others start meanwhile.
        let (mut result, mut own) = (Ok(()), None);
        for deliverer in deliverers {
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

    /// The sizes of its router, with what waits for readers.
    fn sizes(&self, router: &Router) -> Sizes {
        let mut sizes = router.sizes();
        sizes.pending += self.counters.unread();
        sizes
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

    /// Ends a session's subscriptions. Of a session that has very many, some at a time: others send
    /// meanwhile.
    pub fn remove(&self, py: Python<'_>, session: &[u8], scope: &Scope<'_>) {
        // Those that come meanwhile stay.
        let mut before = None;
        while self.change_with(py, End::Goodbye, |router, trash| {
            let before = *before.get_or_insert_with(|| router.next_place());
            router.unsubscribe_some(session, scope, before, ENDED_AT_ONCE, trash)
        }) {
            python::detached(py, std::thread::yield_now);
        }
    }

    /// Whether a subscription has not ended.
    pub fn is_active(&self, py: Python<'_>, address: core::Address) -> bool {
        self.change(py, |router, _| router.registry().find(address).is_some())
    }

    /// Whether a subscription that has not ended tells who comes and goes.
    pub fn is_watch(&self, py: Python<'_>, address: core::Address) -> Option<bool> {
        self.change(py, |router, _| {
            let registry = router.registry();
            Some(registry.is_watch(registry.find(address)?))
        })
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

/// Out of the way of hubs without a link.
#[cold]
fn note_interest(link: &Link, router: &mut Router) {
    for (channel, is_wanted) in router.take_interest() {
        let kept = is_wanted.then(|| router.kept(&channel));
        link.note(channel, kept);
    }
    if link.shares_presence() {
        link.note_members(router.take_memberships());
    }
}
