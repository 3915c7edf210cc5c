//! One handler of one session, on one topic or on everything.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use once_cell::race::OnceBox;
use triomphe::{Arc, ThinArc};

use super::backlog::{Share, Shares};
use super::sync::{AtomicU8, AtomicU32, Ordering};
use super::{GroupKey, SessionKey};

const CANCELLED: u8 = 1;
const BUSY: u8 = 2;
const OVERLAPS: u8 = 4;

/// The session that subscriptions belong to, which share it.
#[derive(Clone)]
pub struct Owner(ThinArc<SessionKey, u8>);

impl Owner {
    pub(super) fn new(id: &[u8], key: SessionKey) -> Self {
        Self(ThinArc::from_header_and_slice(key, id))
    }

    /// Its id.
    pub fn id(&self) -> &[u8] {
        &self.0.slice
    }

    /// Where the router keeps it.
    pub fn key(&self) -> SessionKey {
        self.0.header.header
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Owner {}

impl Hash for Owner {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.id().hash(state);
    }
}

/// Both have the same hash: an owner is found by its id.
impl Borrow<[u8]> for Owner {
    fn borrow(&self) -> &[u8] {
        self.id()
    }
}

/// What is subscribed.
pub struct Listener<H> {
    /// What is called.
    pub handler: H,
    /// Equal handlers have the same, and most others do not.
    pub digest: u16,
    /// Whether its calls may overlap.
    pub overlaps: bool,
}

/// Where a subscription stands in the router's tables.
pub(super) struct Place {
    pub owner: Owner,
    pub group: GroupKey,
    pub serial: u64,
}

/// What an active subscription is found by. No other ever gets the same.
#[derive(Clone, Copy)]
pub struct Address {
    pub(super) group: GroupKey,
    pub(super) serial: u64,
}

/// A subscription. Its fields never change; its state does.
pub struct Subscription<H> {
    /// What is called.
    pub handler: H,
    /// The session that owns it.
    pub owner: Owner,
    /// Its place in the hub's sequence of sends and subscriptions: it gets what was sent later.
    pub serial: u64,
    /// Made when the first message has to wait, or the first call goes on: most never need it.
    load: OnceBox<Load>,
    /// The subscribers that get the same messages from the same lane.
    pub group: GroupKey,
    /// The handler's.
    pub digest: u16,
    state: AtomicU8,
}

/// What a subscription is busy with.
#[derive(Default)]
struct Load {
    /// How many messages wait for it, in whatever queue.
    share: Share,
    /// Calls that go on, with a task of their own.
    under_way: AtomicU32,
}

impl<H> Subscription<H> {
    /// A subscription at its place in the router's tables.
    pub(super) fn new(listener: Listener<H>, place: Place) -> Self {
        Self {
            handler: listener.handler,
            owner: place.owner,
            serial: place.serial,
            load: OnceBox::new(),
            group: place.group,
            digest: listener.digest,
            state: AtomicU8::new(if listener.overlaps { OVERLAPS } else { 0 }),
        }
    }

    /// What it is found by until it ends.
    pub fn address(&self) -> Address {
        Address {
            group: self.group,
            serial: self.serial,
        }
    }

    /// How many messages wait for it, in whatever queue.
    pub fn share(&self) -> &Share {
        &self.load().share
    }

    /// Ends the burst of drops if no message waits for it any more.
    pub fn caught_up(&self) -> Option<u32> {
        self.load.get()?.share.caught_up()
    }

    fn load(&self) -> &Load {
        self.load.get_or_init(Box::default)
    }

    /// Whether its calls may overlap.
    pub fn overlaps(&self) -> bool {
        self.state.load(Ordering::Relaxed) & OVERLAPS != 0
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

    /// Enters that a call goes on; under the router's lock, as is [`Self::leave`]. Up to `limit`
    /// calls may go on before messages wait, where they may overlap.
    pub(super) fn enter(&self, limit: u32) {
        self.set_under_way(|count| count.saturating_add(1), limit);
    }

    /// Enters that a call is over.
    pub(super) fn leave(&self, limit: u32) {
        self.set_under_way(|count| count.saturating_sub(1), limit);
    }

    /// Enters that no call goes on, and that no burst of losses does.
    pub(super) fn settle(&self) {
        if let Some(load) = self.load.get() {
            load.under_way.store(0, Ordering::Relaxed);
            load.share.end_burst();
        }
        self.state.fetch_and(!BUSY, Ordering::AcqRel);
    }

    fn set_under_way(&self, change: impl Fn(u32) -> u32, limit: u32) {
        let under_way = &self.load().under_way;
        let count = change(under_way.load(Ordering::Relaxed));
        under_way.store(count, Ordering::Relaxed);
        if count >= if self.overlaps() { limit } else { 1 } {
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
        owner.share()
    }
}
