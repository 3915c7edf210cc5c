//! Who is on a topic, told as changes: what comes together is told together.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use parking_lot::Mutex;
use triomphe::Arc;

use super::Name;
use super::fanout::Envelope;
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

/// What sessions said of themselves, to be dropped once no lock is held.
pub type Replaced<M> = Vec<Arc<Said<M>>>;

struct Change<M> {
    was_there: bool,
    is_there: bool,
    identity: Identity<M>,
}

impl<M> Change<M> {
    /// Whether the session was not there before, and is not there now.
    fn is_none(&self) -> bool {
        !self.was_there && !self.is_there
    }
}

/// Sessions that come and go without a trace are forgotten when there are so many entries.
const FEW: usize = 32;

/// Changes by session, in the order in which they were first touched.
struct Changes<M> {
    entries: IndexMap<Owner, Change<M>, RandomState>,
    /// How many entries there may be before those are forgotten that have come to nothing.
    most: usize,
}

impl<M> Changes<M> {
    fn new() -> Self {
        Self {
            entries: IndexMap::default(),
            most: FEW,
        }
    }

    fn enter(
        &mut self,
        member: Member<M>,
        (was_there, is_there): (bool, bool),
        replaced: &mut Replaced<M>,
    ) {
        let change = self.entries.entry(member.owner).or_insert(Change {
            was_there,
            is_there,
            identity: None,
        });
        change.is_there = is_there;
        replaced.extend(std::mem::replace(&mut change.identity, member.identity));
        if change.is_none() {
            replaced.extend(change.identity.take());
        }
        if self.entries.len() > self.most {
            self.forget_nothings();
        }
    }

    /// As many as come and go, no more is kept than twice what there is to tell: amortised O(1) a
    /// change, and the others keep their order.
    fn forget_nothings(&mut self) {
        self.entries.retain(|_, change| !change.is_none());
        self.most = FEW.max(self.entries.len() * 2);
    }
}

/// Changes on one topic, in the order in which sessions were first touched by them. Comings and
/// goings that come to nothing in the end are no change.
pub struct Presence<M> {
    /// The topic.
    pub topic: Name,
    /// It is the first record of one who watches, which is told even if nobody is there.
    is_first: bool,
    changes: Mutex<Changes<M>>,
}

impl<M> Presence<M> {
    /// No change yet.
    pub fn new(topic: Name) -> Self {
        Self {
            topic,
            is_first: false,
            changes: Mutex::new(Changes::new()),
        }
    }

    /// For one who begins to watch: those who are there.
    pub fn first(topic: Name, there: Vec<Member<M>>) -> Self {
        let mut changes = Changes::new();
        for member in there {
            // Nobody is twice among them: nothing is replaced.
            changes.enter(member, (false, true), &mut Vec::new());
        }
        Self {
            topic,
            is_first: true,
            changes: Mutex::new(changes),
        }
    }

    /// Enters that a session came, or, if it is not new, that it says something else of itself.
    pub fn join(&self, member: Member<M>, is_new: bool, replaced: &mut Replaced<M>) {
        self.changes.lock().enter(member, (!is_new, true), replaced);
    }

    /// Enters that a session left.
    pub fn leave(&self, member: Member<M>, replaced: &mut Replaced<M>) {
        self.changes.lock().enter(member, (true, false), replaced);
    }

    /// Enters changes that came after these: told together, they are what both are one after the
    /// other.
    pub fn take_in(&self, later: &Self, replaced: &mut Replaced<M>) {
        let (later, mut changes) = (later.changes.lock(), self.changes.lock());
        for (owner, change) in later.entries.iter().filter(|(_, c)| !c.is_none()) {
            let member = Member {
                owner: owner.clone(),
                identity: change.identity.clone(),
            };
            changes.enter(member, (change.was_there, change.is_there), replaced);
        }
    }

    /// The same changes, for somebody who is to be told further ones with them.
    #[must_use]
    pub fn copied(&self) -> Self {
        let copy = Self {
            is_first: self.is_first,
            ..Self::new(self.topic.clone())
        };
        // There is nothing in it to be replaced.
        copy.take_in(self, &mut Vec::new());
        copy
    }

    /// Whether there is nothing to tell: the changes come to nothing.
    pub fn is_empty(&self) -> bool {
        let changes = self.changes.lock();
        !self.is_first && changes.entries.values().all(Change::is_none)
    }

    /// How much is kept of changes, those included that have come to nothing.
    pub fn kept(&self) -> usize {
        self.changes.lock().entries.len()
    }

    /// Those who came or say something else of themselves, and those who left.
    pub fn joined_and_left(&self) -> (Vec<Member<M>>, Vec<Member<M>>) {
        let changes = self.changes.lock();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (owner, change) in &changes.entries {
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

/// A notice of changes that waits in a lane's log.
struct Notice<M> {
    envelope: Arc<Envelope<M>>,
    presence: Arc<Presence<M>>,
}

/// The notices of changes that wait in a lane's log for those who watch one topic. They have one
/// place there, that of the first. Who began to watch between two of them gets only what is later.
pub struct Notices<M> {
    waiting: VecDeque<Notice<M>>,
}

impl<M> Notices<M> {
    /// The notice that further changes join, if none who watches came later; `youngest` is the place
    /// in the hub's sequence of the last who came.
    pub fn open(&self, youngest: u64) -> Option<&Arc<Presence<M>>> {
        let last = self.waiting.back()?;
        (last.envelope.sequence > youngest).then_some(&last.presence)
    }

    /// Enters the notice that further changes join; tells whether there is no place in the log yet.
    pub fn push(&mut self, envelope: Arc<Envelope<M>>, presence: Arc<Presence<M>>) -> bool {
        let is_first = self.waiting.is_empty();
        self.waiting.push_back(Notice { envelope, presence });
        is_first
    }

    /// Takes the notice of that place in the hub's sequence, which is the oldest, if there is one.
    pub fn pop(&mut self, sequence: u64) -> Option<Arc<Presence<M>>> {
        self.first().filter(|first| first.sequence == sequence)?;
        self.waiting.pop_front().map(|notice| notice.presence)
    }

    /// The oldest notice.
    pub fn first(&self) -> Option<&Arc<Envelope<M>>> {
        self.waiting.front().map(|notice| &notice.envelope)
    }

    /// Makes one of the two notices between which somebody began to watch who does no more, unless,
    /// as `same` tells, somebody else is left who gets only one of them. Returns the later one.
    pub fn reunite(
        &mut self,
        left: u64,
        same: impl Fn(u64, u64) -> bool,
        replaced: &mut Replaced<M>,
    ) -> Option<Arc<Envelope<M>>> {
        let later = self.waiting.partition_point(|n| n.envelope.sequence < left);
        let (before, after) = (
            self.waiting.get(later.checked_sub(1)?)?,
            self.waiting.get(later)?,
        );
        if !same(before.envelope.sequence, after.envelope.sequence) {
            return None;
        }
        before.presence.take_in(&after.presence, replaced);
        self.waiting.remove(later).map(|notice| notice.envelope)
    }

    /// What waits.
    pub fn into_envelopes(self) -> impl Iterator<Item = Arc<Envelope<M>>> {
        self.waiting.into_iter().map(|notice| notice.envelope)
    }
}

impl<M> Default for Notices<M> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}
