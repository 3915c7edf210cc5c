//! What the naive model says of history: lists of messages, and of topics in the order of their use.

use std::collections::BTreeSet;

use _core::core::fanout::Audience;

use crate::model::{Entry, Id, Message, Model};
use crate::{KEPT, LIMIT};

/// A message that is kept.
pub struct Kept {
    message: Message,
    except: Option<u8>,
}

impl Model {
    pub fn keep_all(&mut self, messages: usize) {
        self.is_news = true;
        self.general = if messages > 0 { messages } else { self.general };
    }

    pub fn keep(&mut self, topic: u8, messages: usize) {
        self.is_news = true;
        if messages == 0 && self.general == 0 {
            self.rules.remove(&topic);
        } else {
            self.rules.insert(topic, messages);
        }
        let log = self.kept.entry(topic).or_default();
        log.drain(..log.len().saturating_sub(messages));
    }

    /// How many messages of a topic are kept.
    pub fn keeps(&self, topic: u8) -> usize {
        self.rules.get(&topic).copied().unwrap_or(self.general)
    }

    /// The messages that are kept.
    pub fn kept(&self) -> BTreeSet<Message> {
        let all = self.kept.values().flatten();
        all.map(|kept| kept.message).collect()
    }

    fn use_topic(&mut self, topic: u8) {
        self.used.retain(|other| *other != topic);
        self.used.push(topic);
    }

    /// Keeps what is being sent, if messages of its topic are kept.
    pub fn keep_sent(&mut self, entry: &Entry) -> bool {
        let except = match entry.audience {
            Audience::Only(_) => return false,
            Audience::Others(session) => Some(session),
            Audience::Everyone => None,
        };
        let (topic, messages) = (entry.topic, self.keeps(entry.topic));
        if messages == 0 {
            return false;
        }
        self.is_news = true;
        let log = self.kept.entry(topic).or_default();
        log.push(Kept {
            message: entry.message,
            except,
        });
        log.drain(..log.len().saturating_sub(messages));
        self.use_topic(topic);
        while self.kept().len() > KEPT {
            let has_some = |topic: &&u8| !self.kept[*topic].is_empty();
            let least = self.used.iter().find(has_some).copied();
            let log = least.and_then(|topic| self.kept.get_mut(&topic));
            let log = log.expect("too much is kept");
            log.drain(..if least == Some(topic) { 1 } else { log.len() });
        }
        true
    }

    /// Lets a new subscription have the last messages that are kept; tells whether its lane is to be
    /// woken.
    pub fn replay(&mut self, id: Id, count: usize) -> bool {
        let (session, topic) = (self.find(id).session, self.find(id).topic);
        if self.used.contains(&topic) {
            self.use_topic(topic);
        }
        let kept = self.kept.get(&topic).into_iter().flatten();
        let may_get = kept.filter(|kept| kept.except != Some(session));
        let mut messages: Vec<_> = may_get.map(|kept| kept.message).collect();
        messages.drain(..messages.len().saturating_sub(count.min(LIMIT as usize)));
        self.begin_with(id, &messages)
    }

    /// Lets a new subscription have these messages before all others.
    pub fn begin_with(&mut self, id: Id, messages: &[Message]) -> bool {
        let s = self.find(id);
        let (topic, lane) = (s.topic, s.lane);
        s.sent.extend(messages);
        for &message in messages {
            self.lane(lane).replays.push_back(Entry {
                message,
                topic,
                audience: Audience::Everyone,
                one: Some(id),
                slot: message,
            });
        }
        !messages.is_empty() && self.hire(lane)
    }

    /// A hub that has finished keeps nothing.
    pub fn end_history(&mut self) {
        self.kept.clear();
        self.used.clear();
    }
}
