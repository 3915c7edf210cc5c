//! One message on its way to the subscribers that it was sent to.

use std::cell::Cell;

use triomphe::Arc;

use super::roster::Snapshot;
use super::subscription::Subscription;
use super::{GroupKey, SessionKey};

/// Who gets a message, of those who are subscribed to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience<S> {
    /// All of them.
    Everyone,
    /// All but one session.
    Others(S),
    /// One session.
    Only(S),
}

/// A message, made once per send and shared by all its deliveries.
pub struct Envelope<M> {
    /// What was sent.
    pub message: M,
    /// Who gets it.
    pub audience: Audience<SessionKey>,
    /// The place of the send in the hub's sequence.
    pub sequence: u64,
    /// The time of the send, for some messages only: a look at the clock costs as much as a short
    /// delivery. Else 0.
    pub sent_at: u64,
}

/// Who a message is for: found again without it.
#[derive(Clone, Copy)]
pub struct Recipients {
    /// The subscribers' group.
    pub group: GroupKey,
    /// Which of them.
    pub audience: Audience<SessionKey>,
    /// Who joined at this place in the hub's sequence, or before, does not get it.
    pub after: u64,
    /// Who joined after this place does not get it.
    pub before: u64,
}

impl Recipients {
    /// Those of `group` who are to get a message.
    pub fn new<M>(group: GroupKey, envelope: &Envelope<M>) -> Self {
        Self {
            group,
            audience: envelope.audience,
            after: 0,
            before: envelope.sequence,
        }
    }

    /// One subscriber, whenever the message was sent.
    pub fn one<H>(subscription: &Subscription<H>) -> Self {
        Self {
            group: subscription.group,
            audience: Audience::Everyone,
            after: subscription.serial.saturating_sub(1),
            before: subscription.serial.saturating_add(1),
        }
    }
}

/// A walk over the subscribers of one message. Needs no lock: the snapshot cannot change.
pub struct Fanout<H, M> {
    /// The message.
    pub envelope: Arc<Envelope<M>>,
    /// Who gets it.
    pub to: Recipients,
    snapshot: Snapshot<H>,
    /// The chunk of the snapshot, and the place in it.
    position: Cell<(usize, usize)>,
}

impl<H, M> Fanout<H, M> {
    /// A walk from the start.
    pub fn new(to: Recipients, snapshot: Snapshot<H>, envelope: Arc<Envelope<M>>) -> Self {
        Self {
            envelope,
            to,
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

    /// Whether it is for one who came after the send.
    pub fn is_replay(&self) -> bool {
        self.to.after != 0
    }

    /// Whether nobody has got the message yet.
    pub fn is_untouched(&self) -> bool {
        self.position.get() == (0, 0)
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

    /// The place in the hub's sequence of the last subscriber that the walk has stepped over.
    pub fn passed(&self) -> u64 {
        let (chunk, index) = self.position.get();
        let before = |chunk: usize| self.snapshot.get(chunk);
        let last = match index.checked_sub(1) {
            Some(index) => before(chunk).and_then(|chunk| chunk.get(index)),
            None => (chunk.checked_sub(1).and_then(before)).and_then(|chunk| chunk.last()),
        };
        last.map_or(0, |subscription| subscription.serial)
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
        subscription.serial > self.to.before
            || subscription.is_cancelled()
            || matches!(self.to.audience, Audience::Others(s) if s == subscription.owner.key())
    }
}
