//! What is to be published: in order, in batches, and no more than it may hold.
//!
//! On each channel one batch is under way at a time. What is sent meanwhile makes the next one, so
//! batches grow with the load; and a batch that has to be tried again never comes after a later one.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::RandomState;
use triomphe::Arc;

use super::Channel;
use super::wire::{self, Entry, Message, Publisher};

/// A batch has no more messages, nor more bytes unless it is a single message.
const MOST: usize = 512;
const LARGEST: usize = 256 * 1024;

/// How much may wait to be published.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

/// What is published at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where.
    pub channel: Channel,
    /// The number of its last message: a batch that is tried again has the same.
    pub sequence: u64,
    /// The entry.
    pub entry: Arc<[u8]>,
    messages: usize,
    bytes: usize,
}

struct Waiting {
    sequence: u64,
    except: Option<Box<[u8]>>,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    under_way: Option<Batch>,
    /// Its place among those that are ready, if it is.
    place: Option<i64>,
}

/// Where a channel comes among those that are ready.
enum Place {
    First,
    Last,
}

/// What one node has to publish.
pub struct Outbox {
    publisher: Publisher,
    limits: Limits,
    sequence: u64,
    messages: usize,
    bytes: usize,
    queues: HashMap<Channel, Queue, RandomState>,
    /// Channels with a batch to publish, by the places that they take.
    ready: BTreeMap<i64, Channel>,
    /// Channels by the first message that waits there: who has to give way first.
    oldest: BTreeMap<u64, Channel>,
}

impl Outbox {
    /// An empty one.
    pub fn new(publisher: Publisher, limits: Limits) -> Self {
        Self {
            publisher,
            limits,
            sequence: 0,
            messages: 0,
            bytes: 0,
            queues: HashMap::default(),
            ready: BTreeMap::new(),
            oldest: BTreeMap::new(),
        }
    }

    /// Messages that wait or are under way.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether everything is published.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Channels of which it holds anything.
    pub fn channels(&self) -> usize {
        self.queues.len()
    }

    /// Whether a message would be taken without that another one has to give way.
    pub fn has_room(&self, channel: &Channel, except: Option<&[u8]>, payload: &[u8]) -> bool {
        let bytes = name_of(channel).len() + Message { except, payload }.size();
        self.is_empty()
            || self.messages < self.limits.messages && self.bytes + bytes <= self.limits.bytes
    }

    /// Takes a message; returns how many had to give way to it.
    pub fn send(&mut self, channel: &Channel, except: Option<&[u8]>, payload: Vec<u8>) -> usize {
        self.sequence += 1;
        let message = Waiting {
            sequence: self.sequence,
            except: except.map(Box::from),
            payload,
        };
        self.messages += 1;
        self.bytes += message.size();
        if !self.queues.contains_key(channel) {
            self.bytes += name_of(channel).len();
            self.queues.insert(channel.clone(), Queue::default());
        }
        if let Some(queue) = self.queues.get_mut(channel) {
            if queue.waiting.is_empty() {
                self.oldest.insert(message.sequence, channel.clone());
            }
            queue.waiting.push_back(message);
            if queue.under_way.is_none() {
                queue.list(&mut self.ready, channel, Place::Last);
            }
        }
        self.make_room()
    }

    /// The next batch to publish, if there is one.
    pub fn next(&mut self, time: u64) -> Option<Batch> {
        while let Some((_, channel)) = self.ready.pop_first() {
            let Some(queue) = self.queues.get_mut(&channel) else {
                continue;
            };
            queue.place = None;
            if let Some(again) = &queue.under_way {
                return Some(again.clone());
            }
            let first = queue.waiting.front().map(|first| first.sequence);
            let Some(batch) = queue.take(&channel, self.publisher, time) else {
                continue;
            };
            if let Some(first) = first {
                self.oldest.remove(&first);
            }
            if let Some(next) = queue.waiting.front() {
                self.oldest.insert(next.sequence, channel);
            }
            return Some(batch);
        }
        None
    }

    /// A batch is published, or given up; returns how many messages it had.
    pub fn done(&mut self, channel: &Channel) -> usize {
        let Some(queue) = self.queues.get_mut(channel) else {
            return 0;
        };
        let mut messages = 0;
        if let Some(batch) = queue.under_way.take() {
            messages = batch.messages;
            self.messages -= batch.messages;
            self.bytes -= batch.bytes;
        }
        if queue.waiting.is_empty() {
            self.forget(channel);
        } else {
            queue.list(&mut self.ready, channel, Place::Last);
        }
        messages
    }

    /// A batch has to be tried again.
    pub fn again(&mut self, channel: &Channel) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.list(&mut self.ready, channel, Place::First);
        }
    }

    /// Every batch that is under way has to be tried again.
    pub fn all_again(&mut self) {
        for (channel, queue) in &mut self.queues {
            if queue.under_way.is_some() {
                queue.list(&mut self.ready, channel, Place::Last);
            }
        }
    }

    /// Gives up everything; returns how many messages that were.
    pub fn clear(&mut self) -> usize {
        let (publisher, limits, sequence) = (self.publisher, self.limits, self.sequence);
        let before = std::mem::replace(self, Self::new(publisher, limits));
        self.sequence = sequence;
        before.messages
    }

    fn make_room(&mut self) -> usize {
        let mut lost = 0;
        while self.messages > self.limits.messages || self.bytes > self.limits.bytes {
            let Some((_, channel)) = self.oldest.pop_first() else {
                break;
            };
            let Some(queue) = self.queues.get_mut(&channel) else {
                continue;
            };
            if let Some(message) = queue.waiting.pop_front() {
                self.messages -= 1;
                self.bytes -= message.size();
                lost += 1;
            }
            if let Some(next) = queue.waiting.front() {
                self.oldest.insert(next.sequence, channel);
            } else if queue.under_way.is_none() {
                // There may be any number of channels that once had a message.
                self.forget(&channel);
            }
        }
        lost
    }

    fn forget(&mut self, channel: &Channel) {
        if let Some(queue) = self.queues.remove(channel) {
            self.bytes -= name_of(channel).len();
            if let Some(place) = queue.place {
                self.ready.remove(&place);
            }
        }
    }
}

fn name_of(channel: &Channel) -> &[u8] {
    match channel {
        Channel::All => &[],
        Channel::Topic(name) | Channel::Session(name) | Channel::Presence(name) => name,
    }
}

impl Waiting {
    fn as_message(&self) -> Message<'_> {
        Message {
            except: self.except.as_deref(),
            payload: &self.payload,
        }
    }

    fn size(&self) -> usize {
        self.as_message().size()
    }
}

impl Queue {
    /// Gives it a place among those that are ready, unless it has one.
    fn list(&mut self, ready: &mut BTreeMap<i64, Channel>, channel: &Channel, which: Place) {
        if self.place.is_some() {
            return;
        }
        let place = match which {
            Place::First => ready.first_key_value().map_or(0, |(first, _)| first - 1),
            Place::Last => ready.last_key_value().map_or(0, |(last, _)| last + 1),
        };
        self.place = Some(place);
        ready.insert(place, channel.clone());
    }

    fn take(&mut self, channel: &Channel, publisher: Publisher, time: u64) -> Option<Batch> {
        let (mut messages, mut bytes) = (0, 0);
        for message in self.waiting.iter().take(MOST) {
            if messages > 0 && bytes + message.size() > LARGEST {
                break;
            }
            messages += 1;
            bytes += message.size();
        }
        let taken: Vec<_> = self.waiting.drain(..messages).collect();
        let sequence = taken.last()?.sequence;
        let entry = wire::write(&Entry {
            publisher,
            sequence,
            time,
            messages: taken.iter().map(Waiting::as_message).collect(),
        });
        let batch = Batch {
            channel: channel.clone(),
            sequence,
            entry: Arc::from(entry),
            messages,
            bytes,
        };
        self.under_way = Some(batch.clone());
        Some(batch)
    }
}
