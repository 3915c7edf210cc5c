//! An ordered list of subscriptions that is cheap to change and free to share: chunks that are
//! copied only when a snapshot still uses them.

use std::sync::Arc;

use super::subscription::Subscription;

/// Copying a chunk costs about as much as one delivery; a snapshot costs one pointer per chunk.
const CHUNK: usize = 64;

type Chunk<H> = Vec<Arc<Subscription<H>>>;

/// The subscriptions at one moment, in order of subscription.
pub type Snapshot<H> = Arc<[Arc<Vec<Arc<Subscription<H>>>>]>;

/// The list, in order of subscription.
pub struct Roster<H> {
    chunks: Vec<Arc<Chunk<H>>>,
    len: usize,
    snapshot: Option<Snapshot<H>>,
}

impl<H> Default for Roster<H> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
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
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(subscription),
            _ => self.chunks.push(Arc::new(vec![subscription])),
        }
    }

    /// Takes a subscription off the list. The caller's own reference keeps it alive until no
    /// lock is held.
    pub fn remove(&mut self, subscription: &Arc<Subscription<H>>) -> bool {
        let serial = subscription.serial;
        let after = self
            .chunks
            .partition_point(|c| c.first().is_some_and(|s| s.serial <= serial));
        let Some(at) = after.checked_sub(1) else {
            return false;
        };
        let Ok(index) = self.chunks[at].binary_search_by_key(&serial, |s| s.serial) else {
            return false;
        };
        self.snapshot = None;
        self.len -= 1;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        chunk.remove(index);
        self.merge(at);
        true
    }

    /// The list as it is now; repeated calls without a change return the same one.
    pub fn snapshot(&mut self) -> Snapshot<H> {
        self.snapshot
            .get_or_insert_with(|| self.chunks.iter().cloned().collect())
            .clone()
    }

    /// How many were on the list before that place in the hub's sequence.
    pub fn older_than(&self, serial: u64) -> usize {
        let at = self
            .chunks
            .partition_point(|c| c.last().is_some_and(|s| s.serial < serial));
        let whole: usize = self.chunks[..at].iter().map(|chunk| chunk.len()).sum();
        let part = self
            .chunks
            .get(at)
            .map_or(0, |c| c.partition_point(|s| s.serial < serial));
        whole + part
    }

    /// The list's subscriptions, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscription<H>>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Keeps chunks from going sparse: an empty one goes, a small one joins its neighbour.
    fn merge(&mut self, at: usize) {
        if self.chunks[at].is_empty() {
            self.chunks.remove(at);
            return;
        }
        let next = at + 1;
        if next < self.chunks.len() && self.chunks[at].len() + self.chunks[next].len() <= CHUNK / 2
        {
            let tail = self.chunks.remove(next);
            Arc::make_mut(&mut self.chunks[at]).extend(tail.iter().cloned());
        }
    }
}
