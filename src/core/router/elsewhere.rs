//! Who is on a topic on other hubs, for those who watch and ask here.

use triomphe::Arc;

use super::{Router, SessionKey};
use crate::core::TopicKey;
use crate::core::elsewhere::{Host, Membership};
use crate::core::presence::{Identity, Member, Said, latest};

/// What is told of a session on another hub.
pub struct Told<M> {
    /// By which connection it is there, or was.
    pub host: Host,
    /// Its id.
    pub session: Vec<u8>,
    /// What it says of itself; the outer `None` if it is not there.
    pub says: Option<Identity<M>>,
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// Begins to note what other hubs are to know, and to know of them.
    pub fn share_presence(&mut self) {
        self.registry.share_presence();
    }

    /// What other hubs are to know and were not told yet, in order.
    pub fn take_memberships(&mut self) -> Vec<Membership> {
        self.registry.take_memberships()
    }

    /// The key of a topic that is followed.
    fn followed(&self, topic: &[u8]) -> Option<TopicKey> {
        let topic = self.registry.topic_key(Some(topic))?;
        let elsewhere = self.registry.elsewhere.as_ref()?;
        elsewhere.follows(topic).then_some(topic)
    }

    /// Begins to count who is on a topic elsewhere: all are told again, and then comes
    /// [`Self::end_count`].
    pub fn begin_count(&mut self, topic: &[u8]) {
        let topic = self.followed(topic);
        if let (Some(topic), Some(elsewhere)) = (topic, &mut self.registry.elsewhere) {
            elsewhere.begin_count(topic);
        }
    }

    /// Takes it that those who were not told since [`Self::begin_count`] have left.
    pub fn end_count(&mut self, topic: &[u8]) {
        let topic = self.followed(topic);
        if let (Some(topic), Some(elsewhere)) = (topic, &self.registry.elsewhere) {
            for (host, owner) in elsewhere.uncounted(topic) {
                self.told(topic, host, owner.id(), None);
            }
        }
    }

    /// Takes what is told of sessions on a topic elsewhere. Without a first count it has no meaning,
    /// and is given back to be dropped.
    pub fn take_told(&mut self, topic: &[u8], told: Vec<Told<M>>) -> Vec<Told<M>> {
        let topic = self.followed(topic);
        let elsewhere = self.registry.elsewhere.as_ref();
        match topic.filter(|&topic| elsewhere.is_some_and(|e| e.is_known(topic))) {
            None => told,
            Some(topic) => {
                for Told {
                    host,
                    session,
                    says,
                } in told
                {
                    self.told(topic, host, &session, says);
                }
                Vec::new()
            }
        }
    }

    /// The topics on which sessions of a connection may be.
    pub fn followed_topics(&self) -> Vec<TopicKey> {
        let elsewhere = self.registry.elsewhere.iter();
        elsewhere.flat_map(|e| e.followed()).collect()
    }

    /// Takes it that nobody is on a topic by that connection any more.
    pub fn lose_host(&mut self, topic: TopicKey, host: Host) {
        if let Some(elsewhere) = &self.registry.elsewhere {
            for (host, owner) in elsewhere.guests_of(topic, host) {
                self.told(topic, host, owner.id(), None);
            }
        }
    }

    fn told(&mut self, topic: TopicKey, host: Host, id: &[u8], says: Option<Identity<M>>) {
        let before = self.registry.shown(topic, id);
        let is_here = self.registry.is_on(topic, id);
        let Some(elsewhere) = &mut self.registry.elsewhere else {
            return;
        };
        let replaced = match says {
            Some(identity) => elsewhere.put(topic, id, host, identity, is_here),
            None => elsewhere.remove(topic, id, host),
        };
        let after = self.registry.shown(topic, id);
        self.tell_change(topic, before.as_ref(), after.as_ref());
        self.let_go([before, after]);
        self.registry.replaced.extend(replaced);
    }

    /// A session joined a topic here.
    pub(super) fn joined_here(&mut self, topic: TopicKey, session: SessionKey) {
        let Some(member) = self.registry.member(session) else {
            return;
        };
        let before = self.enter_here(topic, member.owner.id(), true);
        let after = self.registry.shown(topic, member.owner.id());
        self.tell_change(topic, before.as_ref(), after.as_ref());
        self.let_go([before, after, Some(member)]);
    }

    /// A session left a topic here.
    pub(super) fn left_here(&mut self, topic: TopicKey, session: SessionKey) {
        let Some(member) = self.registry.member(session) else {
            return;
        };
        let after = self.enter_here(topic, member.owner.id(), false);
        let said = match &after {
            Some(after) => latest(member.identity.clone(), &after.identity),
            None => member.identity.clone(),
        };
        let before = Member {
            owner: member.owner.clone(),
            identity: said,
        };
        self.tell_change(topic, Some(&before), after.as_ref());
        self.let_go([Some(before), after, Some(member)]);
    }

    /// Enters whether a session is on a topic here; returns who it is elsewhere.
    fn enter_here(&mut self, topic: TopicKey, id: &[u8], is_here: bool) -> Option<Member<M>> {
        let elsewhere = self.registry.elsewhere.as_mut()?;
        elsewhere.is_here(topic, id, is_here);
        elsewhere.guest(topic, id)
    }

    /// A session that is here says something else of itself than before.
    pub(super) fn identify_everywhere(
        &mut self,
        session: SessionKey,
        id: &[u8],
        said: Option<&Arc<Said<M>>>,
    ) {
        for topic in self.registry.topics_of(session) {
            self.registry.tell_elsewhere(topic, session, true);
            let Some(after) = self.registry.shown(topic, id) else {
                continue;
            };
            let guest = self.registry.elsewhere.as_ref();
            let guest = guest.and_then(|elsewhere| elsewhere.guest(topic, id));
            let elsewhere = guest.as_ref().and_then(|guest| guest.identity.clone());
            let before = Member {
                owner: after.owner.clone(),
                identity: latest(said.cloned(), &elsewhere),
            };
            self.tell_change(topic, Some(&before), Some(&after));
            self.let_go([guest, Some(before), Some(after)]);
            self.registry.replaced.extend(elsewhere);
        }
    }

    /// What sessions said may be somebody's object, and these its last references.
    fn let_go<const N: usize>(&mut self, members: [Option<Member<M>>; N]) {
        let identities = members.into_iter().flatten().filter_map(|m| m.identity);
        self.registry.replaced.extend(identities);
    }
}
