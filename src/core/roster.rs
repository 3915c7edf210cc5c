//! An ordered list of subscriptions that is cheap to change and free to share: chunks that are
//! copied only when a snapshot still uses them.

use triomphe::Arc;

use super::subscription::Subscription;

/// Copying a chunk costs about as much as one delivery; a snapshot costs one pointer per chunk.
const CHUNK: usize = 64;

type Chunk<H> = Vec<Arc<Subscription<H>>>;

/// The subscriptions at one moment, in order of subscription.
pub type Snapshot<H> = Arc<[Arc<Vec<Arc<Subscription<H>>>>]>;

/// A snapshot of few.
pub fn snapshot_of<H>(subscriptions: Vec<Arc<Subscription<H>>>) -> Snapshot<H> {
    std::iter::once(Arc::new(subscriptions)).collect()
}

/// A chunk, found without looking into it.
struct Part<H> {
    /// No subscription in it is older, and none in the parts before is as young.
    first: u64,
    chunk: Arc<Chunk<H>>,
}

/// The list, in order of subscription.
pub struct Roster<H> {
    parts: Vec<Part<H>>,
    len: usize,
    snapshot: Option<Snapshot<H>>,
}

impl<H> Default for Roster<H> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            len: 0,
            snapshot: None,
        }
    }
}

impl<H> Roster<H> {
    /// How many are on the list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a subscription, which must be younger than all that are on the list.
    pub fn push(&mut self, subscription: Arc<Subscription<H>>) {
        self.snapshot = None;
        self.len += 1;
        match self.parts.last_mut() {
            Some(part) if part.chunk.len() < CHUNK => {
                Arc::make_mut(&mut part.chunk).push(subscription);
            }
            _ => self.parts.push(Part {
                first: subscription.serial,
                chunk: Arc::new(vec![subscription]),
            }),
        }
    }

    /// Takes a subscription off the list. The caller's own reference keeps it alive until no
    /// lock is held.
    pub fn remove(&mut self, subscription: &Arc<Subscription<H>>) -> bool {
        let Some(at) = self.part_of(subscription.serial) else {
            return false;
        };
        let chunk = &mut self.parts[at].chunk;
        let Some(index) = chunk.iter().position(|s| Arc::ptr_eq(s, subscription)) else {
            return false;
        };
        self.snapshot = None;
        self.len -= 1;
        Arc::make_mut(chunk).remove(index);
        self.merge(at);
        true
    }

    /// The subscription with that place in the hub's sequence.
    pub fn find(&self, serial: u64) -> Option<&Arc<Subscription<H>>> {
        let chunk = &self.parts[self.part_of(serial)?].chunk;
        let index = chunk.binary_search_by_key(&serial, |s| s.serial).ok()?;
        chunk.get(index)
    }

    /// The part that has the subscription with that place, if any has.
    fn part_of(&self, serial: u64) -> Option<usize> {
        let after = self.parts.partition_point(|part| part.first <= serial);
        after.checked_sub(1)
    }

    /// The list as it is now; repeated calls without a change return the same one.
    pub fn snapshot(&mut self) -> Snapshot<H> {
        self.snapshot
            .get_or_insert_with(|| self.parts.iter().map(|part| part.chunk.clone()).collect())
            .clone()
    }

    /// How many were on the list before that place in the hub's sequence.
    pub fn older_than(&self, serial: u64) -> usize {
        let after = self.parts.partition_point(|part| part.first < serial);
        let Some(at) = after.checked_sub(1) else {
            return 0;
        };
        let whole: usize = self.parts[..at].iter().map(|part| part.chunk.len()).sum();
        whole + self.parts[at].chunk.partition_point(|s| s.serial < serial)
    }

    /// The youngest subscription.
    pub fn last(&self) -> Option<&Arc<Subscription<H>>> {
        self.parts.last()?.chunk.last()
    }

    /// The list's subscriptions, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscription<H>>> {
        self.parts.iter().flat_map(|part| part.chunk.iter())
    }

    /// Keeps chunks from going sparse: an empty one goes, a small one joins its neighbour.
    fn merge(&mut self, at: usize) {
        if self.parts[at].chunk.is_empty() {
            self.parts.remove(at);
            return;
        }
        let length = |at: usize| self.parts.get(at).map_or(CHUNK, |part| part.chunk.len());
        if length(at) + length(at + 1) <= CHUNK / 2 {
            let tail = self.parts.remove(at + 1).chunk;
            Arc::make_mut(&mut self.parts[at].chunk).extend(tail.iter().cloned());
        }
    }
}
