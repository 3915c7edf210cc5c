//! One message on its way to the subscribers that it was sent to.

use std::sync::Arc;

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
    chunk: usize,
    index: usize,
}

impl<H, M> Fanout<H, M> {
    /// A walk from the start.
    pub fn new(snapshot: Snapshot<H>, envelope: Arc<Envelope<M>>, burst: Option<u32>) -> Self {
        Self {
            envelope,
            burst,
            snapshot,
            chunk: 0,
            index: 0,
        }
    }

    /// Goes to the next subscriber that gets the message; `false` if there is none.
    pub fn seek(&mut self) -> bool {
        while let Some(chunk) = self.snapshot.get(self.chunk) {
            match chunk.get(self.index) {
                None => {
                    self.chunk += 1;
                    self.index = 0;
                }
                Some(subscription) if self.skips(subscription) => self.index += 1,
                Some(_) => return true,
            }
        }
        false
    }

    /// The subscriber that [`Self::seek`] found.
    pub fn current(&self) -> Option<&Arc<Subscription<H>>> {
        self.snapshot.get(self.chunk)?.get(self.index)
    }

    /// Steps over the current subscriber.
    pub fn advance(&mut self) {
        self.index += 1;
    }

    /// Steps over everybody who is left; returns how many they were.
    pub fn give_up(&mut self) -> usize {
        let mut count = 0;
        while self.seek() {
            self.advance();
            count += 1;
        }
        count
    }

    /// An upper bound of the subscribers that are left.
    pub fn remaining(&self) -> usize {
        let left = self.snapshot.get(self.chunk..).unwrap_or_default();
        left.iter()
            .map(|chunk| chunk.len())
            .sum::<usize>()
            .saturating_sub(self.index)
    }

    /// Who joined after the send, has left since, or is the one session that was excluded.
    fn skips(&self, subscription: &Subscription<H>) -> bool {
        subscription.serial > self.envelope.sequence
            || subscription.is_cancelled()
            || (self.envelope.except).is_some_and(|session| session == subscription.owner.key)
    }
}
