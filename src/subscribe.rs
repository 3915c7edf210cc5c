//! Entering a subscription: checks, the lane that will deliver, and the comparison with handlers
//! that the session has already.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyWeakrefReference};
use triomphe::Arc;

use crate::core::LaneKey;
use crate::core::subscription::Listener;
use crate::delivery::context::Captured;
use crate::delivery::event_loop::{self, LoopLane};
use crate::delivery::handler::{Handler, Kind};
use crate::delivery::signature;
use crate::delivery::{Deliverer, Router, Subscription};
use crate::fork;
use crate::hub::{HubClosed, PubSubHub, SYNC};
use crate::name;
use crate::subscription::Subscription as Handle;

/// Subscribes a handler, to everything or to a topic.
pub fn subscribe(
    hub: &Bound<'_, PubSubHub>,
    session_id: &Bound<'_, PyString>,
    topic: Option<&Bound<'_, PyString>>,
    callable: &Bound<'_, PyAny>,
    concurrent: bool,
) -> PyResult<Handle> {
    let session = name::bytes(session_id)?;
    let name = topic.map(name::bytes).transpose()?;
    let kind = signature::check(callable, topic.is_some())?;
    let digest = signature::digest(callable)?;
    let needs_running = hub.get().event_loop().is_none();
    let running = if needs_running {
        event_loop::running(hub.py())?
    } else {
        None
    };
    let lane = lane_for(hub, kind, running.as_ref())?;
    let home = running.filter(|_| kind == Kind::Sync);
    let reference = PyWeakrefReference::new(hub)?.unbind();
    let wanted = Wanted {
        session: &session,
        topic: name.as_deref(),
        digest,
        lane,
        overlaps: concurrent,
        handler: Some(Handler::new(callable, home.as_ref())?),
        known: Vec::new(),
        unneeded: None,
    };
    let subscription = enter(hub, wanted, callable)?;
    let topic = topic.map(|topic| topic.clone().unbind());
    let session_id = session_id.clone().unbind();
    Ok(Handle::new(
        reference,
        subscription.address(),
        session_id,
        topic,
    ))
}

fn enter(
    hub: &Bound<'_, PubSubHub>,
    mut wanted: Wanted<'_>,
    callable: &Bound<'_, PyAny>,
) -> PyResult<Arc<Subscription>> {
    let (py, own) = (hub.py(), hub.get());
    loop {
        match own.change(py, |router, _| wanted.enter(py, router)) {
            Found::Closed => return Err(HubClosed::new_err("the hub is closed")),
            Found::New(subscription) => return Ok(subscription),
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
    digest: u16,
    lane: Lane,
    overlaps: bool,
    handler: Option<Handler>,
    /// Subscriptions that were compared and differ.
    known: Vec<Arc<Subscription>>,
    /// A context that turned out not to be needed, kept to be let go of without the lock.
    unneeded: Option<Captured>,
}

/// What entering a subscription came to.
enum Found {
    Closed,
    New(Arc<Subscription>),
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
        let registry = router.registry();
        let mut candidates = registry.matching(self.session, self.topic, self.digest);
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
                let listener = Listener {
                    handler,
                    digest: self.digest,
                    overlaps: self.overlaps,
                };
                Found::New(router.subscribe(self.session, self.topic, lane, listener))
            }
            None => Found::Closed,
        }
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
