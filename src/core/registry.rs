//! Who is subscribed to what: by session, to end a session's subscriptions, and by topic, to find
//! who gets a message.

use slab::Slab;
use triomphe::Arc;

use super::backlog::{Backlog, Share, Shares};
use super::fanout::Envelope;
use super::holdings::Holdings;
use super::index::Index;
use super::roster::Roster;
use super::router::Call;
use super::subscription::{Address, Listener, Own, Owner, Place, Subscription};
use super::{EVERYTHING, GroupKey, LaneKey, Name, SessionKey, TopicKey};

/// Calls that wait for a worker.
pub type CallQueue<H, M> = Backlog<Arc<Subscription<H>>, Arc<Envelope<M>>>;

/// Which of a session's subscriptions a change means.
pub enum Scope<'a> {
    /// Those on messages sent to all.
    Everything,
    /// Those on one topic.
    Topic(&'a [u8]),
    /// Every subscription of the session.
    All,
}

/// One session. It exists while it has a subscription, or a worker is busy with it.
pub struct Session<H, M> {
    owner: Owner,
    subscriptions: Holdings<H>,
    queue: Option<Box<CallQueue<H, M>>>,
    /// In the run queue or with a worker: no second worker may take it.
    pub scheduled: bool,
    /// The turn of the log in which it last made a call from there.
    pub turn: u32,
}

impl<H, M> Session<H, M> {
    /// Its calls that wait for a worker, where sync handlers run on an executor.
    pub fn queue(&mut self) -> &mut CallQueue<H, M> {
        self.queue.get_or_insert_default()
    }

    /// Whether no call waits for a worker.
    pub fn is_idle(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.is_empty())
    }
}

struct Topic {
    name: Option<Name>,
    groups: Vec<GroupKey>,
}

/// The subscribers of one topic that one lane serves.
pub struct Group<H> {
    topic: TopicKey,
    /// Who delivers to them.
    pub lane: LaneKey,
    /// They, in order of subscription.
    pub roster: Roster<H>,
    /// How many messages for them wait in the lane's log.
    pub share: Share,
}

/// The tables.
pub struct Registry<H, M> {
    sessions: Slab<Session<H, M>>,
    session_keys: Index,
    topics: Slab<Topic>,
    topic_keys: Index,
    groups: Slab<Group<H>>,
    subscriptions: usize,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "four billion entries do not fit in memory"
)]
fn key(index: usize) -> u32 {
    index as u32
}

fn id_of<'a, H, M>(sessions: &'a Slab<Session<H, M>>) -> impl Fn(u32) -> &'a [u8] {
    |key| sessions[key as usize].owner.id()
}

fn name_of<'a>(topics: &'a Slab<Topic>) -> impl Fn(u32) -> &'a [u8] {
    |key| topics[key as usize].name.as_deref().unwrap_or_default()
}

impl<H, M> Registry<H, M> {
    /// Empty tables.
    pub fn new() -> Self {
        let mut topics = Slab::new();
        let everything = topics.insert(Topic {
            name: None,
            groups: Vec::new(),
        });
        debug_assert_eq!(key(everything), EVERYTHING);
        Self {
            sessions: Slab::new(),
            session_keys: Index::new(),
            topics,
            topic_keys: Index::new(),
            groups: Slab::new(),
            subscriptions: 0,
        }
    }

    /// Sessions, topics and subscriptions that exist.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let idle = self
            .sessions
            .iter()
            .filter(|(_, s)| s.subscriptions.is_empty())
            .count();
        let topics = self
            .topics
            .iter()
            .filter(|(_, t)| t.name.is_some() && self.has_members(t));
        (
            self.sessions.len() - idle,
            topics.count(),
            self.subscriptions,
        )
    }

    fn has_members(&self, topic: &Topic) -> bool {
        topic
            .groups
            .iter()
            .any(|&g| !self.group(g).roster.is_empty())
    }

    /// The session of that id, if it exists.
    pub fn session_key(&self, id: &[u8]) -> Option<SessionKey> {
        self.session_keys.find(id, id_of(&self.sessions))
    }

    /// A session that exists.
    pub fn session(&mut self, session: SessionKey) -> Option<&mut Session<H, M>> {
        self.sessions.get_mut(session as usize)
    }

    /// The groups that get what is sent on `topic`, or to all.
    pub fn groups_on(&self, topic: Option<&[u8]>) -> &[GroupKey] {
        self.topic_key(topic)
            .map_or(&[], |t| &self.topics[t as usize].groups)
    }

    /// A group, which must exist.
    pub fn group(&self, group: GroupKey) -> &Group<H> {
        &self.groups[group as usize]
    }

    /// A group, if it exists.
    pub fn group_mut(&mut self, group: GroupKey) -> Option<&mut Group<H>> {
        self.groups.get_mut(group as usize)
    }

    /// Every subscription.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscription<H>>> {
        self.groups
            .iter()
            .flat_map(|(_, group)| group.roster.iter())
    }

    /// How many of a group's subscribers there are for a message.
    pub fn recipients(&self, group: GroupKey, envelope: &Envelope<M>) -> usize {
        let members = self.group(group);
        let older = members.roster.older_than(envelope.sequence);
        let excluded = envelope.except.map_or(0, |session| {
            let own = self.on_topic(session, members.topic);
            own.filter(|s| s.group == group && s.serial < envelope.sequence)
                .count()
        });
        older.saturating_sub(excluded)
    }

    /// How many of a group's subscribers belong to `session`.
    pub fn members_of(&self, session: SessionKey, group: GroupKey) -> usize {
        let topic = self.group(group).topic;
        self.on_topic(session, topic)
            .filter(|s| s.group == group)
            .count()
    }

    /// An active subscription.
    pub fn find(&self, address: Address) -> Option<&Arc<Subscription<H>>> {
        let group = self.groups.get(address.group as usize)?;
        group.roster.find(address.serial)
    }

    /// The session's subscriptions on one topic, or on everything, whose handlers have that digest.
    pub fn matching(
        &self,
        id: &[u8],
        topic: Option<&[u8]>,
        digest: u16,
    ) -> Vec<Arc<Subscription<H>>> {
        let (Some(session), Some(topic)) = (self.session_key(id), self.topic_key(topic)) else {
            return Vec::new();
        };
        self.on_topic(session, topic)
            .filter(|s| s.digest == digest)
            .cloned()
            .collect()
    }

    /// The subscription that a session entered last, else the one that any session did on `topic`.
    pub fn latest(&self, id: &[u8], topic: Option<&[u8]>) -> Option<&Arc<Subscription<H>>> {
        let session = self.session_key(id);
        let own = session.and_then(|s| self.sessions[s as usize].subscriptions.last());
        own.or_else(|| {
            let group = *self.groups_on(topic).last()?;
            self.group(group).roster.last()
        })
    }

    /// The topic of a subscription that has not ended.
    pub fn topic_of(&self, subscription: &Subscription<H>) -> Option<&Name> {
        if subscription.is_cancelled() {
            return None;
        }
        let group = self.groups.get(subscription.group as usize)?;
        self.topics[group.topic as usize].name.as_ref()
    }

    /// Enters a subscription that gets every message after `serial`. The second value tells
    /// whether the lane got a new group by it.
    pub fn insert(
        &mut self,
        id: &[u8],
        topic: Option<&[u8]>,
        lane: LaneKey,
        listener: Listener<H>,
        serial: u64,
    ) -> (Arc<Subscription<H>>, bool) {
        let session = self.session_or_new(id);
        let topic = self.topic_or_new(topic);
        let (group, is_new) = self.group_or_new(topic, lane);
        let Self {
            sessions, groups, ..
        } = self;
        let session = &mut sessions[session as usize];
        let place = Place {
            owner: session.owner.clone(),
            group,
            serial,
        };
        let subscription = Arc::new(Subscription::new(listener, place));
        let topic_of = |s: &Subscription<H>| groups[s.group as usize].topic;
        session.subscriptions.insert(subscription.clone(), topic_of);
        self.groups[group as usize]
            .roster
            .push(subscription.clone());
        self.subscriptions += 1;
        (subscription, is_new)
    }

    /// The session's subscriptions in `scope`, in order.
    pub fn in_scope(&self, id: &[u8], scope: &Scope<'_>) -> Vec<Arc<Subscription<H>>> {
        let Some(session) = self.session_key(id) else {
            return Vec::new();
        };
        let topic = match scope {
            Scope::All => {
                let all = self.sessions[session as usize].subscriptions.iter();
                return all.cloned().collect();
            }
            Scope::Everything => Some(EVERYTHING),
            Scope::Topic(name) => self.topic_key(Some(name)),
        };
        topic.map_or_else(Vec::new, |t| self.on_topic(session, t).cloned().collect())
    }

    /// Takes a subscription out of the tables; its group and session stay until they are released.
    pub fn remove(&mut self, subscription: &Arc<Subscription<H>>) {
        let group = &mut self.groups[subscription.group as usize];
        if group.roster.remove(subscription) {
            self.subscriptions -= 1;
        }
        let topic = group.topic;
        if let Some(session) = self.sessions.get_mut(subscription.owner.key() as usize) {
            session.subscriptions.remove(subscription, topic);
        }
    }

    /// Empties the sessions' queues; returns how many calls that were.
    pub fn abandon_queues(&mut self, removed: &mut Vec<Call<H, M>>) -> usize {
        let mut count = 0;
        let sessions: Vec<_> = self.sessions.iter().map(|(index, _)| key(index)).collect();
        for session in sessions {
            if let Some(owner) = self.session(session) {
                if let Some(queue) = &mut owner.queue {
                    count += queue.len();
                    queue.remove_unless(|_| false, &Own, removed);
                }
                owner.scheduled = false;
            }
            self.release_session(session);
        }
        count
    }

    /// Enters that no subscription is busy, and that no burst of losses goes on.
    pub fn settle(&self) {
        for (_, group) in &self.groups {
            group.share.end_burst();
            group.roster.iter().for_each(|s| s.settle());
        }
    }

    /// Forgets a session that nothing needs any more.
    pub fn release_session(&mut self, session: SessionKey) {
        let Some(owner) = self.sessions.get(session as usize) else {
            return;
        };
        if owner.subscriptions.is_empty() && owner.is_idle() && !owner.scheduled {
            self.session_keys.remove(owner.owner.id(), session);
            self.sessions.remove(session as usize);
        }
    }

    /// Forgets a group, and its topic, that nothing needs any more; returns the group's lane.
    pub fn release_group(&mut self, group: GroupKey) -> Option<LaneKey> {
        let members = self.groups.get(group as usize)?;
        if !members.roster.is_empty() || !members.share.is_empty() {
            return None;
        }
        let members = self.groups.remove(group as usize);
        let topic = &mut self.topics[members.topic as usize];
        topic.groups.retain(|&g| g != group);
        if topic.groups.is_empty()
            && let Some(name) = topic.name.take()
        {
            self.topic_keys.remove(&name, members.topic);
            self.topics.remove(members.topic as usize);
        }
        Some(members.lane)
    }

    fn on_topic(
        &self,
        session: SessionKey,
        topic: TopicKey,
    ) -> impl Iterator<Item = &Arc<Subscription<H>>> {
        let session = self.sessions.get(session as usize);
        let topic_of = |s: &Subscription<H>| self.group(s.group).topic;
        session
            .into_iter()
            .flat_map(move |s| s.subscriptions.on_topic(topic, topic_of))
    }

    fn topic_key(&self, topic: Option<&[u8]>) -> Option<TopicKey> {
        topic.map_or(Some(EVERYTHING), |name| {
            self.topic_keys.find(name, name_of(&self.topics))
        })
    }

    fn session_or_new(&mut self, id: &[u8]) -> SessionKey {
        if let Some(session) = self.session_key(id) {
            return session;
        }
        let entry = self.sessions.vacant_entry();
        let session = key(entry.key());
        entry.insert(Session {
            owner: Owner::new(id, session),
            subscriptions: Holdings::new(),
            queue: None,
            scheduled: false,
            turn: 0,
        });
        self.session_keys.insert(id, session, id_of(&self.sessions));
        session
    }

    fn topic_or_new(&mut self, topic: Option<&[u8]>) -> TopicKey {
        let Some(name) = topic else { return EVERYTHING };
        if let Some(topic) = self.topic_key(topic) {
            return topic;
        }
        let entry = Topic {
            name: Some(name.into()),
            groups: Vec::new(),
        };
        let topic = key(self.topics.insert(entry));
        self.topic_keys.insert(name, topic, name_of(&self.topics));
        topic
    }

    fn group_or_new(&mut self, topic: TopicKey, lane: LaneKey) -> (GroupKey, bool) {
        let known = &self.topics[topic as usize].groups;
        if let Some(&group) = known.iter().find(|&&g| self.group(g).lane == lane) {
            return (group, false);
        }
        let group = Group {
            topic,
            lane,
            roster: Roster::default(),
            share: Share::default(),
        };
        let group = key(self.groups.insert(group));
        self.topics[topic as usize].groups.push(group);
        (group, true)
    }
}

impl<H, M> Shares<GroupKey> for Registry<H, M> {
    fn of<'a>(&'a self, group: &'a GroupKey) -> &'a Share {
        &self.group(*group).share
    }
}
