//! What is known of handlers, by their names: of so many at the most, and the least of them gives way.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Handlers that are remembered, at the most.
const MOST: usize = 256;

/// What is known of a handler.
pub trait Ranked {
    /// What it is ranked by.
    type Rank: Ord;

    /// Its rank among the others.
    fn rank(&self) -> Self::Rank;
}

/// What is known of each handler.
#[derive(Clone)]
pub struct Ranking<T>(HashMap<String, T>);

impl<T: Ranked> Ranking<T> {
    /// The place of a handler; the least of the others gives way to a new one that has no room.
    pub fn entry(&mut self, handler: String) -> Entry<'_, String, T> {
        if self.0.len() >= MOST && !self.0.contains_key(&handler) {
            let least = self.0.iter().min_by_key(|(_, known)| known.rank());
            if let Some(name) = least.map(|(name, _)| name.clone()) {
                self.0.remove(&name);
            }
        }
        self.0.entry(handler)
    }

    /// The first `most` of them, the greatest first.
    pub fn into_first(self, most: usize) -> Vec<(String, T)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by_key(|(_, known)| Reverse(known.rank()));
        all.truncate(most);
        all
    }
}

impl<T> Default for Ranking<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}
