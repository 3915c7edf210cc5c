//! Finding an entry by its name: a table of keys only, because the names stand in the entries.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// The keys of named entries.
pub struct Index {
    keys: HashTable<u32>,
    hasher: RandomState,
}

impl Index {
    /// An index of nothing.
    pub fn new() -> Self {
        Self {
            keys: HashTable::new(),
            hasher: RandomState::default(),
        }
    }

    /// The key of the entry with that name; `name_of` tells an entry's name.
    pub fn find<'a>(&self, name: &[u8], name_of: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let found = self.keys.find(hash, |&key| name_of(key) == name);
        found.copied()
    }

    /// Enters a key under a name that the index does not have.
    pub fn insert<'a>(&mut self, name: &[u8], key: u32, name_of: impl Fn(u32) -> &'a [u8]) {
        let hash_of = |key: &u32| self.hasher.hash_one(name_of(*key));
        let hash = self.hasher.hash_one(name);
        self.keys.insert_unique(hash, key, hash_of);
    }

    /// Takes out the key of that name, which `key` is.
    pub fn remove(&mut self, name: &[u8], key: u32) {
        let hash = self.hasher.hash_one(name);
        if let Ok(entry) = self.keys.find_entry(hash, |&other| other == key) {
            entry.remove();
        }
    }
}
