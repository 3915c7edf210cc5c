//! One message on its way to the subscribers that it was sent to.

use std::cell::Cell;

use triomphe::Arc;

use super::SessionKey;
use super::roster::Snapshot;
use super::subscription::Subscription;

/// A message, made once per send and shared by all its deliveries.
pub struct Envelope<M> {
    /// What was sent.
    pub message: M,
    /// The session that does not get it.
    pub except: Option<SessionKey>,
    /// The place of the send in the hub's sequence.
    pub sequence: u64,
}

/// A walk over the subscribers of one message. Needs no lock: the snapshot cannot change.
pub struct Fanout<H, M> {
    /// The message.
    pub envelope: Arc<Envelope<M>>,
    /// The size of the burst of losses of the topic that ends with this message.
    pub burst: Option<u32>,
    snapshot: Snapshot<H>,
    /// The chunk of the snapshot, and the place in it.
    position: Cell<(usize, usize)>,
}

impl<H, M> Fanout<H, M> {
    /// A walk from the start.
    pub fn new(snapshot: Snapshot<H>, envelope: Arc<Envelope<M>>, burst: Option<u32>) -> Self {
        Self {
            envelope,
            burst,
            snapshot,
            position: Cell::new((0, 0)),
        }
    }

    /// The next subscriber that gets the message; the walk steps over it.
    #[inline]
    pub fn take_next(&self) -> Option<&Arc<Subscription<H>>> {
        let subscription = self.find_next()?;
        let (chunk, index) = self.position.get();
        self.position.set((chunk, index + 1));
        Some(subscription)
    }

    /// Whether somebody else gets the message.
    pub fn has_next(&self) -> bool {
        self.find_next().is_some()
    }

    #[inline]
    fn find_next(&self) -> Option<&Arc<Subscription<H>>> {
        let (mut chunk, mut index) = self.position.get();
        loop {
            match self.snapshot.get(chunk)?.get(index) {
                None => (chunk, index) = (chunk + 1, 0),
                Some(subscription) if self.skips(subscription) => index += 1,
                Some(subscription) => {
                    self.position.set((chunk, index));
                    return Some(subscription);
                }
            }
        }
    }

    /// Steps over everybody who is left; returns how many they were.
    pub fn give_up(&self) -> usize {
        std::iter::from_fn(|| self.take_next()).count()
    }

    /// An upper bound of the subscribers that are left.
    pub fn remaining(&self) -> usize {
        let (chunk, index) = self.position.get();
        let left = self.snapshot.get(chunk..).unwrap_or_default();
        let left: usize = left.iter().map(|chunk| chunk.len()).sum();
        left.saturating_sub(index)
    }

    /// Who joined after the send, has left since, or is the one session that was excluded.
    fn skips(&self, subscription: &Subscription<H>) -> bool {
        subscription.serial > self.envelope.sequence
            || subscription.is_cancelled()
            || (self.envelope.except).is_some_and(|session| session == subscription.owner.key())
    }
}
