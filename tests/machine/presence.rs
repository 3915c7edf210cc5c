//! What the naive model says of presence: who is on a topic is looked up in the list of
//! subscriptions, and a record is a list of changes.

use std::collections::BTreeMap;

use _core::core::fanout::Audience;

use crate::WATCH;
use crate::model::{Entry, Id, Listed, Message, Model};

/// What a session says of itself.
pub type Identity = Option<u64>;
/// Sessions, with what they say of themselves.
pub type Members = BTreeMap<u8, Identity>;

/// A record of who came and who left, as those who watch get it.
pub struct Record {
    message: Message,
    /// The topic that is watched, and the lane; none if it is the first record of one subscription.
    place: Option<(u8, u32)>,
    changes: Vec<Change>,
}

/// A session came, left, or said something else of itself.
struct Change {
    session: u8,
    was_there: bool,
    is_there: bool,
    identity: Identity,
}

/// Who came or says something else of itself, and who left, by several records told as one.
fn told<'a>(records: impl IntoIterator<Item = &'a Record>) -> Option<(Members, Members)> {
    let changes: Vec<_> = records.into_iter().flat_map(|r| &r.changes).collect();
    let (mut joined, mut left) = (Members::new(), Members::new());
    for change in &changes {
        let session = change.session;
        let own = |c: &&&Change| c.session == session;
        let (first, last) = (changes.iter().find(own)?, changes.iter().rfind(own)?);
        if last.is_there {
            joined.insert(session, last.identity);
        } else if first.was_there {
            left.insert(session, last.identity);
        }
    }
    Some((joined, left))
}

impl Model {
    pub fn is_on(&self, session: u8, topic: u8) -> bool {
        let mut live = self.live();
        live.any(|s| (s.session, s.topic) == (session, topic))
    }

    fn identity(&self, session: u8) -> Identity {
        self.identities.get(&session).copied()
    }

    /// The sessions with subscriptions.
    pub fn everybody(&self) -> Members {
        let sessions = self.live().map(|s| s.session);
        sessions.map(|s| (s, self.identity(s))).collect()
    }

    /// The sessions that are on a topic.
    pub fn members(&self, topic: u8) -> Members {
        let on = self.live().filter(|s| s.topic == topic);
        on.map(|s| (s.session, self.identity(s.session))).collect()
    }

    /// Subscribes to the coming and going on a topic: the first record tells who is there. Tells
    /// whether the lane is to be woken.
    pub fn watch(&mut self, session: u8, topic: u8, lane: u32) -> (Id, bool) {
        let id = self.subscribe(session, topic + WATCH, lane, false);
        let members = self.members(topic).into_iter();
        let changes = members.map(|(session, identity)| Change {
            session,
            was_there: false,
            is_there: true,
            identity,
        });
        self.records.push(Record {
            message: id,
            place: None,
            changes: changes.collect(),
        });
        (id, self.begin_with(id, &[id]))
    }

    pub fn identify(&mut self, session: u8, said: u64) {
        if !self.live().any(|s| s.session == session) {
            return;
        }
        self.is_news = true;
        self.identities.insert(session, said);
        let mut topics = Vec::new();
        for s in self.live().filter(|s| s.session == session) {
            if !topics.contains(&s.topic) {
                topics.push(s.topic);
            }
        }
        for topic in topics {
            self.tell(session, topic, true, true);
        }
    }

    /// As [`Self::identify`], unless the session has said something already.
    pub fn introduce(&mut self, session: u8, said: u64) {
        if self.identity(session).is_none() {
            self.identify(session, said);
        }
    }

    /// Tells those who watch a topic, lane by lane. A record that waits there takes in the change.
    pub fn tell(&mut self, session: u8, topic: u8, was_there: bool, is_there: bool) {
        let identity = self.identity(session);
        let all = self.watched.clone().into_iter();
        for (_, lane) in all.filter(|(watched, _)| *watched == topic) {
            let message = match self.open_record(topic, lane) {
                Some(message) => message,
                None => self.log_record(topic, lane),
            };
            let mut records = self.records.iter_mut();
            let open = records.find(|r| r.message == message);
            open.expect("it was made").changes.push(Change {
                session,
                was_there,
                is_there,
                identity,
            });
        }
    }

    /// The records that wait for those who watch a topic.
    fn waiting_records(&self, topic: u8, lane: u32) -> Vec<Message> {
        let logs = self.lanes.get(&lane).into_iter();
        let entries = logs.flat_map(|lane| &lane.log);
        let own = entries.filter(|entry| entry.topic == topic + WATCH);
        own.map(|entry| entry.message).collect()
    }

    /// The last record that waits, unless somebody came to watch after it was begun.
    fn open_record(&self, topic: u8, lane: u32) -> Option<Message> {
        let last = self.waiting_records(topic, lane).last().copied()?;
        let is_closed = self.watches_between(topic, lane, last, Message::MAX);
        (!is_closed).then_some(last)
    }

    fn watches_between(&self, topic: u8, lane: u32, after: Message, before: Message) -> bool {
        let mut live = self.live();
        live.any(|s| (s.topic, s.lane) == (topic + WATCH, lane) && after < s.id && s.id < before)
    }

    /// Two records that wait are one where nobody watches any more who came between them.
    pub fn reunite_records(&mut self, topic: u8, lane: u32) {
        let waiting = self.waiting_records(topic, lane);
        let pair = waiting
            .windows(2)
            .find(|pair| !self.watches_between(topic, lane, pair[0], pair[1]));
        let Some(&[first, second]) = pair else { return };
        let second_at = self.records.iter().position(|r| r.message == second);
        let later = self.records.remove(second_at.expect("a record"));
        let mut records = self.records.iter_mut();
        let into = records.find(|r| r.message == first).expect("a record");
        into.changes.extend(later.changes);
        self.lane(lane).log.retain(|entry| entry.message != second);
        for s in &mut self.listed {
            s.sent.retain(|other| *other != second);
        }
        self.reunite_records(topic, lane);
    }

    fn log_record(&mut self, topic: u8, lane: u32) -> Message {
        self.sequence += 1;
        let message = self.sequence;
        self.records.push(Record {
            message,
            place: Some((topic, lane)),
            changes: Vec::new(),
        });
        let mut log = self.lane(lane).log.iter();
        let first = log.find(|other| other.topic == topic + WATCH);
        let slot = first.map(|first| first.slot);
        let entry = Entry {
            message,
            topic: topic + WATCH,
            audience: Audience::Everyone,
            one: None,
            slot: slot.unwrap_or(message),
        };
        for id in self.left(lane, &entry, 0).collect::<Vec<_>>() {
            self.find(id).sent.push(message);
        }
        // All that wait for the same have the place of the first.
        let log = &mut self.lane(lane).log;
        let last = log.iter().rposition(|other| other.topic == entry.topic);
        log.insert(last.map_or(log.len(), |last| last + 1), entry);
        if self.hire(lane) {
            self.woken.push(lane);
        }
        message
    }

    fn record(&self, message: Message) -> Option<&Record> {
        self.records.iter().find(|r| r.message == message)
    }

    /// A record joins the one that waits for the same subscription; tells whether there is one.
    pub fn joins_record(&mut self, id: Id, message: Message) -> bool {
        let s = self.find(id);
        let mail: Vec<_> = s.mailbox.iter().copied().collect();
        let waiting: Vec<_> = mail.into_iter().chain(self.queued(id)).collect();
        if self.record(message).is_none() || waiting.is_empty() {
            return false;
        }
        assert_eq!(waiting.len(), 1, "one record waits for who watches");
        let s = self.find(id);
        s.taken_in.push((waiting[0], message));
        s.sent.retain(|other| *other != message);
        true
    }

    /// Whether a record that waited for one subscription has come to nothing, and is not told.
    pub fn has_come_to_nothing(&mut self, id: Id, message: Message) -> bool {
        let is_first = self.record(message).is_none_or(|r| r.place.is_none());
        let told = self.told(id, message).unwrap_or_default();
        let is_nothing = !is_first && told == Default::default();
        if is_nothing {
            self.find(id).sent.retain(|other| *other != message);
        }
        is_nothing
    }

    /// Who came or says something else of itself, and who left, by a record as one subscription is
    /// told of it.
    pub fn told(&self, id: Id, message: Message) -> Option<(Members, Members)> {
        let record = self.record(message)?;
        let s = self.listed.iter().find(|s| s.id == id)?;
        let taken_in = s.taken_in.iter().filter(|(into, _)| *into == message);
        let taken_in = taken_in.filter_map(|(_, later)| self.record(*later));
        told(std::iter::once(record).chain(taken_in))
    }

    /// Whether a message that leaves a log is a record that has come to nothing.
    pub fn tells_nothing(&mut self, message: Message) -> bool {
        let told = self.record(message).and_then(|record| told([record]));
        let is_empty = told.is_some_and(|(joined, left)| joined.is_empty() && left.is_empty());
        for s in self.listed.iter_mut().filter(|_| is_empty) {
            s.sent.retain(|other| *other != message);
        }
        is_empty
    }

    /// Forgets where nobody watches any more and nothing waits for those who did.
    pub fn forget_watched(&mut self, live: &[(u8, u8, u32)]) {
        let lanes = &self.lanes;
        self.watched.retain(|&(topic, key)| {
            let mut live = live.iter();
            let mut logs = lanes.get(&key).into_iter().flat_map(|lane| &lane.log);
            live.any(|l| (l.1, l.2) == (topic + WATCH, key))
                || logs.any(|entry| entry.topic == topic + WATCH)
        });
    }

    /// What is known to who watches, once everything on the way has come.
    fn knows(&self, s: &Listed) -> Members {
        let mut there = Members::new();
        for &message in &s.sent {
            let (joined, left) = self.told(s.id, message).expect("a record");
            for session in left.keys() {
                assert!(there.remove(session).is_some(), "who left was there");
            }
            there.extend(joined);
        }
        there
    }

    /// Replaying the records, those that wait included, gives who is there.
    pub fn check_watchers(&self) {
        for s in self.live().filter(|s| s.topic >= WATCH && s.is_exact) {
            if s.lost.is_empty() {
                let there = self.members(s.topic - WATCH);
                assert_eq!(self.knows(s), there, "who is there");
            }
        }
    }
}
