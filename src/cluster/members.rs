//! Who is on a topic: what a node has to put at the broker, and how far it is with what others put
//! there. No input or output in here.
//!
//! What is put is how things are, not what has happened: a session on a topic is *dirty* until the
//! broker has taken how it is with it now. So it does no harm to put something twice, and the broker
//! comes to the truth whatever went wrong in between.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use indexmap::IndexSet;
use tokio::time::{Duration, Instant};

use super::position::Id;
use super::wire::members::{Read, write_changes, write_field, write_saying};
use crate::core::Name;
use crate::core::elsewhere::{Host, Membership, Saying};

/// Sessions that are put at once, and about so many bytes of what they say.
const AT_ONCE: usize = 256;
const BYTES: usize = 256 << 10;
/// The longest time until the broker is asked whether it still has what was put there.
const RENEW: Duration = Duration::from_mins(1);
/// Earlier connections by which sessions may still stand at the broker. Older ones are dead there.
const EARLIER: usize = 8;
/// Changes that are kept while a table is read. If there are more, it is read again.
const HELD: usize = 1024;

/// What is put at the broker at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The topic.
    pub topic: Name,
    /// By which connection.
    pub host: Host,
    /// Of the changes that this node puts, the number of this one.
    pub sequence: u64,
    /// The fields of the table, with what is to stand in them.
    pub set: Vec<(Vec<u8>, Vec<u8>)>,
    /// The fields that are not to stand there.
    pub delete: Vec<Vec<u8>>,
    /// Whether those who follow the topic are told.
    pub is_told: bool,
}

impl Batch {
    /// The bytes that are pushed to those who follow the topic; none if they are not told.
    pub fn pushed(&self) -> Vec<u8> {
        if !self.is_told {
            return Vec::new();
        }
        let set = self
            .set
            .iter()
            .map(|(field, value)| (&**field, Some(&**value)));
        let delete = self.delete.iter().map(|field| (&**field, None));
        write_changes(&set.chain(delete).collect::<Vec<_>>())
    }
}

/// A topic that sessions of this node are on, or were.
struct Place {
    /// Who is on it.
    own: HashMap<Name, Saying, RandomState>,
    /// Of whom the broker does not know yet how it is with them.
    dirty: IndexSet<Name, RandomState>,
    /// Those that may stand there.
    put: HashSet<Name, RandomState>,
    under_way: Vec<Name>,
    /// Earlier connections by which sessions that are dirty may stand there.
    earlier: Vec<Host>,
    /// The epoch of the table that it was put into by this connection, once it was.
    epoch: Option<u64>,
    renew_at: Instant,
}

/// What a node has to put at the broker.
#[derive(Default)]
pub struct Memberships {
    places: HashMap<Name, Place, RandomState>,
    /// The topics with dirty sessions.
    dirty: IndexSet<Name, RandomState>,
    /// By which connection it is put; there may be none.
    host: Option<Host>,
    /// The number of the last batch that tells something.
    sequence: u64,
    has_left: bool,
}

impl Memberships {
    /// Enters how it is with a session.
    pub fn note(&mut self, membership: Membership) {
        let Membership {
            topic,
            session,
            says,
        } = membership;
        if self.has_left {
            return;
        }
        let place = self.places.entry(topic.clone()).or_insert_with(|| Place {
            own: HashMap::default(),
            dirty: IndexSet::default(),
            put: HashSet::default(),
            under_way: Vec::new(),
            earlier: Vec::new(),
            epoch: None,
            renew_at: Instant::now() + RENEW,
        });
        if let Some(says) = says {
            place.own.insert(session.clone(), says);
        } else {
            place.own.remove(&session);
            if self.host.is_none() && !place.put.contains(&session) {
                // Nobody has heard of it, and nobody will: there may be any number of them.
                place.dirty.swap_remove(&session);
                if place.dirty.is_empty() {
                    self.dirty.swap_remove(&topic);
                }
                if place.is_empty() {
                    self.places.remove(&topic);
                }
                return;
            }
        }
        place.dirty.insert(session);
        self.dirty.insert(topic);
    }

    /// There is a new connection, or none: what was put by another one is put again.
    pub fn connected(&mut self, host: Option<Host>) {
        let earlier = self.host.take();
        self.host = host;
        self.dirty.clear();
        for (topic, place) in &mut self.places {
            if let Some(earlier) = earlier {
                place.earlier.push(earlier);
                let excess = place.earlier.len().saturating_sub(EARLIER);
                place.earlier.drain(..excess);
            }
            place.epoch = None;
            place.all_again();
            if !place.dirty.is_empty() {
                self.dirty.insert(topic.clone());
            }
        }
    }

    /// Puts what is on a topic again.
    pub fn again(&mut self, topic: &Name) {
        if let Some(place) = self.places.get_mut(topic) {
            place.dirty.extend(place.own.keys().cloned());
            if !place.dirty.is_empty() {
                self.dirty.insert(topic.clone());
            }
        }
    }

    /// The table of a topic is of that epoch, or there is none: if what was put was put into another
    /// one, the broker has forgotten it.
    pub fn stands_in(&mut self, topic: &Name, epoch: Option<u64>) {
        if let Some(place) = self.places.get_mut(topic)
            && place.epoch.is_some()
            && place.epoch != epoch
        {
            place.epoch = epoch;
            self.again(topic);
        }
    }

    /// Takes everybody away, for good.
    pub fn leave(&mut self) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        for (topic, place) in &mut self.places {
            place
                .dirty
                .extend(place.own.drain().map(|(session, _)| session));
            if !place.dirty.is_empty() {
                self.dirty.insert(topic.clone());
            }
        }
    }

    /// Whether the broker has everything, as far as it can be reached.
    pub fn is_done(&self) -> bool {
        let is_under_way = |place: &Place| !place.under_way.is_empty();
        self.host.is_none() || self.dirty.is_empty() && !self.places.values().any(is_under_way)
    }

    /// The next batch of a topic of which none is under way.
    pub fn next_batch(&mut self) -> Option<Batch> {
        let host = self.host?;
        let is_free = |topic: &&Name| {
            let place = self.places.get(*topic);
            place.is_some_and(|place| place.under_way.is_empty())
        };
        let topic = self.dirty.iter().find(is_free)?.clone();
        let place = self.places.get_mut(&topic)?;
        let rest = place.dirty.split_off(place.at_once());
        place.under_way = std::mem::replace(&mut place.dirty, rest)
            .into_iter()
            .collect();
        place.put.extend(place.under_way.iter().cloned());
        if place.dirty.is_empty() {
            self.dirty.swap_remove(&topic);
        }
        self.sequence += 1;
        Some(place.batch(topic, host, self.sequence))
    }

    /// The broker has taken the batch of a topic that is under way, into a table of that epoch.
    pub fn done(&mut self, topic: &Name, host: Host, epoch: Option<u64>) {
        if self.host == Some(host) {
            self.stands_in(topic, epoch);
        }
        let Some(place) = self.places.get_mut(topic) else {
            return;
        };
        if self.host != Some(host) {
            return;
        }
        place.epoch = epoch;
        for session in place.under_way.drain(..) {
            if !place.own.contains_key(&session) && !place.dirty.contains(&session) {
                place.put.remove(&session);
            }
        }
        if place.dirty.is_empty() {
            place.earlier.clear();
            if place.is_empty() {
                self.places.remove(topic);
            }
        }
    }

    /// It has not, and may do so later.
    pub fn not_done(&mut self, topic: &Name, host: Host) {
        if let Some(place) = self.places.get_mut(topic)
            && self.host == Some(host)
        {
            place.dirty.extend(place.under_way.drain(..));
            self.dirty.insert(topic.clone());
        }
    }

    /// Batches with nothing in them, of topics that the broker must be reminded of: it tells where
    /// it is with them.
    pub fn renewals(&mut self, now: Instant, random: impl Fn() -> f64) -> Vec<Batch> {
        let Some(host) = self.host else {
            return Vec::new();
        };
        let mut renewals = Vec::new();
        for (topic, place) in &mut self.places {
            if place.renew_at <= now {
                // Not all topics at once, and not all nodes.
                place.renew_at = now + RENEW.mul_f64(0.5 + 0.5 * random());
                renewals.push(Batch {
                    topic: topic.clone(),
                    host,
                    sequence: 0,
                    set: Vec::new(),
                    delete: Vec::new(),
                    is_told: false,
                });
            }
        }
        renewals
    }
}

impl Place {
    /// Whether there is nobody on it, and nobody to be told of.
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.dirty.is_empty() && self.under_way.is_empty()
    }

    fn all_again(&mut self) {
        self.dirty.extend(self.under_way.drain(..));
        self.dirty.extend(self.own.keys().cloned());
    }

    /// How many of those who are dirty are put at once.
    fn at_once(&self) -> usize {
        let said = |session| self.own.get(session)?.said.as_deref();
        let mut bytes = 0;
        let sessions = self.dirty.iter().take(AT_ONCE);
        let fitting = sessions.take_while(|&session| {
            let has_room = bytes < BYTES;
            bytes += said(session).map_or(0, <[u8]>::len);
            has_room
        });
        fitting.count()
    }

    fn batch(&self, topic: Name, host: Host, sequence: u64) -> Batch {
        let mut batch = Batch {
            topic,
            host,
            sequence,
            set: Vec::new(),
            delete: Vec::new(),
            is_told: true,
        };
        for session in &self.under_way {
            let field = write_field(host, session);
            match self.own.get(session) {
                Some(saying) => batch.set.push((field, write_saying(saying))),
                None => batch.delete.push(field),
            }
            let earlier = self.earlier.iter();
            batch
                .delete
                .extend(earlier.map(|&host| write_field(host, session)));
        }
        batch
    }
}

/// Everybody on a topic, as a table at the broker has it.
#[derive(Debug)]
pub struct Table {
    /// How many changes it has had; `None` if there is no table.
    pub top: Option<Id>,
    /// Who is there.
    pub members: Vec<Read>,
    /// By which connections it was changed.
    pub hosts: Vec<Host>,
}

/// How far a node is with the table of a topic that it follows.
#[derive(Default)]
pub struct Follow {
    /// The last change that it had.
    at: Option<Id>,
    is_reading: bool,
    /// Changes that came while the table was read.
    held: Vec<(Id, Vec<Read>)>,
    /// Something was missed meanwhile.
    has_missed: bool,
    /// Connections that may have put something there; and whether one of them is dead.
    pub hosts: HashSet<Host, RandomState>,
    /// Whether one of them is dead, and what it put is to be removed.
    pub has_dead: bool,
}

impl Follow {
    /// The last change that it had.
    pub fn at(&self) -> Option<Id> {
        self.at.filter(|_| !self.is_reading)
    }

    /// Whether the table is being read.
    pub fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// The table is about to be read.
    pub fn read(&mut self) {
        self.is_reading = true;
        self.has_missed = false;
        self.held.clear();
    }

    /// Something was missed, or is in doubt: the table is to be read, unless it is being read and is
    /// to be read again then. Tells which.
    pub fn doubt(&mut self) -> bool {
        if self.is_reading {
            self.has_missed = true;
            self.held.clear();
            return false;
        }
        true
    }

    /// Takes what is pushed: gives what is to be handed on, or `None` if the table is to be read.
    pub fn push(&mut self, id: Id, changes: Vec<Read>) -> Option<Vec<Read>> {
        if self.is_reading {
            if self.held.len() < HELD {
                self.held.push((id, changes));
            } else {
                self.doubt();
            }
            return Some(Vec::new());
        }
        match self.at {
            Some(at) if at.epoch == id.epoch && id.number <= at.number => Some(Vec::new()),
            Some(at) if at.epoch == id.epoch && Some(id.number) == at.number.checked_add(1) => {
                self.at = Some(id);
                Some(changes)
            }
            None if id.number == 1 => {
                self.at = Some(id);
                Some(changes)
            }
            _ => None,
        }
    }

    /// The table was read: takes what came meanwhile. Gives what of that is to be handed on after
    /// the table, and whether it is to be read again.
    pub fn answer(&mut self, top: Option<Id>) -> (Vec<Read>, bool) {
        self.at = top;
        self.is_reading = false;
        let (mut after, mut again) = (Vec::new(), std::mem::take(&mut self.has_missed));
        for (id, changes) in std::mem::take(&mut self.held) {
            match self.push(id, changes) {
                Some(changes) => after.extend(changes),
                None => again = true,
            }
        }
        (after, again)
    }
}
