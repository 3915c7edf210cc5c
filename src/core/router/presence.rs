//! Who is on a topic, and telling those who watch.

use smallvec::SmallVec;
use triomphe::Arc;

use super::{Audience, Envelope, LaneKey, Listener, Router, SessionKey, Subscription};
use crate::core::presence::{Member, Presence, Replaced, Said};
use crate::core::{GroupKey, Name, TopicKey};

/// Makes a message of changes.
pub type MakeNotice<M> = fn(Arc<Presence<M>>) -> M;
/// The changes that a message was made of, if it was.
pub type FindPresence<M> = fn(&M) -> Option<&Arc<Presence<M>>>;

/// What is left to do after a change of subscriptions, once no lock is held.
pub struct Aftermath<M, D> {
    /// The deliverers to wake.
    pub wake: SmallVec<[D; 2]>,
    /// What sessions said of themselves, to be dropped.
    pub identities: Vec<Arc<Said<M>>>,
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// Lets sessions be watched; `make` makes a message of what changes, and `find` finds that in
    /// the message again.
    pub fn make_notices(&mut self, make: MakeNotice<M>, find: FindPresence<M>) {
        self.make_notice = Some(make);
        self.find_presence = find;
    }

    /// What is left to do, if anything is.
    #[inline]
    pub fn aftermath(&mut self) -> Option<Aftermath<M, D>> {
        if self.wake.is_empty() && self.registry.replaced.is_empty() {
            return None;
        }
        Some(Aftermath {
            wake: std::mem::take(&mut self.wake),
            identities: std::mem::take(&mut self.registry.replaced),
        })
    }

    /// Subscribes a handler to the coming and going of sessions on a topic: first it gets those
    /// who are there. The deliverer that is returned must be woken.
    pub fn subscribe_presence(
        &mut self,
        session: &[u8],
        topic: &[u8],
        lane: LaneKey,
        listener: Listener<H>,
    ) -> (Arc<Subscription<H>>, Option<D>) {
        let subscription = self.subscribe(session, Some(&watch_name(topic)), lane, listener);
        let presence = Presence::first(topic.into(), self.registry.members(topic));
        let wake = self.make_notice.and_then(|make| {
            let envelope = Arc::new(Envelope {
                message: make(Arc::new(presence)),
                audience: Audience::Everyone,
                sequence: subscription.serial,
                sent_at: 0,
            });
            self.begin_with(&subscription, [envelope].into())
        });
        (subscription, wake)
    }

    /// Enters what a session says of itself, as long as it has subscriptions.
    pub fn identify(&mut self, session: &[u8], identity: Arc<Said<M>>) {
        let Some((key, owner)) = self.registry.subscribed(session) else {
            self.registry.replaced.push(identity);
            return;
        };
        let said = owner.identity.replace(identity);
        if self.registry.elsewhere.is_some() {
            self.identify_everywhere(key, session, said.as_ref());
        } else {
            for topic in self.registry.watched_topics(key) {
                self.tell_joined(topic, key, false);
            }
        }
        self.registry.replaced.extend(said);
    }

    /// Enters what a session says of itself, unless it has said something already.
    pub fn introduce(&mut self, subscription: &Subscription<H>, identity: Arc<Said<M>>) {
        let owner = self.registry.session(subscription.owner.key());
        if owner.is_some_and(|owner| owner.identity.is_none()) {
            self.identify(subscription.owner.id(), identity);
        } else {
            self.registry.replaced.push(identity);
        }
    }

    /// Tells those who watch a topic that a session is there.
    pub(super) fn tell_joined(&mut self, topic: TopicKey, session: SessionKey, is_new: bool) {
        if self.registry.elsewhere.is_some() {
            self.joined_here(topic, session);
        } else if !self.registry.watchers(topic).is_empty()
            && let Some(member) = self.registry.member(session)
        {
            self.tell(topic, &member, |presence, member, replaced| {
                presence.join(member, is_new, replaced);
            });
        }
    }

    /// Tells those who watch a topic that a session has left.
    pub(super) fn tell_left(&mut self, topic: TopicKey, session: SessionKey) {
        if self.registry.elsewhere.is_some() {
            self.left_here(topic, session);
        } else if !self.registry.watchers(topic).is_empty()
            && let Some(member) = self.registry.member(session)
        {
            self.tell(topic, &member, Presence::leave);
        }
    }

    /// Tells those who watch a topic what a change came to.
    pub(super) fn tell_change(
        &mut self,
        topic: TopicKey,
        before: Option<&Member<M>>,
        after: Option<&Member<M>>,
    ) {
        match (before, after) {
            (Some(before), None) => self.tell(topic, before, Presence::leave),
            (None, Some(after)) => self.tell(topic, after, |p, m, r| p.join(m, true, r)),
            (Some(before), Some(after)) if !before.is_same(after) => {
                self.tell(topic, after, |p, m, r| p.join(m, false, r));
            }
            _ => {}
        }
    }

    fn tell(
        &mut self,
        topic: TopicKey,
        member: &Member<M>,
        enter: impl Fn(&Presence<M>, Member<M>, &mut Replaced<M>),
    ) {
        let Some(make) = self.make_notice else { return };
        for index in 0..self.registry.watchers(topic).len() {
            let group = self.registry.watchers(topic)[index];
            let open = self.registry.group(group).open_notice().cloned();
            let presence = open.unwrap_or_else(|| self.log_notice(topic, group, make));
            enter(&presence, member.clone(), &mut self.registry.replaced);
        }
    }

    /// Enters a notice, still without changes, into the log of those who watch.
    fn log_notice(
        &mut self,
        topic: TopicKey,
        group: GroupKey,
        make: MakeNotice<M>,
    ) -> Arc<Presence<M>> {
        let name = self.registry.name_of(topic).cloned();
        let presence = Arc::new(Presence::new(name.unwrap_or_else(|| Name::from(&[][..]))));
        let envelope = self.envelope(Audience::Everyone, make(presence.clone()), 0);
        let notices = self.registry.notices(group);
        let is_first = notices.push(envelope.clone(), presence.clone());
        let members = self.registry.group(group);
        let lane = &mut self.lanes[members.lane as usize];
        if is_first {
            lane.log.push(group, envelope, &members.share, u32::MAX);
        }
        if lane.hire() {
            self.wake.push(lane.deliverer.clone());
        }
        presence
    }
}

/// The name under which the watchers of a topic are found: bytes that are no topic's name.
pub fn watch_name(topic: &[u8]) -> Vec<u8> {
    [&[WATCH], topic].concat()
}

/// The topic whose watchers are found under a name.
pub fn watched_name(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(&[WATCH])
}

const WATCH: u8 = 0xfe;
