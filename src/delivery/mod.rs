//! How a message reaches a Python callable: inline, on an event loop, or on worker threads.

pub mod call;
pub mod context;
pub mod delivering;
pub mod drain;
pub mod duty;
pub mod event_loop;
pub mod executor;
pub mod finish;
pub mod handler;
pub mod inline;
pub mod nudge;
pub mod pace;
pub mod serving;
pub mod signature;
pub mod walk;
pub mod watch;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use triomphe::Arc;

use crate::core;
use crate::core::router::Parked;
use crate::fork::Shared;
use crate::hub::PubSubHub;
use event_loop::LoopLane;
use executor::ExecutorLane;
use handler::{Handler, Message};

/// The hub's router.
pub type Router = core::router::Router<Handler, Message, Deliverer>;
/// What a change of the router let go of.
pub type Trash = core::Trash<Handler, Message, Deliverer>;
/// What is left to do after a change of subscriptions.
pub type Aftermath = core::router::presence::Aftermath<Message, Deliverer>;
/// One handler's subscription.
pub type Subscription = core::subscription::Subscription<Handler>;
// There can be a million. With its count of references it fills a block of 64 bytes of glibc's, which
// keeps 8 for itself: one byte more, and it takes 80.
#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Subscription>() <= 48);
/// One message, shared by its deliveries.
pub type Envelope = core::fanout::Envelope<Message>;
/// What is reported of losses.
pub type Loss = core::router::Loss<Handler, Message>;
/// A walk over those who get one message.
pub type Fanout = core::fanout::Fanout<Handler, Message>;

/// Who delivers.
#[derive(Clone)]
pub enum Deliverer {
    /// The sender.
    Inline,
    /// Worker threads.
    Executor(Shared<ExecutorLane>),
    /// An event loop.
    Loop(Shared<LoopLane>),
}

impl Deliverer {
    /// Makes it come for what is in its log.
    pub fn wake(&self, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
        match self {
            Self::Inline => inline::drain(hub),
            Self::Executor(lane) => lane.wake(hub),
            Self::Loop(lane) => event_loop::wake(lane, hub),
        }
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Inline => Ok(()),
            Self::Executor(lane) => lane.traverse(visit),
            Self::Loop(lane) => lane.traverse(visit),
        }
    }
}

/// Leaves a message for a handler that is busy with earlier ones; `false` if it has become free.
fn waits(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
) -> bool {
    let park = |router: &mut Router, trash: &mut Trash| router.park(subscription, envelope, trash);
    let parked = PubSubHub::change_and_report(hub, park);
    !matches!(parked, Parked::Free)
}
