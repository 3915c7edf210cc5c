//! The last messages of topics, for those who come later.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use lru::LruCache;
use triomphe::Arc;

use super::fanout::{Audience, Envelope};

/// What stands for messages sent to all: bytes that are no topic's name.
const TO_ALL: &[u8] = &[0xff];

/// How much of a topic is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// So many messages.
    pub messages: usize,
    /// None that is older than that.
    pub age: Option<Duration>,
}

impl Retention {
    const NOTHING: Self = Self {
        messages: 0,
        age: None,
    };
}

/// A table with room for so many rules is left as it is.
const FEW_RULES: usize = 64;

/// A message that is kept.
struct Kept<M> {
    envelope: Arc<Envelope<M>>,
    /// The id of the session that did not get it: the session itself may be gone.
    except: Option<Box<[u8]>>,
    sent: Instant,
}

/// A message that was sent before anything was kept here.
pub struct Past<M> {
    /// The message.
    pub envelope: Arc<Envelope<M>>,
    /// The id of the session that did not get it.
    pub except: Option<Box<[u8]>>,
    /// The time since then.
    pub age: Duration,
}

impl<M> Past<M> {
    /// A message that was sent so long ago, except to the session of the id `except`.
    pub fn new(message: M, except: Option<&[u8]>, age: Duration) -> Self {
        let envelope = Envelope {
            message,
            audience: Audience::Everyone,
            sequence: 0,
            sent_at: 0,
        };
        Self {
            envelope: Arc::new(envelope),
            except: except.map(Into::into),
            age,
        }
    }
}

type Log<M> = VecDeque<Kept<M>>;

/// The messages that a hub keeps.
pub struct History<M> {
    /// For topics without a rule of their own.
    general: Option<Retention>,
    rules: HashMap<Vec<u8>, Retention, RandomState>,
    logs: LruCache<Vec<u8>, Log<M>, RandomState>,
    /// Messages in all logs.
    len: usize,
    limit: usize,
}

impl<M> History<M> {
    /// Nothing yet, and never more than `limit` messages of all topics together.
    pub fn new(limit: usize) -> Self {
        Self {
            general: None,
            rules: HashMap::default(),
            logs: LruCache::unbounded_with_hasher(RandomState::default()),
            len: 0,
            limit,
        }
    }

    /// How many messages are kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many rules of topics there is memory for.
    pub fn room_for_rules(&self) -> usize {
        self.rules.capacity()
    }

    /// How much of a topic, or of what is sent to all, is kept: nothing, if there is no rule.
    pub fn retention(&self, topic: Option<&[u8]>) -> Option<Retention> {
        let own = self.rules.get(topic.unwrap_or(TO_ALL)).copied();
        own.or(self.general).filter(|rule| rule.messages > 0)
    }

    /// Enters how much is kept of every topic without a rule of its own.
    pub fn keep_all(&mut self, retention: Retention) {
        self.general = Some(retention);
    }

    /// Enters how much of a topic is kept from now on: `None` for as much as of every topic without a
    /// rule of its own. Nothing is left here of a rule that changes nothing.
    pub fn keep(
        &mut self,
        topic: Option<&[u8]>,
        retention: Option<Retention>,
        now: Instant,
        trash: &mut Vec<Arc<Envelope<M>>>,
    ) {
        let name = topic.unwrap_or(TO_ALL);
        let changes = |rule: &Retention| rule.messages > 0 || self.general.is_some();
        if let Some(rule) = retention.filter(changes) {
            self.rules.insert(name.into(), rule);
        } else {
            self.forget_rule(name);
        }
        let retention = retention.or(self.general).unwrap_or(Retention::NOTHING);
        if let Some(log) = self.logs.peek_mut(name) {
            self.len -= trim(log, retention, now, trash);
            if log.is_empty() {
                self.logs.pop(name);
            }
        }
    }

    fn forget_rule(&mut self, name: &[u8]) {
        self.rules.remove(name);
        // There may have been very many, for topics that come and go.
        if self.rules.capacity() > FEW_RULES && self.rules.len() < self.rules.capacity() / 4 {
            self.rules.shrink_to(self.rules.len() * 2);
        }
    }

    /// Keeps a message that was just sent, except to the session of the id `except`, and so much before
    /// it as `retention`, the topic's, says.
    pub fn record(
        &mut self,
        topic: Option<&[u8]>,
        retention: Retention,
        envelope: &Arc<Envelope<M>>,
        except: Option<&[u8]>,
        now: Instant,
        trash: &mut Vec<Arc<Envelope<M>>>,
    ) {
        let name = topic.unwrap_or(TO_ALL);
        let log = self.logs.get_or_insert_mut_ref(name, VecDeque::new);
        log.push_back(Kept {
            envelope: envelope.clone(),
            except: except.map(Into::into),
            sent: now,
        });
        self.len += 1;
        self.len -= trim(log, retention, now, trash);
        self.make_room(now, trash);
    }

    /// Keeps these messages, in order, instead of what is kept of a topic.
    pub fn restore(
        &mut self,
        topic: Option<&[u8]>,
        retention: Retention,
        past: Vec<Past<M>>,
        now: Instant,
        trash: &mut Vec<Arc<Envelope<M>>>,
    ) {
        let name = topic.unwrap_or(TO_ALL);
        let log = past.into_iter().map(|past| Kept {
            envelope: past.envelope,
            except: past.except,
            sent: now.checked_sub(past.age).unwrap_or(now),
        });
        let mut log: Log<M> = log.collect();
        trim(&mut log, retention, now, trash);
        let before = self.logs.pop(name).unwrap_or_default();
        self.len -= before.len();
        trash.extend(before.into_iter().map(|kept| kept.envelope));
        if !log.is_empty() {
            self.len += log.len();
            self.logs.put(name.into(), log);
            self.make_room(now, trash);
        }
    }

    /// The last messages of a topic that the session of that id may get, the oldest first.
    pub fn last(
        &mut self,
        topic: Option<&[u8]>,
        session: &[u8],
        count: usize,
        now: Instant,
    ) -> VecDeque<Arc<Envelope<M>>> {
        let age = self.retention(topic).and_then(|rule| rule.age);
        let log = self.logs.get(topic.unwrap_or(TO_ALL));
        let newest_first = log.into_iter().flatten().rev();
        let mut found = VecDeque::new();
        for kept in newest_first.take_while(|kept| !kept.is_older_than(age, now)) {
            if found.len() >= count {
                break;
            }
            if kept.except.as_deref() != Some(session) {
                found.push_front(kept.envelope.clone());
            }
        }
        found
    }

    /// Lets go of all messages; the rules stay.
    pub fn clear(&mut self, trash: &mut Vec<Arc<Envelope<M>>>) {
        while let Some((_, log)) = self.logs.pop_lru() {
            trash.extend(log.into_iter().map(|kept| kept.envelope));
        }
        self.len = 0;
    }

    /// The messages that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Envelope<M>>> {
        let logs = self.logs.iter().flat_map(|(_, log)| log);
        logs.map(|kept| &kept.envelope)
    }

    /// Lets go of the least recently used topics that are beyond the limit, and of the least
    /// recently used one if all of it is too old.
    fn make_room(&mut self, now: Instant, trash: &mut Vec<Arc<Envelope<M>>>) {
        if self.logs.len() > 1 && self.is_outdated(now) {
            self.pop_topic(trash);
        }
        while self.len > self.limit && self.logs.len() > 1 {
            self.pop_topic(trash);
        }
        if let Some((_, log)) = self.logs.iter_mut().next() {
            while self.len > self.limit
                && let Some(kept) = log.pop_front()
            {
                trash.push(kept.envelope);
                self.len -= 1;
            }
        }
    }

    fn pop_topic(&mut self, trash: &mut Vec<Arc<Envelope<M>>>) {
        if let Some((_, log)) = self.logs.pop_lru() {
            self.len -= log.len();
            trash.extend(log.into_iter().map(|kept| kept.envelope));
        }
    }

    fn is_outdated(&self, now: Instant) -> bool {
        let Some((name, log)) = self.logs.peek_lru() else {
            return false;
        };
        let rule = self.rules.get(name).or(self.general.as_ref());
        let age = rule.and_then(|rule| rule.age);
        log.back().is_none_or(|kept| kept.is_older_than(age, now))
    }
}

impl<M> Kept<M> {
    fn is_older_than(&self, age: Option<Duration>, now: Instant) -> bool {
        age.is_some_and(|age| now.saturating_duration_since(self.sent) > age)
    }
}

/// Takes out what is too old or too much; returns how many messages that were.
fn trim<M>(
    log: &mut Log<M>,
    retention: Retention,
    now: Instant,
    trash: &mut Vec<Arc<Envelope<M>>>,
) -> usize {
    let before = trash.len();
    while let Some(oldest) = log.front()
        && (log.len() > retention.messages || oldest.is_older_than(retention.age, now))
    {
        trash.extend(log.pop_front().map(|kept| kept.envelope));
    }
    trash.len() - before
}
