//! Entering a subscription: checks, the lane that will deliver, and the comparison with handlers
//! that the session has already.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString, PyWeakrefReference};
use triomphe::Arc;

use crate::core::LaneKey;
use crate::core::router::presence::watch_name;
use crate::core::subscription::{Address, Listener};
use crate::delivery::context::Captured;
use crate::delivery::event_loop::{self, LoopLane};
use crate::delivery::handler::{Handler, Kind};
use crate::delivery::signature;
use crate::delivery::{Deliverer, Router, Subscription};
use crate::fork;
use crate::history::Replay;
use crate::hub::{HubClosed, PubSubHub, SYNC};
use crate::name;
use crate::pubsub::PubSub;
use crate::python;
use crate::subscription::Subscription as Handle;

/// What a handler subscribes to.
#[derive(Clone, Copy)]
pub enum Source<'a, 'py> {
    /// Messages sent to all.
    Everything,
    /// A topic.
    Topic(&'a Bound<'py, PyString>),
    /// The coming and going of sessions on a topic.
    Presence(&'a Bound<'py, PyString>),
}

impl<'a, 'py> Source<'a, 'py> {
    /// What a handler is called with.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Everything => &["message"],
            Self::Topic(_) => &["topic", "message"],
            Self::Presence(_) => &["presence"],
        }
    }

    /// The topic, if there is one.
    pub fn topic(self) -> Option<&'a Bound<'py, PyString>> {
        match self {
            Self::Everything => None,
            Self::Topic(topic) | Self::Presence(topic) => Some(topic),
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

/// How a handler is to be subscribed.
#[derive(Default)]
pub struct Options {
    /// Whether its calls may overlap.
    pub concurrent: bool,
    /// How many earlier messages it gets first.
    pub replay: usize,
    /// Who knows what its session says of itself, when it is entered.
    pub client: Option<Py<PubSub>>,
}

impl Options {
    /// Those of a handler that gets messages.
    pub fn new(concurrent: Concurrent, replay: Replay) -> Self {
        Self {
            concurrent: concurrent.0,
            replay: replay.0,
            client: None,
        }
    }
}

/// Subscribes a handler.
pub fn subscribe(
    hub: &Bound<'_, PubSubHub>,
    session_id: &Bound<'_, PyString>,
    source: Source<'_, '_>,
    callable: &Bound<'_, PyAny>,
    options: &Options,
) -> PyResult<Handle> {
    let kind = signature::check(callable, source.arguments())?;
    // First, because it can fail: without a handle nobody could end the subscription.
    let reference = PyWeakrefReference::new(hub)?.unbind();
    let address = subscribe_as(hub, session_id, source, callable, kind, options)?;
    let topic = source.topic().map(|topic| topic.clone().unbind());
    let session_id = session_id.clone().unbind();
    Ok(Handle::new(reference, address, session_id, topic))
}

/// Subscribes a callable, or a reader, as a handler of that kind.
pub fn subscribe_as(
    hub: &Bound<'_, PubSubHub>,
    session_id: &Bound<'_, PyString>,
    source: Source<'_, '_>,
    callable: &Bound<'_, PyAny>,
    kind: Kind,
    options: &Options,
) -> PyResult<Address> {
    let py = hub.py();
    python::check_memory(py)?;
    let session = name::bytes(session_id)?;
    let topic = source.topic();
    let name = name::optional_bytes(topic)?;
    let digest = signature::digest(callable)?;
    let needs_running = hub.get().event_loop().is_none();
    let running = if needs_running {
        event_loop::running(py)?
    } else {
        None
    };
    let lane = lane_for(hub, kind, running.as_ref())?;
    let home = running.filter(|_| kind == Kind::Sync && callable.is_callable());
    if matches!(source, Source::Presence(_)) {
        hub.get().can_be_watched(PyWeakrefReference::new(hub)?);
    }
    let wanted = Wanted {
        session: &session,
        topic: name.as_deref(),
        is_watch: matches!(source, Source::Presence(_)),
        digest,
        lane,
        options,
        handler: Some(Handler::new(callable, home.as_ref())?),
        known: Vec::new(),
        unneeded: None,
    };
    start_link(hub)?;
    Ok(enter(hub, wanted, callable)?.address())
}

/// Before a subscription is entered: where there is no thread for a link, the caller gets no handle
/// to end it.
fn start_link(hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let (py, own) = (hub.py(), hub.get());
    match own.link() {
        Some(_) if own.change(py, |router, _| router.is_closed()) => Err(closed()),
        Some(link) => link.start(hub),
        None => Ok(()),
    }
}

fn closed() -> PyErr {
    HubClosed::new_err("the hub is closed")
}

fn enter(
    hub: &Bound<'_, PubSubHub>,
    mut wanted: Wanted<'_>,
    callable: &Bound<'_, PyAny>,
) -> PyResult<Arc<Subscription>> {
    let (py, own) = (hub.py(), hub.get());
    loop {
        match own.change(py, |router, _| wanted.enter(py, router)) {
            Found::Closed => return Err(closed()),
            Found::NotKept => return Err(not_kept()),
            Found::New(subscription, None) => return Ok(subscription),
            Found::New(subscription, Some(deliverer)) => {
                // Where nobody delivers to it, or it quits at once, the caller gets no handle to end it.
                let woken = deliverer.wake(hub);
                return match woken {
                    Ok(()) => Ok(subscription),
                    Err(error) => {
                        own.cancel(py, subscription.address());
                        Err(error)
                    }
                };
            }
            Found::NoLane(event_loop) => {
                cut_off_closed_loops(hub);
                wanted.lane = Lane::Made(LoopLane::new(event_loop.bind(py), false)?);
            }
            Found::Candidates(candidates) => {
                // Comparing runs anybody's code: the table may change meanwhile, so look again.
                if let Some(same) = first_equal(&candidates, callable)?
                    && !ended_with_its_loop(hub, &same)
                {
                    return Ok(same);
                }
                wanted.known.extend(candidates);
            }
        }
    }
}

fn not_kept() -> PyErr {
    PyValueError::new_err(
        "replay needs messages that are kept: create the hub with PubSubHub(history=...), or call \
         hub.keep(topic, messages=...) first",
    )
}

/// Who delivers to a handler of that kind.
fn lane_for(hub: &Bound<'_, PubSubHub>, kind: Kind, running: Option<&Py<PyAny>>) -> PyResult<Lane> {
    let (py, own) = (hub.py(), hub.get());
    match (kind, own.event_loop(), own.executor()) {
        (Kind::Sync, _, None) => Ok(Lane::At(SYNC)),
        (Kind::Sync, _, Some(executor)) => executor.check_open(py).map(|()| Lane::At(SYNC)),
        (Kind::Async, Some(lane), _) => lane.check_open(py).map(|()| Lane::At(lane.key)),
        (Kind::Async, None, _) => {
            let lane = running.map(|running| Lane::Of(running.clone_ref(py)));
            lane.ok_or_else(|| {
                PyRuntimeError::new_err(
                    "an async handler needs an event loop: create the hub with \
                     PubSubHub(loop=...), or subscribe from code that runs on a loop",
                )
            })
        }
    }
}

/// Ends the subscriptions of loops that were found running and have been closed since.
fn cut_off_closed_loops(hub: &Bound<'_, PubSubHub>) {
    let (py, own) = (hub.py(), hub.get());
    let lanes = own.change(py, |router, _| {
        router.deliverers().cloned().collect::<Vec<_>>()
    });
    for deliverer in lanes {
        if let Deliverer::Loop(lane) = deliverer
            && !lane.given
            && lane.is_closed(py)
        {
            own.cut_off(py, &lane);
        }
    }
}

/// Ends a subscription, and all that share its loop, if that loop is closed.
fn ended_with_its_loop(hub: &Bound<'_, PubSubHub>, subscription: &Subscription) -> bool {
    let (py, own) = (hub.py(), hub.get());
    match own.change(py, |router, _| router.deliverer_of(subscription)) {
        Some(Deliverer::Loop(lane)) if lane.is_closed(py) => {
            own.cut_off(py, &lane);
            true
        }
        Some(_) => false,
        None => true,
    }
}

/// Who is to deliver to a new subscription.
enum Lane {
    /// A lane that is always there.
    At(LaneKey),
    /// The lane of a loop, if it has one.
    Of(Py<PyAny>),
    /// A lane made for a loop that had none.
    Made(LoopLane),
}

/// A subscription about to be entered.
struct Wanted<'a> {
    session: &'a [u8],
    topic: Option<&'a [u8]>,
    /// Whether it is the coming and going on the topic that it subscribes to.
    is_watch: bool,
    digest: u16,
    lane: Lane,
    options: &'a Options,
    handler: Option<Handler>,
    /// Subscriptions that were compared and differ.
    known: Vec<Arc<Subscription>>,
    /// A context that turned out not to be needed, kept to be let go of without the lock.
    unneeded: Option<Captured>,
}

/// What entering a subscription came to.
enum Found {
    Closed,
    /// No messages are kept that could be replayed.
    NotKept,
    /// It was entered; the deliverer, if there is one, must be woken.
    New(Arc<Subscription>, Option<Deliverer>),
    /// These may be the same handler: only Python can tell.
    Candidates(Vec<Arc<Subscription>>),
    /// The loop has no lane yet.
    NoLane(Py<PyAny>),
}

impl Wanted<'_> {
    fn enter(&mut self, py: Python<'_>, router: &mut Router) -> Found {
        if router.is_closed() {
            return Found::Closed;
        }
        if self.options.replay > 0 && !router.keeps(self.topic) {
            return Found::NotKept;
        }
        let mut candidates = self.matching(router);
        candidates.retain(|candidate| !contains(&self.known, candidate));
        if !candidates.is_empty() {
            return Found::Candidates(candidates);
        }
        let lane = match self.find_lane(router) {
            Ok(lane) => lane,
            Err(event_loop) => return Found::NoLane(event_loop),
        };
        match self.handler.take() {
            Some(handler) => {
                let latest = router.registry().latest(self.session, self.topic);
                let (handler, unneeded) = handler.sharing(py, latest.map(|s| &s.handler));
                self.unneeded = unneeded;
                self.insert(py, router, lane, handler)
            }
            None => Found::Closed,
        }
    }

    /// Subscriptions that may be the same.
    fn matching(&self, router: &Router) -> Vec<Arc<Subscription>> {
        let registry = router.registry();
        match self.topic {
            Some(topic) if self.is_watch => {
                let name = watch_name(topic);
                registry.matching(self.session, Some(&name), self.digest)
            }
            topic => registry.matching(self.session, topic, self.digest),
        }
    }

    fn insert(
        &self,
        py: Python<'_>,
        router: &mut Router,
        lane: LaneKey,
        handler: Handler,
    ) -> Found {
        let listener = Listener {
            handler,
            digest: self.digest,
            overlaps: self.options.concurrent,
        };
        let (subscription, wake) = match self.topic {
            Some(topic) if self.is_watch => {
                router.subscribe_presence(self.session, topic, lane, listener)
            }
            topic => {
                let subscription = router.subscribe(self.session, topic, lane, listener);
                let replay = self.options.replay;
                let wake = (replay > 0).then(|| router.replay(&subscription, topic, replay));
                (subscription, wake.flatten())
            }
        };
        let client = self.options.client.as_ref();
        if let Some(identity) = client.and_then(|client| client.get().identity(py)) {
            router.introduce(&subscription, Arc::new(identity));
        }
        Found::New(subscription, wake)
    }

    fn find_lane(&mut self, router: &mut Router) -> Result<LaneKey, Py<PyAny>> {
        match std::mem::replace(&mut self.lane, Lane::At(SYNC)) {
            Lane::At(lane) => Ok(lane),
            Lane::Of(event_loop) => {
                let known = router.deliverers().find_map(|deliverer| match deliverer {
                    Deliverer::Loop(lane) if lane.runs_on(&event_loop) => Some(lane.key),
                    _ => None,
                });
                match known {
                    None => Err(event_loop),
                    Some(lane) => {
                        // Kept, so that it is let go of without the lock.
                        self.lane = Lane::Of(event_loop);
                        Ok(lane)
                    }
                }
            }
            Lane::Made(lane) => {
                let mut place = SYNC;
                router.add_lane(false, 1, |key| {
                    place = key;
                    Deliverer::Loop(fork::share(lane.with_key(key)))
                });
                router.is_remote(place);
                Ok(place)
            }
        }
    }
}

fn contains(list: &[Arc<Subscription>], subscription: &Arc<Subscription>) -> bool {
    list.iter().any(|s| Arc::ptr_eq(s, subscription))
}

/// The first subscription, still active, whose handler equals `callable` as Python says.
fn first_equal(
    candidates: &[Arc<Subscription>],
    callable: &Bound<'_, PyAny>,
) -> PyResult<Option<Arc<Subscription>>> {
    for candidate in candidates {
        if candidate.handler.equals(callable)? && !candidate.is_cancelled() {
            return Ok(Some(candidate.clone()));
        }
    }
    Ok(None)
}
