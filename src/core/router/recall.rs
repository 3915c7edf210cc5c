//! What was sent before this router heard of it: others remember it, and new subscriptions wait until
//! they have told.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use foldhash::fast::RandomState;
use smallvec::SmallVec;
use triomphe::Arc;

use super::{Audience, Channel, Router, Subscription, Trash};
use crate::core::Name;
use crate::core::history::{Past, Retention};

/// A subscription, and how many messages it wants first.
type Wants<H> = (Arc<Subscription<H>>, usize);

/// Who waits, and where nobody has to. Whoever waits is in the tables: a reference that is let go of here
/// is never the last one.
pub(super) struct Recall<H> {
    /// Where others have told what was sent before: from then on, nothing is missing.
    complete: Complete,
    /// Those who wait, in order.
    waiting: HashMap<Channel, Vec<Wants<H>>, RandomState>,
}

/// Channels, found by their names.
#[derive(Default)]
struct Complete {
    all: bool,
    topics: HashSet<Name, RandomState>,
    sessions: HashSet<Name, RandomState>,
}

impl Complete {
    fn set(&mut self, channel: &Channel, is_complete: bool) {
        let (names, name) = match channel {
            Channel::All => return self.all = is_complete,
            Channel::Topic(name) => (&mut self.topics, name),
            Channel::Session(name) => (&mut self.sessions, name),
            Channel::Presence(_) => return,
        };
        if is_complete {
            names.insert(name.clone());
        } else {
            names.remove(name);
        }
    }
}

impl<H> Default for Recall<H> {
    fn default() -> Self {
        Self {
            complete: Complete::default(),
            waiting: HashMap::default(),
        }
    }
}

impl<H> Recall<H> {
    /// Whether a subscription has to wait; then it is entered for that.
    pub fn holds_back(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        topic: Option<&[u8]>,
        count: usize,
    ) -> bool {
        let waits = !self.is_complete(topic, Audience::Everyone);
        if waits {
            let waiting = self.waiting.entry(channel(topic)).or_default();
            waiting.push((subscription.clone(), count));
        }
        waits
    }

    /// Whether others have told what was sent before a message to these. Until then, what comes is of an
    /// earlier time, when others listened.
    pub fn is_complete(&self, topic: Option<&[u8]>, audience: Audience<&[u8]>) -> bool {
        match (topic, audience) {
            (_, Audience::Only(session)) => self.complete.sessions.contains(session),
            (Some(topic), _) => self.complete.topics.contains(topic),
            (None, _) => self.complete.all,
        }
    }

    /// Enters that the first subscriber came, or the last one went: then what is sent is missed.
    pub fn note(&mut self, channel: &Channel) {
        self.complete.set(channel, false);
    }

    /// Enters that a subscription to a topic, or to what is sent to all, has ended.
    pub fn forget(&mut self, subscription: &Arc<Subscription<H>>, topic: Option<&[u8]>) {
        if self.waiting.is_empty() {
            return;
        }
        let channel = channel(topic);
        if let Some(waiting) = self.waiting.get_mut(&channel) {
            waiting.retain(|(waits, _)| !Arc::ptr_eq(waits, subscription));
            if waiting.is_empty() {
                self.waiting.remove(&channel);
            }
        }
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.complete = Complete::default();
        self.waiting.clear();
    }
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// How many messages are kept of what is told on a channel.
    pub fn kept(&self, channel: &Channel) -> usize {
        self.retention(channel)
            .map_or(0, |retention| retention.messages)
    }

    fn retention(&self, channel: &Channel) -> Option<Retention> {
        let history = self.history.as_ref()?;
        match channel {
            Channel::All => history.retention(None),
            Channel::Topic(name) => history.retention(Some(name)),
            // What is said to one session is not kept.
            Channel::Session(_) | Channel::Presence(_) => None,
        }
    }

    /// Keeps what others remember of a channel, instead of what is kept of it: from now on, nothing is
    /// missing between that and what comes. Those who waited for it get their messages; the deliverers
    /// that are returned must be woken.
    pub fn recall(
        &mut self,
        channel: &Channel,
        past: Vec<Past<M>>,
        trash: &mut Trash<H, M, D>,
    ) -> SmallVec<[D; 2]> {
        self.remember(channel, past, trash);
        let Some(recall) = &mut self.recall else {
            return SmallVec::new();
        };
        recall.complete.set(channel, true);
        let waiting = recall.waiting.remove(channel).unwrap_or_default();
        let wake = |(subscription, count)| self.replay(&subscription, topic(channel), count);
        waiting.into_iter().filter_map(wake).collect()
    }

    fn remember(&mut self, channel: &Channel, past: Vec<Past<M>>, trash: &mut Trash<H, M, D>) {
        let rule = self.retention(channel);
        match self.history.as_deref_mut().zip(rule) {
            Some((history, rule)) => {
                let trash = &mut trash.envelopes;
                history.restore(topic(channel), rule, past, Instant::now(), trash);
            }
            None => trash
                .envelopes
                .extend(past.into_iter().map(|past| past.envelope)),
        }
    }
}

fn channel(topic: Option<&[u8]>) -> Channel {
    topic.map_or(Channel::All, |name| Channel::Topic(name.into()))
}

fn topic(channel: &Channel) -> Option<&[u8]> {
    match channel {
        Channel::Topic(name) => Some(name),
        Channel::All | Channel::Session(_) | Channel::Presence(_) => None,
    }
}
