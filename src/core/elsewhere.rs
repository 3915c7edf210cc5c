//! Who is on topics of other hubs, as far as this hub follows those topics; and what the others are
//! to know of this one.
//!
//! A session is there while it is on any hub. What it says of itself is what it said last, wherever
//! that was; so all hubs agree, whoever is told what first.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;
use triomphe::Arc;

use super::presence::{Identity, Member, Said, latest};
use super::subscription::Owner;
use super::{Name, TopicKey};

/// One connection of another hub: what was told by it holds for as long as that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// The hub's name.
    pub node: [u8; 16],
    /// Which of its connections.
    pub turn: u32,
}

/// What a session says of itself, for those who cannot be handed objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// When it was said: [`Said::when`].
    pub when: u64,
    /// The bytes of it, if the session says anything.
    pub said: Option<Name>,
}

/// What other hubs are to know of a session of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The topic.
    pub topic: Name,
    /// The session.
    pub session: Name,
    /// What it says of itself; `None` if it is not on the topic.
    pub says: Option<Saying>,
}

/// A session of another hub.
struct Guest<M> {
    stays: SmallVec<[Stay<M>; 1]>,
    /// Whether it is on the topic here too.
    is_here: bool,
}

/// By which connection a session is on a topic.
struct Stay<M> {
    host: Host,
    identity: Identity<M>,
    /// The count in which it was seen last.
    count: u32,
}

/// A topic that is followed.
struct Room<M> {
    /// Why: sessions that are on it here are one reason, and each who watches is one.
    reasons: usize,
    guests: HashMap<Owner, Guest<M>, RandomState>,
    /// Guests who are not here too.
    away: usize,
    /// How often all guests were counted. Before the first time nothing else that is told of them
    /// has a meaning.
    count: u32,
}

/// Who is elsewhere.
pub struct Elsewhere<M> {
    rooms: HashMap<TopicKey, Room<M>, RandomState>,
    /// What others are to know and were not told yet, in order.
    memberships: Vec<Membership>,
}

/// The key of sessions that may not be here.
const NOWHERE: u32 = u32::MAX;

impl<M> Room<M> {
    fn forget(&mut self, id: &[u8]) {
        if let Some(guest) = self.guests.remove(id) {
            self.away -= usize::from(!guest.is_here);
        }
    }
}

impl<M> Guest<M> {
    fn says(&self) -> Identity<M> {
        let all = self.stays.iter().map(|stay| &stay.identity);
        all.fold(None, |best, identity| latest(best, identity))
    }
}

impl<M> Default for Elsewhere<M> {
    fn default() -> Self {
        Self {
            rooms: HashMap::default(),
            memberships: Vec::new(),
        }
    }
}

impl<M> Elsewhere<M> {
    // ---- which topics are followed ----------------------------------------------------------

    /// Enters one more reason to follow a topic; tells whether it is the first.
    pub fn came(&mut self, topic: TopicKey) -> bool {
        let room = self.rooms.entry(topic).or_insert_with(|| Room {
            reasons: 0,
            guests: HashMap::default(),
            away: 0,
            count: 0,
        });
        room.reasons += 1;
        room.reasons == 1
    }

    /// Takes one reason back; tells whether it was the last. What is known of the topic is
    /// forgotten then, and what sessions said is added to `replaced`.
    pub fn went(&mut self, topic: TopicKey, replaced: &mut Vec<Arc<Said<M>>>) -> bool {
        let Some(room) = self.rooms.get_mut(&topic) else {
            return false;
        };
        room.reasons -= 1;
        if room.reasons > 0 {
            return false;
        }
        if let Some(room) = self.rooms.remove(&topic) {
            let stays = room.guests.into_values().flat_map(|guest| guest.stays);
            replaced.extend(stays.filter_map(|stay| stay.identity));
        }
        true
    }

    /// Whether a topic is followed.
    pub fn follows(&self, topic: TopicKey) -> bool {
        self.rooms.contains_key(&topic)
    }

    /// The topics that are followed.
    pub fn followed(&self) -> impl Iterator<Item = TopicKey> {
        self.rooms.keys().copied()
    }

    // ---- what others are to know ------------------------------------------------------------

    /// Enters what others are to know.
    pub fn note(&mut self, membership: Membership) {
        self.memberships.push(membership);
    }

    /// What was entered since it was asked.
    pub fn take_memberships(&mut self) -> Vec<Membership> {
        std::mem::take(&mut self.memberships)
    }

    // ---- what others tell -------------------------------------------------------------------

    /// Begins to count everybody who is on a topic: who is not told until [`Self::uncounted`] is
    /// asked, is not there. Tells whether the topic is followed.
    pub fn begin_count(&mut self, topic: TopicKey) -> bool {
        let Some(room) = self.rooms.get_mut(&topic) else {
            return false;
        };
        room.count = room.count.wrapping_add(1).max(1);
        true
    }

    /// Whether everybody on a topic was counted once, or is being counted.
    pub fn is_known(&self, topic: TopicKey) -> bool {
        self.rooms.get(&topic).is_some_and(|room| room.count > 0)
    }

    /// Those who were not counted.
    pub fn uncounted(&self, topic: TopicKey) -> Vec<(Host, Owner)> {
        self.stays_where(topic, |stay, count| stay.count != count)
    }

    /// Those who are on a topic by that connection.
    pub fn guests_of(&self, topic: TopicKey, host: Host) -> Vec<(Host, Owner)> {
        self.stays_where(topic, |stay, _| stay.host == host)
    }

    fn stays_where(
        &self,
        topic: TopicKey,
        which: impl Fn(&Stay<M>, u32) -> bool,
    ) -> Vec<(Host, Owner)> {
        let Some(room) = self.rooms.get(&topic) else {
            return Vec::new();
        };
        let of_guest = |(owner, guest): (&Owner, &Guest<M>)| {
            let stays = guest.stays.iter().filter(|stay| which(stay, room.count));
            let stays = stays.map(|stay| (stay.host, owner.clone()));
            stays.collect::<SmallVec<[_; 1]>>()
        };
        room.guests.iter().flat_map(of_guest).collect()
    }

    /// Enters that a session is on a topic elsewhere; `is_here` tells whether it is here too. What
    /// that replaces is returned, to be dropped once no lock is held.
    pub fn put(
        &mut self,
        topic: TopicKey,
        id: &[u8],
        host: Host,
        identity: Identity<M>,
        is_here: bool,
    ) -> Identity<M> {
        let Some(room) = self.rooms.get_mut(&topic) else {
            return identity;
        };
        let count = room.count;
        if let Some(guest) = room.guests.get_mut(id) {
            if let Some(stay) = guest.stays.iter_mut().find(|stay| stay.host == host) {
                stay.count = count;
                return std::mem::replace(&mut stay.identity, identity);
            }
            guest.stays.push(Stay {
                host,
                identity,
                count,
            });
            return None;
        }
        let stay = Stay {
            host,
            identity,
            count,
        };
        let stays = [stay].into_iter().collect();
        room.guests
            .insert(Owner::new(id, NOWHERE), Guest { stays, is_here });
        room.away += usize::from(!is_here);
        None
    }

    /// Enters that a session is not on a topic by that connection. What it said is returned, to be
    /// dropped once no lock is held.
    pub fn remove(&mut self, topic: TopicKey, id: &[u8], host: Host) -> Identity<M> {
        let room = self.rooms.get_mut(&topic)?;
        let guest = room.guests.get_mut(id)?;
        let at = guest.stays.iter().position(|stay| stay.host == host)?;
        let stay = guest.stays.swap_remove(at);
        if guest.stays.is_empty() {
            room.forget(id);
        }
        stay.identity
    }

    /// Enters whether a session is on a topic here.
    pub fn is_here(&mut self, topic: TopicKey, id: &[u8], is_here: bool) {
        if let Some(room) = self.rooms.get_mut(&topic)
            && let Some(guest) = room.guests.get_mut(id)
            && guest.is_here != is_here
        {
            guest.is_here = is_here;
            if is_here {
                room.away -= 1;
            } else {
                room.away += 1;
            }
        }
    }

    // ---- who is there -----------------------------------------------------------------------

    /// How many are on a topic elsewhere and not here.
    pub fn count_away(&self, topic: TopicKey) -> usize {
        self.rooms.get(&topic).map_or(0, |room| room.away)
    }

    /// Those who are on a topic elsewhere and not here.
    pub fn away(&self, topic: TopicKey) -> impl Iterator<Item = Member<M>> {
        let room = self.rooms.get(&topic).into_iter();
        let guests = room.flat_map(|room| &room.guests);
        let away = guests.filter(|(_, guest)| !guest.is_here);
        away.map(|(owner, guest)| member(owner, guest))
    }

    /// Everybody who is on any followed topic elsewhere, perhaps more than once.
    pub fn everybody(&self) -> impl Iterator<Item = Member<M>> {
        let guests = self.rooms.values().flat_map(|room| &room.guests);
        guests.map(|(owner, guest)| member(owner, guest))
    }

    /// A session that is on a topic elsewhere.
    pub fn guest(&self, topic: TopicKey, id: &[u8]) -> Option<Member<M>> {
        let (owner, guest) = self.rooms.get(&topic)?.guests.get_key_value(id)?;
        Some(member(owner, guest))
    }

    /// What sessions say of themselves.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Said<M>>> {
        let guests = self.rooms.values().flat_map(|room| room.guests.values());
        let stays = guests.flat_map(|guest| &guest.stays);
        stays.filter_map(|stay| stay.identity.as_ref())
    }
}

fn member<M>(owner: &Owner, guest: &Guest<M>) -> Member<M> {
    Member {
        owner: owner.clone(),
        identity: guest.says(),
    }
}
