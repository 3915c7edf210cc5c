//! One handler of one session, on one topic or on everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::backlog::{Share, Shares};
use super::{GroupKey, Name, SessionKey};

const CANCELLED: u8 = 1;
const BUSY: u8 = 2;

/// Where a subscription stands in the router's tables, and what it may do.
pub(super) struct Place {
    pub session: SessionKey,
    pub group: GroupKey,
    pub serial: u64,
    /// Whether its calls may overlap, and how many of them.
    pub overlaps: bool,
    pub capacity: u32,
}

/// A subscription. Its fields never change; its state does.
pub struct Subscription<H> {
    /// What is called.
    pub handler: H,
    /// The id of the session that owns it.
    pub session_id: Name,
    /// The topic; `None` for messages sent to all.
    pub topic: Option<Name>,
    /// Whether its calls may overlap.
    pub overlaps: bool,
    /// The session that owns it.
    pub session: SessionKey,
    /// The subscribers that get the same messages from the same lane.
    pub group: GroupKey,
    /// Its place in the hub's sequence of sends and subscriptions: it gets what was sent later.
    pub serial: u64,
    /// How many messages wait for it, in whatever queue.
    pub share: Share,
    state: AtomicU8,
    /// Calls that go on, with a task of their own.
    under_way: AtomicU32,
    /// How many of them there may be before messages wait.
    capacity: u32,
}

impl<H> Subscription<H> {
    /// A subscription at its place in the router's tables.
    pub(super) fn new(handler: H, names: (Name, Option<Name>), place: &Place) -> Self {
        Self {
            handler,
            session_id: names.0,
            topic: names.1,
            overlaps: place.overlaps,
            session: place.session,
            group: place.group,
            serial: place.serial,
            share: Share::default(),
            state: AtomicU8::new(0),
            under_way: AtomicU32::new(0),
            capacity: place.capacity,
        }
    }

    /// Whether it has ended: no new call may begin.
    pub fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) & CANCELLED != 0
    }

    /// Whether earlier messages occupy the handler, so that the next has to wait.
    pub fn is_busy(&self) -> bool {
        self.state.load(Ordering::Acquire) & BUSY != 0
    }

    /// Ends it; tells whether it had not ended before.
    pub(super) fn cancel(&self) -> bool {
        self.state.fetch_or(CANCELLED, Ordering::AcqRel) & CANCELLED == 0
    }

    /// Enters that a call goes on; under the router's lock, as is [`Self::leave`].
    pub(super) fn enter(&self) {
        self.set_under_way(self.under_way.load(Ordering::Relaxed).saturating_add(1));
    }

    /// Enters that a call is over.
    pub(super) fn leave(&self) {
        self.set_under_way(self.under_way.load(Ordering::Relaxed).saturating_sub(1));
    }

    fn set_under_way(&self, count: u32) {
        self.under_way.store(count, Ordering::Relaxed);
        if count >= self.capacity {
            self.state.fetch_or(BUSY, Ordering::AcqRel);
        } else {
            self.state.fetch_and(!BUSY, Ordering::AcqRel);
        }
    }
}

/// Finds a subscription's share in the subscription.
pub struct Own;

impl<H> Shares<Arc<Subscription<H>>> for Own {
    fn of<'a>(&'a self, owner: &'a Arc<Subscription<H>>) -> &'a Share {
        &owner.share
    }
}
