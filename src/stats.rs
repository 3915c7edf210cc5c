//! What a hub has done and holds.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::core::router::Sizes;

/// Counters that deliverers add to without the router's lock: once in a turn, or for each call on
/// an executor.
#[derive(Default)]
pub struct Counters {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    /// Counts handler calls that were begun.
    pub fn add_delivered(&self, count: u64) {
        self.delivered.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a handler call that raised.
    pub fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts deliveries that were given up.
    pub fn add_dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A hub's counters and sizes at one moment.
#[pyclass(frozen, module = "pagebus", get_all)]
pub struct Stats {
    published: u64,
    delivered: u64,
    failed: u64,
    dropped: u64,
    pending: usize,
    sessions: usize,
    topics: usize,
    subscriptions: usize,
}

impl Stats {
    /// The counters and sizes, put together.
    pub fn new(counters: &Counters, sizes: &Sizes) -> Self {
        Self {
            published: sizes.published,
            delivered: counters.delivered.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed) + sizes.dropped as u64,
            pending: sizes.pending,
            sessions: sizes.sessions,
            topics: sizes.topics,
            subscriptions: sizes.subscriptions,
        }
    }
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        format!(
            "Stats(published={}, delivered={}, failed={}, dropped={}, pending={}, sessions={}, \
             topics={}, subscriptions={})",
            self.published,
            self.delivered,
            self.failed,
            self.dropped,
            self.pending,
            self.sessions,
            self.topics,
            self.subscriptions
        )
    }
}
