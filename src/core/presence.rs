//! Who is on a topic, told as changes: what comes together is told together.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use parking_lot::Mutex;
use triomphe::Arc;

use super::Name;
use super::subscription::Owner;

/// What a session says of itself.
pub struct Said<M> {
    /// It.
    pub says: M,
    /// When it was said, in milliseconds since 1970. Where nobody else is told, 0.
    pub when: u64,
    /// The bytes of it, for other hubs.
    pub encoded: Option<Name>,
}

impl<M> Said<M> {
    /// Whether they are the same, if both are for other hubs too.
    fn is_same(&self, other: &Self) -> bool {
        (self.when, &self.encoded) == (other.when, &other.encoded)
    }
}

/// What a session says of itself, if it does.
pub type Identity<M> = Option<Arc<Said<M>>>;

/// Of what a session said in two places, what it said last.
pub fn latest<M>(one: Identity<M>, other: &Identity<M>) -> Identity<M> {
    let (Some(first), Some(second)) = (&one, other) else {
        return one.or_else(|| other.clone());
    };
    if (first.when, &first.encoded) < (second.when, &second.encoded) {
        other.clone()
    } else {
        one
    }
}

/// A session, and what it says of itself.
pub struct Member<M> {
    /// The session.
    pub owner: Owner,
    /// What it says of itself.
    pub identity: Identity<M>,
}

impl<M> Member<M> {
    /// Whether it is the same to those who are told: a session that says the same of itself.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.identity, &other.identity) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.is_same(other),
            _ => false,
        }
    }
}

impl<M> Clone for Member<M> {
    fn clone(&self) -> Self {
        Self {
            owner: self.owner.clone(),
            identity: self.identity.clone(),
        }
    }
}

struct Change<M> {
    was_there: bool,
    is_there: bool,
    identity: Identity<M>,
}

/// Changes on one topic, in the order in which sessions were first touched by them. Comings and
/// goings that come to nothing in the end are no change.
pub struct Presence<M> {
    /// The topic.
    pub topic: Name,
    changes: Mutex<IndexMap<Owner, Change<M>, RandomState>>,
}

impl<M> Presence<M> {
    /// No change yet.
    pub fn new(topic: Name) -> Self {
        Self {
            topic,
            changes: Mutex::default(),
        }
    }

    /// Enters that a session came, or, if it is not new, that it says something else of itself.
    /// What that replaces is returned, to be dropped once no lock is held.
    pub fn join(&self, member: Member<M>, is_new: bool) -> Identity<M> {
        self.enter(member, !is_new, true)
    }

    /// Enters that a session left. What that replaces is returned, to be dropped once no lock is
    /// held.
    pub fn leave(&self, member: Member<M>) -> Identity<M> {
        self.enter(member, true, false)
    }

    fn enter(&self, member: Member<M>, was_there: bool, is_there: bool) -> Identity<M> {
        let mut changes = self.changes.lock();
        let change = changes.entry(member.owner).or_insert(Change {
            was_there,
            is_there,
            identity: None,
        });
        change.is_there = is_there;
        std::mem::replace(&mut change.identity, member.identity)
    }

    /// Whether the changes come to nothing.
    pub fn is_empty(&self) -> bool {
        let changes = self.changes.lock();
        !changes.values().any(|c| c.is_there || c.was_there)
    }

    /// Those who came or say something else of themselves, and those who left.
    pub fn joined_and_left(&self) -> (Vec<Member<M>>, Vec<Member<M>>) {
        let changes = self.changes.lock();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (owner, change) in &*changes {
            let list = match (change.was_there, change.is_there) {
                (_, true) => &mut joined,
                (true, false) => &mut left,
                (false, false) => continue,
            };
            list.push(Member {
                owner: owner.clone(),
                identity: change.identity.clone(),
            });
        }
        (joined, left)
    }
}

/// The notices of changes that wait in a lane's log, by their places in the hub's sequence.
pub struct Notices<M> {
    waiting: VecDeque<(u64, Arc<Presence<M>>)>,
    is_open: bool,
}

impl<M> Notices<M> {
    /// The notice that further changes join.
    pub fn open(&self) -> Option<&Arc<Presence<M>>> {
        let last = self.waiting.back().filter(|_| self.is_open)?;
        Some(&last.1)
    }

    /// Enters the notice that further changes join.
    pub fn push(&mut self, sequence: u64, presence: Arc<Presence<M>>) {
        self.waiting.push_back((sequence, presence));
        self.is_open = true;
    }

    /// No further changes join what waits: somebody came who knows them already.
    pub fn seal(&mut self) {
        self.is_open = false;
    }

    /// Takes the notice of that place, which is the oldest, if there is one.
    pub fn pop(&mut self, sequence: u64) -> Option<Arc<Presence<M>>> {
        let is_its = self.waiting.front().is_some_and(|(at, _)| *at == sequence);
        let popped = is_its.then(|| self.waiting.pop_front()).flatten();
        popped.map(|(_, presence)| presence)
    }
}

impl<M> Default for Notices<M> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            is_open: false,
        }
    }
}
