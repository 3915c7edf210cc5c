//! A queue that several owners share, bounded for each of them: beyond its limit, an owner's
//! oldest entry gives way to its newest.

use std::collections::VecDeque;

use super::sync::{AtomicU32, Ordering};

/// How much of one owner waits in a backlog. Changed only under the router's lock; atomic only
/// because its owner is shared between threads.
#[derive(Default)]
pub struct Share {
    queued: AtomicU32,
    stale: AtomicU32,
    dropped: AtomicU32,
}

impl Share {
    /// Entries that will be handed out.
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether the queue holds anything of this owner, entries that gave way included.
    pub fn is_empty(&self) -> bool {
        self.queued() == 0 && !self.has_stale()
    }

    /// Whether the queue holds entries of this owner that gave way.
    pub fn has_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed) > 0
    }

    /// Counts one more entry dropped in the burst that goes on; returns the burst's count.
    pub fn count_dropped(&self) -> u32 {
        self.dropped
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// Ends the burst of drops if nothing of the owner is left in the queue.
    pub fn caught_up(&self) -> Option<u32> {
        if self.queued() == 0 {
            self.end_burst()
        } else {
            None
        }
    }

    /// Ends the burst of drops, if one goes on; returns its count.
    pub fn end_burst(&self) -> Option<u32> {
        if self.dropped.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }
}

/// What happens to a message for which a full queue has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverflowPolicy {
    /// The queue's oldest message gives way to it.
    DropOldest,
    /// It is not taken.
    DropNewest,
    /// Who does not keep up is unsubscribed.
    Unsubscribe,
}

/// Finds the share of an owner: beside its key, or in the owner itself.
pub trait Shares<O> {
    /// The owner's share.
    fn of<'a>(&'a self, owner: &'a O) -> &'a Share;
}

/// The queue: first in, first out over all owners.
pub struct Backlog<O, T> {
    entries: VecDeque<(O, T)>,
    stale: usize,
}

/// A spike's memory is given back when an empty queue holds more room than this.
const KEPT_CAPACITY: usize = 1024;

impl<O, T> Backlog<O, T> {
    /// An empty queue, without memory of its own.
    pub const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            stale: 0,
        }
    }

    /// Entries that will be handed out.
    pub fn len(&self) -> usize {
        self.entries.len() - self.stale
    }

    /// Whether nothing will be handed out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an entry. `true` when the owner was at its limit, so that its oldest gave way.
    pub fn push(&mut self, owner: O, item: T, share: &Share, limit: u32) -> bool {
        self.entries.push_back((owner, item));
        if share.queued() < limit {
            share.queued.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        share.stale.fetch_add(1, Ordering::Relaxed);
        self.stale += 1;
        true
    }

    /// Enters an older entry than the owner's others, as the next to be handed out. None of the
    /// others may have given way and still be there: it would be taken for the one that did.
    pub fn unpop(&mut self, owner: O, item: T, share: &Share) {
        share.queued.fetch_add(1, Ordering::Relaxed);
        self.entries.push_front((owner, item));
    }

    /// Takes the oldest entry; what gave way before it goes into `trash`.
    pub fn pop(&mut self, shares: &impl Shares<O>, trash: &mut Vec<(O, T)>) -> Option<(O, T)> {
        while let Some((owner, item)) = self.entries.pop_front() {
            let share = shares.of(&owner);
            if self.is_stale(share) {
                trash.push((owner, item));
                continue;
            }
            share.queued.fetch_sub(1, Ordering::Relaxed);
            return Some((owner, item));
        }
        if self.entries.capacity() > KEPT_CAPACITY {
            self.entries = VecDeque::new();
        }
        None
    }

    /// Frees the entries that gave way, once they are half of the queue: amortised O(1) a push.
    pub fn compact(&mut self, shares: &impl Shares<O>, trash: &mut Vec<(O, T)>) {
        if self.stale * 2 > self.entries.len() {
            self.purge(shares, trash);
        }
    }

    /// Frees the entries that gave way.
    pub fn purge(&mut self, shares: &impl Shares<O>, trash: &mut Vec<(O, T)>) {
        for (owner, item) in std::mem::take(&mut self.entries) {
            if self.is_stale(shares.of(&owner)) {
                trash.push((owner, item));
            } else {
                self.entries.push_back((owner, item));
            }
        }
    }

    /// Takes out every entry whose owner does not satisfy `keep`.
    pub fn remove_unless(
        &mut self,
        keep: impl Fn(&O) -> bool,
        shares: &impl Shares<O>,
        removed: &mut Vec<(O, T)>,
    ) {
        for (owner, item) in std::mem::take(&mut self.entries) {
            if keep(&owner) {
                self.entries.push_back((owner, item));
                continue;
            }
            let share = shares.of(&owner);
            if !self.is_stale(share) {
                share.queued.fetch_sub(1, Ordering::Relaxed);
            }
            removed.push((owner, item));
        }
    }

    /// Consumes one count of staleness of the owner whose oldest entry was just reached.
    fn is_stale(&mut self, share: &Share) -> bool {
        if share.stale.load(Ordering::Relaxed) == 0 {
            return false;
        }
        share.stale.fetch_sub(1, Ordering::Relaxed);
        self.stale -= 1;
        true
    }
}

impl<O, T> Default for Backlog<O, T> {
    fn default() -> Self {
        Self::new()
    }
}
