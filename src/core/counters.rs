//! What deliverers count, each thread on cache lines of its own: those that deliver at the same
//! time do not take them away from each other.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};

use crossbeam_utils::CachePadded;

/// Off in the build that the benchmark compares with, to tell what counting costs.
pub const COUNTS: bool = !cfg!(feature = "uncounted");

/// So many threads have a share for themselves. Where there are more, some have one together.
const SHARES: usize = 16;

/// What deliverers count without the router's lock: once in a turn, or for each call on an
/// executor.
// In a block of their own, because Python's allocator knows nothing of cache lines.
#[derive(Default)]
pub struct Counters(Box<[CachePadded<Share>; SHARES]>);

/// What some of the threads have counted.
#[derive(Default)]
pub struct Share {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// Below zero where others have put what these threads took.
    unread: AtomicI64,
    /// Which call is timed next: for the deliverers' sampler, which goes on where the last one of
    /// these threads stopped.
    pub sample: AtomicU64,
}

thread_local! {
    /// The thread's number, from 1 on; 0 before it has one.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

fn number() -> usize {
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(next_number());
        }
        number.get()
    })
}

#[cold]
fn next_number() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, Relaxed).wrapping_add(1).max(1)
}

impl Counters {
    /// The share of this thread.
    #[inline]
    pub fn own(&self) -> &Share {
        let number = if COUNTS { number() } else { 0 };
        &self.0[number % SHARES]
    }

    /// Counts handler calls that were begun.
    #[inline]
    pub fn add_delivered(&self, count: u64) {
        add(&self.own().delivered, count);
    }

    /// Counts a handler call that raised.
    pub fn add_failed(&self) {
        add(&self.own().failed, 1);
    }

    /// Counts deliveries that were given up.
    pub fn add_dropped(&self, count: usize) {
        add(&self.own().dropped, count as u64);
    }

    /// Counts a message that waits for a reader, whom the router does not know.
    pub fn add_unread(&self) {
        self.change_unread(1);
    }

    /// Counts messages that wait for a reader no more.
    pub fn subtract_unread(&self, count: usize) {
        self.change_unread(-i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn change_unread(&self, by: i64) {
        if COUNTS {
            self.own().unread.fetch_add(by, Relaxed);
        }
    }

    /// Enters that nothing waits for readers: those of this process have read nothing yet.
    pub fn forget_unread(&self) {
        self.0
            .iter()
            .for_each(|share| share.unread.store(0, Relaxed));
    }

    /// Handler calls that were begun.
    pub fn delivered(&self) -> u64 {
        self.sum(|share| &share.delivered)
    }

    /// Handler calls that raised.
    pub fn failed(&self) -> u64 {
        self.sum(|share| &share.failed)
    }

    /// Deliveries that were given up.
    pub fn dropped(&self) -> u64 {
        self.sum(|share| &share.dropped)
    }

    /// Messages that wait for readers.
    pub fn unread(&self) -> usize {
        let sum: i64 = self.0.iter().map(|share| share.unread.load(Relaxed)).sum();
        // One that comes and is read while this adds up can be seen to be read only.
        usize::try_from(sum).unwrap_or(0)
    }

    fn sum(&self, of: impl Fn(&Share) -> &AtomicU64) -> u64 {
        self.0.iter().map(|share| of(share).load(Relaxed)).sum()
    }
}

#[inline]
fn add(counter: &AtomicU64, count: u64) {
    if COUNTS {
        counter.fetch_add(count, Relaxed);
    }
}
