//! Who is subscribed to what: by session, to end a session's subscriptions, and by topic, to find
//! who gets a message.

use foldhash::fast::RandomState;
use indexmap::{IndexMap, IndexSet};
use slab::Slab;
use triomphe::Arc;

use super::backlog::{Backlog, Share, Shares};
use super::elsewhere::{Elsewhere, Membership, Saying};
use super::fanout::{Audience, Envelope, Recipients};
use super::holdings::Holdings;
use super::index::Index;
use super::interest::{Channel, Interest};
use super::presence::{Identity, Member, Notices, Presence, Said, latest};
use super::roster::{Roster, Snapshot, snapshot_of};
use super::router::Call;
use super::router::presence::watched_name;
use super::subscription::{Address, Listener, Own, Owner, Place, Subscription};
use super::traffic::Busiest;
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
    /// What it says of itself.
    pub identity: Identity<M>,
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
    /// Sessions that are on it.
    sessions: u32,
    /// Sends on it, as long as it has existed.
    published: u64,
    /// The topic of those who watch it.
    watch: Option<TopicKey>,
    /// The topic that is watched.
    watched: Option<TopicKey>,
}

impl Topic {
    fn new(name: Option<Name>) -> Self {
        Self {
            name,
            groups: Vec::new(),
            sessions: 0,
            published: 0,
            watch: None,
            watched: None,
        }
    }
}

/// The subscribers of one topic that one lane serves.
pub struct Group<H, M> {
    topic: TopicKey,
    /// Who delivers to them.
    pub lane: LaneKey,
    /// They, in order of subscription.
    pub roster: Roster<H>,
    /// How many messages for them wait in the lane's log.
    pub share: Share,
    /// Those of them that tell who comes and goes, where they watch.
    notices: Option<Box<Notices<M>>>,
}

impl<H, M> Group<H, M> {
    /// Whether the notice of that place in the hub's sequence, which leaves the log, has come to
    /// nothing.
    pub fn tells_nothing(&mut self, sequence: u64) -> bool {
        let notice = self.notices.as_mut().and_then(|n| n.pop(sequence));
        notice.is_some_and(|notice| notice.is_empty())
    }

    /// The notice that waits next, for which there is no place in the log yet.
    pub fn next_notice(&self) -> Option<&Arc<Envelope<M>>> {
        self.notices.as_ref()?.first()
    }

    /// The notice that further changes join.
    pub fn open_notice(&self) -> Option<&Arc<Presence<M>>> {
        let youngest = self.roster.last().map_or(0, |s| s.serial);
        self.notices.as_ref()?.open(youngest)
    }
}

/// The tables.
pub struct Registry<H, M> {
    sessions: Slab<Session<H, M>>,
    session_keys: Index,
    topics: Slab<Topic>,
    topic_keys: Index,
    groups: Slab<Group<H, M>>,
    subscriptions: usize,
    /// Sessions that have subscriptions.
    members: usize,
    /// Topics that sessions are on.
    joined: usize,
    busiest: Busiest,
    /// Where subscribers came and went, if anybody wants to know.
    interest: Option<Box<Interest>>,
    /// Who is on other hubs, if hubs tell each other.
    pub(super) elsewhere: Option<Box<Elsewhere<M>>>,
    /// What sessions said of themselves, to be dropped once no lock is held.
    pub(super) replaced: Vec<Arc<Said<M>>>,
}

/// A subscription that was entered.
pub struct Inserted<H> {
    /// The subscription.
    pub subscription: Arc<Subscription<H>>,
    /// The lane got a new group by it.
    pub new_group: bool,
    /// The topic that its session has joined by it.
    pub joined: Option<TopicKey>,
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
        let everything = topics.insert(Topic::new(None));
        debug_assert_eq!(key(everything), EVERYTHING);
        Self {
            sessions: Slab::new(),
            session_keys: Index::new(),
            topics,
            topic_keys: Index::new(),
            groups: Slab::new(),
            subscriptions: 0,
            members: 0,
            joined: 0,
            busiest: Busiest::default(),
            interest: None,
            elsewhere: None,
            replaced: Vec::new(),
        }
    }

    /// Sessions, topics and subscriptions that exist.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.members, self.joined, self.subscriptions)
    }

    /// Begins to note where subscribers come and go.
    pub fn note_interest(&mut self) {
        self.interest = Some(Box::default());
    }

    /// Where there are subscribers.
    pub fn channels(&self) -> Vec<Channel> {
        let to_all = |session: &Session<H, M>| {
            let topic_of = |s: &Subscription<H>| self.group(s.group).topic;
            session
                .subscriptions
                .iter()
                .any(|s| topic_of(s) == EVERYTHING)
        };
        let sessions = self.sessions.iter().map(|(_, session)| session);
        let sessions = sessions.filter(|session| to_all(session));
        let mut channels: Vec<_> = sessions
            .map(|session| Channel::Session(session.owner.id().into()))
            .collect();
        if !channels.is_empty() {
            channels.push(Channel::All);
        }
        let topics = self.topics.iter().map(|(_, topic)| topic);
        let joined = topics.filter(|topic| topic.sessions > 0);
        let joined = joined.filter_map(|topic| topic.name.clone());
        channels.extend(joined.map(Channel::Topic));
        let followed = self.elsewhere.iter().flat_map(|e| e.followed());
        let followed = followed.filter_map(|topic| self.name_of(topic).cloned());
        channels.extend(followed.map(Channel::Presence));
        channels
    }

    /// Where the first subscriber came, or the last one went, since it was asked.
    pub fn take_interest(&mut self) -> Vec<(Channel, bool)> {
        self.interest
            .as_mut()
            .map_or(Vec::new(), |noted| noted.take())
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
        self.topic_key(topic).map_or(&[], |t| self.groups_of(t))
    }

    /// The groups that get what is sent on a topic that exists.
    pub fn groups_of(&self, topic: TopicKey) -> &[GroupKey] {
        &self.topics[topic as usize].groups
    }

    /// Counts a send on a topic that exists.
    pub fn count_sent(&mut self, key: TopicKey) {
        let topic = &mut self.topics[key as usize];
        topic.published += 1;
        if Busiest::looks_at(topic.published) && topic.name.is_some() {
            self.busiest.look(key, topic.published);
        }
    }

    /// Topics that are sent to most, with the number of sends and of sessions on them.
    pub fn busiest(&self) -> Vec<(Name, u64, u32)> {
        let topics = self.busiest.iter().map(|key| &self.topics[key as usize]);
        let told = topics.filter_map(|t| Some((t.name.clone()?, t.published, t.sessions)));
        told.collect()
    }

    /// A group, which must exist.
    pub fn group(&self, group: GroupKey) -> &Group<H, M> {
        &self.groups[group as usize]
    }

    /// A group, if it exists.
    pub fn group_mut(&mut self, group: GroupKey) -> Option<&mut Group<H, M>> {
        self.groups.get_mut(group as usize)
    }

    /// Every subscription.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscription<H>>> {
        self.groups
            .iter()
            .flat_map(|(_, group)| group.roster.iter())
    }

    /// How many of a group's subscribers there are for a message, after the one at the place
    /// `passed` in the hub's sequence.
    pub fn recipients(&self, to: &Recipients, passed: u64) -> usize {
        let Some(members) = self.groups.get(to.group as usize) else {
            return 0;
        };
        let first = passed.max(to.after).saturating_add(1);
        let roster = &members.roster;
        let all = roster
            .older_than(to.before)
            .saturating_sub(roster.older_than(first));
        let own = |session| {
            let own = self.members_of(session, to.group);
            own.filter(|s| (first..to.before).contains(&s.serial))
                .count()
        };
        match to.audience {
            Audience::Everyone => all,
            Audience::Others(session) => all.saturating_sub(own(session)),
            Audience::Only(session) => own(session),
        }
    }

    /// Whether none of a group's subscribers is among the audience.
    pub fn has_nobody(&self, group: GroupKey, audience: Audience<SessionKey>) -> bool {
        let all = self.group(group).roster.len();
        match audience {
            Audience::Everyone => all == 0,
            Audience::Others(session) => all == self.members_of(session, group).count(),
            Audience::Only(session) => self.members_of(session, group).next().is_none(),
        }
    }

    /// A group's subscribers, or those of them to whom alone a message goes.
    pub fn snapshot(&mut self, group: GroupKey, audience: Audience<SessionKey>) -> Snapshot<H> {
        match audience {
            Audience::Only(session) => {
                let own = self.members_of(session, group).cloned().collect();
                snapshot_of(own)
            }
            Audience::Everyone | Audience::Others(_) => {
                self.groups[group as usize].roster.snapshot()
            }
        }
    }

    /// A group's subscribers that belong to `session`.
    fn members_of(
        &self,
        session: SessionKey,
        group: GroupKey,
    ) -> impl Iterator<Item = &Arc<Subscription<H>>> {
        let topic = self.group(group).topic;
        self.on_topic(session, topic)
            .filter(move |s| s.group == group)
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

    /// The name of a group's topic; none, if it gets what is sent to all.
    pub fn group_name(&self, group: GroupKey) -> Option<&Name> {
        self.name_of(self.groups.get(group as usize)?.topic)
    }

    /// The topic of a subscription that has not ended.
    pub fn topic_of(&self, subscription: &Subscription<H>) -> Option<&Name> {
        if subscription.is_cancelled() {
            return None;
        }
        let group = self.groups.get(subscription.group as usize)?;
        let topic = &self.topics[group.topic as usize];
        self.name_of(topic.watched.unwrap_or(group.topic))
    }

    /// The name of a topic that exists.
    pub fn name_of(&self, topic: TopicKey) -> Option<&Name> {
        self.topics[topic as usize].name.as_ref()
    }

    /// Enters a subscription that gets every message after `serial`.
    pub fn insert(
        &mut self,
        id: &[u8],
        topic: Option<&[u8]>,
        lane: LaneKey,
        listener: Listener<H>,
        serial: u64,
    ) -> Inserted<H> {
        let session = self.session_or_new(id);
        let topic = self.topic_or_new(topic);
        let (group, new_group) = self.group_or_new(topic, lane);
        let is_first = self.on_topic(session, topic).next().is_none();
        let joined = is_first && self.counts(topic);
        let Self {
            sessions, groups, ..
        } = self;
        let session = &mut sessions[session as usize];
        self.members += usize::from(session.subscriptions.is_empty());
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
        let place = &mut self.topics[topic as usize];
        let is_new = joined && place.sessions == 0;
        self.joined += usize::from(is_new);
        place.sessions += u32::from(joined);
        if let Some(interest) = &mut self.interest {
            match &place.name {
                None => interest.came_to_all(is_first.then_some(id)),
                Some(name) if is_new => interest.note(Channel::Topic(name.clone()), true),
                Some(_) => {}
            }
        }
        if self.elsewhere.is_some() {
            self.came(topic, is_new);
            if joined {
                self.tell_elsewhere(topic, subscription.owner.key(), true);
            }
        }
        Inserted {
            subscription,
            new_group,
            joined: joined.then_some(topic),
        }
    }

    /// Whether those who are on a topic are counted: it is neither that of messages sent to all nor
    /// one of those who watch.
    fn counts(&self, topic: TopicKey) -> bool {
        topic != EVERYTHING && self.topics[topic as usize].watched.is_none()
    }

    /// The first `most` of the session's subscriptions in `scope` that were entered before that
    /// place in the hub's sequence.
    pub fn in_scope(
        &self,
        id: &[u8],
        scope: &Scope<'_>,
        before: u64,
        most: usize,
    ) -> Vec<Arc<Subscription<H>>> {
        let Some(session) = self.session_key(id) else {
            return Vec::new();
        };
        let is_older = |s: &&Arc<Subscription<H>>| s.serial < before;
        let topic = match scope {
            Scope::All => {
                let all = self.sessions[session as usize].subscriptions.iter();
                return all.filter(is_older).take(most).cloned().collect();
            }
            Scope::Everything => Some(EVERYTHING),
            Scope::Topic(name) => self.topic_key(Some(name)),
        };
        let on_topic = topic.map(|topic| self.on_topic(session, topic));
        let on_topic = on_topic.into_iter().flatten();
        on_topic.filter(is_older).take(most).cloned().collect()
    }

    /// Takes a subscription out of the tables; its group and session stay until they are released.
    /// Returns the topic that its session has left by that.
    pub fn remove(&mut self, subscription: &Arc<Subscription<H>>) -> Option<TopicKey> {
        let group = &mut self.groups[subscription.group as usize];
        let (topic, is_there) = (group.topic, group.roster.remove(subscription));
        self.subscriptions -= usize::from(is_there);
        let session = subscription.owner.key();
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.subscriptions.remove(subscription, topic);
            self.members -= usize::from(is_there && session.subscriptions.is_empty());
        }
        let is_last = is_there && self.on_topic(session, topic).next().is_none();
        let left = is_last && self.counts(topic);
        let place = &mut self.topics[topic as usize];
        place.sessions -= u32::from(left);
        let is_gone = left && place.sessions == 0;
        self.joined -= usize::from(is_gone);
        if let Some(interest) = &mut self.interest {
            match &place.name {
                None if is_there => interest.left_all(is_last.then_some(subscription.owner.id())),
                Some(name) if is_gone => interest.note(Channel::Topic(name.clone()), false),
                _ => {}
            }
        }
        if is_there && self.elsewhere.is_some() {
            if left {
                self.tell_elsewhere(topic, subscription.owner.key(), false);
            }
            self.went(topic, is_gone);
        }
        left.then_some(topic)
    }

    // ---- other hubs -------------------------------------------------------------------------

    /// Begins to note what other hubs are to know of this one, and to know of them.
    pub fn share_presence(&mut self) {
        self.elsewhere = Some(Box::default());
    }

    /// What other hubs are to know and were not told yet, in order.
    pub fn take_memberships(&mut self) -> Vec<Membership> {
        let elsewhere = self.elsewhere.as_mut();
        elsewhere.map_or(Vec::new(), |elsewhere| elsewhere.take_memberships())
    }

    /// Everything that other hubs are to know.
    pub fn memberships(&self) -> Vec<Membership> {
        let of_session = |session: &Session<H, M>| {
            let topics = self.topics_of(session.owner.key()).into_iter();
            let told = topics.filter_map(|topic| self.membership(topic, session, true));
            told.collect::<Vec<_>>()
        };
        let sessions = self.sessions.iter();
        sessions
            .flat_map(|(_, session)| of_session(session))
            .collect()
    }

    /// The topics that a session is on.
    pub fn topics_of(&self, session: SessionKey) -> Vec<TopicKey> {
        let Some(session) = self.sessions.get(session as usize) else {
            return Vec::new();
        };
        let all = session.subscriptions.iter();
        let all = all.map(|subscription| self.group(subscription.group).topic);
        let topics: IndexSet<_, RandomState> = all.filter(|&topic| self.counts(topic)).collect();
        topics.into_iter().collect()
    }

    /// Notes what other hubs are to know of a session on a topic.
    pub fn tell_elsewhere(&mut self, topic: TopicKey, session: SessionKey, is_there: bool) {
        let told = self.sessions.get(session as usize);
        let told = told.and_then(|session| self.membership(topic, session, is_there));
        if let (Some(elsewhere), Some(membership)) = (&mut self.elsewhere, told) {
            elsewhere.note(membership);
        }
    }

    fn membership(
        &self,
        topic: TopicKey,
        session: &Session<H, M>,
        is_there: bool,
    ) -> Option<Membership> {
        let identity = session.identity.as_ref();
        let says = || Saying {
            when: identity.map_or(0, |said| said.when),
            said: identity.and_then(|said| said.encoded.clone()),
        };
        Some(Membership {
            topic: self.name_of(topic)?.clone(),
            session: session.owner.id().into(),
            says: is_there.then(says),
        })
    }

    /// A topic is followed while sessions are on it, or watch it.
    fn came(&mut self, topic: TopicKey, is_joined: bool) {
        let watched = self.topics[topic as usize].watched;
        let followed = watched.or_else(|| is_joined.then_some(topic));
        if let (Some(elsewhere), Some(topic)) = (&mut self.elsewhere, followed)
            && elsewhere.came(topic)
        {
            self.note_followed(topic, true);
        }
    }

    fn went(&mut self, topic: TopicKey, is_left: bool) {
        let watched = self.topics[topic as usize].watched;
        let followed = watched.or_else(|| is_left.then_some(topic));
        if let (Some(elsewhere), Some(topic)) = (&mut self.elsewhere, followed)
            && elsewhere.went(topic, &mut self.replaced)
        {
            self.note_followed(topic, false);
        }
    }

    fn note_followed(&mut self, topic: TopicKey, is_followed: bool) {
        let name = self.name_of(topic).cloned();
        if let (Some(interest), Some(name)) = (&mut self.interest, name) {
            interest.note(Channel::Presence(name), is_followed);
        }
    }

    /// Whether a session is on a topic here.
    pub fn is_on(&self, topic: TopicKey, id: &[u8]) -> bool {
        let session = self.session_key(id);
        session.is_some_and(|session| self.on_topic(session, topic).next().is_some())
    }

    /// Who a session on a topic is, if it is there: here, or on another hub.
    pub fn shown(&self, topic: TopicKey, id: &[u8]) -> Option<Member<M>> {
        let session = self.session_key(id);
        let here = session.filter(|&session| self.on_topic(session, topic).next().is_some());
        let here = here.and_then(|session| self.member(session));
        here.map_or_else(
            || self.elsewhere.as_ref()?.guest(topic, id),
            |member| Some(self.known(topic, member)),
        )
    }

    /// A session that is here, with what it said last on any hub.
    fn known(&self, topic: TopicKey, member: Member<M>) -> Member<M> {
        let guest = self.elsewhere.as_ref();
        let guest = guest.and_then(|e| e.guest(topic, member.owner.id()));
        let identity = match guest {
            Some(guest) => latest(member.identity, &guest.identity),
            None => member.identity,
        };
        Member {
            owner: member.owner,
            identity,
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

    /// Enters that no subscription is busy, that no burst of losses goes on, and that nobody is to be
    /// told of a change; `told` gets what was to be.
    pub fn settle(&mut self, told: &mut Vec<Arc<Envelope<M>>>) {
        for (_, group) in &mut self.groups {
            let notices = group.notices.take().into_iter();
            let waiting = notices.flat_map(|notices| notices.into_envelopes());
            told.extend(waiting);
            group.share.end_burst();
            group.roster.iter().for_each(|s| s.settle());
        }
    }

    /// Forgets what a session without subscriptions said of itself: a worker may still be busy with
    /// it.
    pub fn forget_identity(&mut self, session: SessionKey) {
        let session = self.sessions.get_mut(session as usize);
        if let Some(session) = session.filter(|s| s.subscriptions.is_empty()) {
            self.replaced.extend(session.identity.take());
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
        self.release_topic(members.topic);
        Some(members.lane)
    }

    /// Forgets a topic that nobody is on and nobody watches.
    fn release_topic(&mut self, key: TopicKey) {
        let topic = &mut self.topics[key as usize];
        if !topic.groups.is_empty() || topic.watch.is_some() {
            return;
        }
        let Some(name) = topic.name.take() else {
            return;
        };
        let watched = topic.watched;
        self.busiest.forget(key);
        self.topic_keys.remove(&name, key);
        self.topics.remove(key as usize);
        if let Some(watched) = watched {
            self.topics[watched as usize].watch = None;
            self.release_topic(watched);
        }
    }

    // ---- who is where -----------------------------------------------------------------------

    /// The names of the topics that sessions are on.
    pub fn topics(&self) -> impl Iterator<Item = &Name> {
        let away = |topic| self.elsewhere.as_ref().map_or(0, |e| e.count_away(topic));
        let topics = self.topics.iter();
        let joined = topics.filter(move |(at, topic)| topic.sessions > 0 || away(key(*at)) > 0);
        joined.filter_map(|(_, topic)| topic.name.as_ref())
    }

    /// How many sessions are on a topic.
    pub fn count_on(&self, topic: &[u8]) -> usize {
        let Some(topic) = self.topic_key(Some(topic)) else {
            return 0;
        };
        let away = self.elsewhere.as_ref().map_or(0, |e| e.count_away(topic));
        self.topics[topic as usize].sessions as usize + away
    }

    /// The sessions that are on a topic.
    pub fn members(&self, topic: &[u8]) -> Vec<Member<M>> {
        let Some(topic) = self.topic_key(Some(topic)) else {
            return Vec::new();
        };
        let groups = self.groups_of(topic).iter();
        let all = groups.flat_map(|&group| self.group(group).roster.iter());
        let mut seen = IndexSet::<_, RandomState>::default();
        seen.extend(all.map(|subscription| subscription.owner.key()));
        let members = seen.into_iter().filter_map(|session| self.member(session));
        let Some(elsewhere) = &self.elsewhere else {
            return members.collect();
        };
        let members = members.map(|member| self.known(topic, member));
        members.chain(elsewhere.away(topic)).collect()
    }

    /// The sessions that have subscriptions, and those of other hubs on topics that are followed.
    pub fn everybody(&self) -> Vec<Member<M>> {
        let sessions = self.sessions.iter();
        let subscribed = sessions.filter(|(_, session)| !session.subscriptions.is_empty());
        let members = subscribed.filter_map(|(index, _)| self.member(key(index)));
        let Some(elsewhere) = &self.elsewhere else {
            return members.collect();
        };
        let mut all = IndexMap::<_, _, RandomState>::default();
        for Member { owner, identity } in members.chain(elsewhere.everybody()) {
            let known = all.entry(owner).or_insert(None);
            *known = latest(known.take(), &identity);
        }
        let members = all.into_iter();
        members
            .map(|(owner, identity)| Member { owner, identity })
            .collect()
    }

    /// A session that has subscriptions.
    pub fn subscribed(&mut self, id: &[u8]) -> Option<(SessionKey, &mut Session<H, M>)> {
        let key = self.session_key(id)?;
        let session = self.sessions.get_mut(key as usize)?;
        (!session.subscriptions.is_empty()).then_some((key, session))
    }

    /// A session that exists, and what it says of itself.
    pub fn member(&self, session: SessionKey) -> Option<Member<M>> {
        let session = self.sessions.get(session as usize)?;
        Some(Member {
            owner: session.owner.clone(),
            identity: session.identity.clone(),
        })
    }

    /// What sessions say of themselves.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Said<M>>> {
        let sessions = self.sessions.iter();
        let here = sessions.filter_map(|(_, session)| session.identity.as_ref());
        let elsewhere = self.elsewhere.iter().flat_map(|e| e.identities());
        here.chain(elsewhere)
    }

    /// The groups of those who watch a topic.
    pub fn watchers(&self, topic: TopicKey) -> &[GroupKey] {
        let watch = self.topics[topic as usize].watch;
        watch.map_or(&[], |watch| &self.topics[watch as usize].groups)
    }

    /// The topics that a session is on and somebody watches.
    pub fn watched_topics(&self, session: SessionKey) -> Vec<TopicKey> {
        let mut topics = self.topics_of(session);
        topics.retain(|&topic| self.topics[topic as usize].watch.is_some());
        topics
    }

    /// Whether a subscription tells who comes and goes.
    pub fn is_watch(&self, subscription: &Subscription<H>) -> bool {
        let topic = self.group(subscription.group).topic;
        self.topics[topic as usize].watched.is_some()
    }

    /// What waits to tell a group of those who watch who comes and goes.
    pub fn notices(&mut self, group: GroupKey) -> &mut Notices<M> {
        self.groups[group as usize].notices.get_or_insert_default()
    }

    /// Lets a notice take in the next one, if both are for the same since a subscription has ended.
    pub fn reunite_notices(&mut self, left: &Subscription<H>) -> Option<Arc<Envelope<M>>> {
        let group = &mut self.groups[left.group as usize];
        let roster = &group.roster;
        let same = |before, after| roster.older_than(before) == roster.older_than(after);
        let notices = group.notices.as_mut()?;
        notices.reunite(left.serial, same, &mut self.replaced)
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

    /// A topic that exists, or that of messages sent to all.
    pub fn topic_key(&self, topic: Option<&[u8]>) -> Option<TopicKey> {
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
            identity: None,
        });
        self.session_keys.insert(id, session, id_of(&self.sessions));
        session
    }

    fn topic_or_new(&mut self, topic: Option<&[u8]>) -> TopicKey {
        let Some(name) = topic else { return EVERYTHING };
        if let Some(topic) = self.topic_key(topic) {
            return topic;
        }
        let topic = key(self.topics.insert(Topic::new(Some(name.into()))));
        self.topic_keys.insert(name, topic, name_of(&self.topics));
        if let Some(name) = watched_name(name) {
            let watched = self.topic_or_new(Some(name));
            self.topics[watched as usize].watch = Some(topic);
            self.topics[topic as usize].watched = Some(watched);
        }
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
            notices: None,
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
