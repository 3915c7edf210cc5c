//! What a hub knows: who is subscribed to what, which messages wait for whom, who must wake up.
//!
//! No Python in here. Everything is plain data behind one lock that the caller holds: no method
//! calls a handler, and whatever a method lets go of (handlers, messages) is moved into the
//! caller's [`Trash`], to be dropped after the lock is released.

pub mod backlog;
pub mod clock;
pub mod counters;
pub mod elsewhere;
pub mod fanout;
pub mod history;
pub mod holdings;
pub mod index;
pub mod interest;
pub mod presence;
pub mod registry;
pub mod roster;
pub mod router;
pub mod subscription;
pub mod sync;
pub mod traffic;
pub mod worker;

use triomphe::Arc;

use fanout::{Envelope, Fanout};
use router::Call;
use subscription::Subscription;

/// A topic's name: the UTF-8 of its text, lone surrogates included.
pub type Name = Arc<[u8]>;
/// Where the router keeps a session.
pub type SessionKey = u32;
/// Where the router keeps a topic; [`EVERYTHING`] stands for messages sent to all.
pub type TopicKey = u32;
/// Where the router keeps the subscribers of one topic that one lane serves.
pub type GroupKey = u32;
/// Where the router keeps a deliverer and its log.
pub type LaneKey = u32;

/// The topic of messages sent to all.
pub const EVERYTHING: TopicKey = 0;

/// What a change let go of, to be dropped once no lock is held: dropping a handler or a message
/// can run anybody's code.
pub struct Trash<H, M, D> {
    /// Subscriptions that ended.
    pub subscriptions: Vec<Arc<Subscription<H>>>,
    /// Calls that will not be made.
    pub calls: Vec<Call<H, M>>,
    /// Messages that left a lane's log undelivered.
    pub logged: Vec<(GroupKey, Arc<Envelope<M>>)>,
    /// Messages that nobody will get any more.
    pub envelopes: Vec<Arc<Envelope<M>>>,
    /// Walks that ended.
    pub fanouts: Vec<Fanout<H, M>>,
    /// Deliverers that serve nobody any more.
    pub deliverers: Vec<D>,
}

impl<H, M, D> Trash<H, M, D> {
    /// Drops what it holds. Most changes let go of nothing, and find that out at once.
    #[inline]
    pub fn discard(self) {
        let room = self.subscriptions.capacity()
            | self.calls.capacity()
            | self.logged.capacity()
            | self.envelopes.capacity()
            | self.fanouts.capacity()
            | self.deliverers.capacity();
        if room == 0 {
            // Nothing is lost: there is no memory behind an empty list without room.
            std::mem::forget(self);
        }
    }
}

impl<H, M, D> Default for Trash<H, M, D> {
    fn default() -> Self {
        Self {
            subscriptions: Vec::new(),
            calls: Vec::new(),
            logged: Vec::new(),
            envelopes: Vec::new(),
            fanouts: Vec::new(),
            deliverers: Vec::new(),
        }
    }
}
