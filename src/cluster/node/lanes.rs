//! What waits for its turn. A node may follow any number of channels, and asks for a few at a time: a broker
//! that is slow is not given more and more to do, and a node that comes back does not get all at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::requests::{Requests, read_log, subscribe, unsubscribe};
use super::{Channel, Followed, Listener, Node, Place};
use crate::cluster::engine::{Connection, Engine, Page};
use crate::cluster::position::Read;

/// Subscriptions that are made or ended at once.
const SUBSCRIBING: usize = 256;
/// Reads that are under way at once, in parts: so many of them take four megabytes, if entries are small.
const READING: usize = 128;
/// The parts of one of which the answer is small, is the table of a topic, or is large.
const SMALL: u32 = 1;
const TABLE: u32 = 4;
const LARGE: u32 = 16;

/// What waits, for each of the servers that do not wait for each other.
#[derive(Default)]
pub struct Lanes(HashMap<usize, Lane, RandomState>);

struct Lane {
    changes: Line<Change>,
    reads: Line<(Place, Page)>,
}

/// That a channel is to be subscribed to, or not any more.
enum Change {
    Subscribe(Channel),
    Unsubscribe(Channel),
}

struct Line<T> {
    waiting: VecDeque<T>,
    room: Arc<Semaphore>,
}

impl<T> Line<T> {
    fn new(room: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            room: Arc::new(Semaphore::new(room)),
        }
    }

    /// The next, if there is so much room for it, and what it gives back when it is done.
    fn next(&mut self, takes: impl FnOnce(&T) -> u32) -> Option<(T, OwnedSemaphorePermit)> {
        let parts = takes(self.waiting.front()?);
        let permit = self.room.clone().try_acquire_many_owned(parts).ok()?;
        Some((self.waiting.pop_front()?, permit))
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            changes: Line::new(SUBSCRIBING),
            reads: Line::new(READING),
        }
    }
}

impl Lanes {
    fn lane(&mut self, connection: &impl Connection, channel: &Channel) -> &mut Lane {
        self.0.entry(connection.lane(channel)).or_default()
    }

    /// Subscribes to a channel when it is its turn.
    pub fn subscribe(&mut self, connection: &impl Connection, channel: Channel) {
        let lane = self.lane(connection, &channel);
        lane.changes.waiting.push_back(Change::Subscribe(channel));
    }

    /// Ends that when it is its turn.
    pub fn unsubscribe(&mut self, connection: &impl Connection, channel: Channel) {
        let lane = self.lane(connection, &channel);
        lane.changes.waiting.push_back(Change::Unsubscribe(channel));
    }

    fn next_change(&mut self) -> Option<(Change, OwnedSemaphorePermit)> {
        self.0
            .values_mut()
            .find_map(|lane| lane.changes.next(|_| 1))
    }

    fn next_read(&mut self) -> Option<((Place, Page), OwnedSemaphorePermit)> {
        self.0.values_mut().find_map(|lane| lane.reads.next(takes))
    }
}

fn takes((place, page): &(Place, Page)) -> u32 {
    match (&place.0, page) {
        (Channel::Presence(_), _) => TABLE,
        (_, Page::Small) => SMALL,
        (_, Page::Large) => LARGE,
    }
}

/// Nobody knows how much was missed; as a rule it is little. But what is wanted of the past is all read
/// for one answer.
fn first_page(read: Read) -> Page {
    match read {
        Read::Last {
            are_wanted: true, ..
        } => Page::Large,
        _ => Page::Small,
    }
}

impl Followed {
    /// Whether what is pushed now can be let go of: it is in the log when that is read.
    pub fn reads_it_later(&self) -> bool {
        self.is_waiting && self.position.last().is_some()
    }

    /// It is its turn.
    fn read_now(&mut self) -> Option<Read> {
        self.is_waiting = false;
        self.position.read_now()
    }
}

impl<E: Engine, L: Listener> Node<E, L> {
    /// Reads the log of a channel when it is its turn.
    pub(super) fn read(&mut self, place: Place, read: Read, connection: &E::Connection) {
        self.read_page(place, first_page(read), connection);
    }

    /// Reads so much of the log of a channel, or its table, when it is its turn.
    pub(super) fn read_page(&mut self, place: Place, page: Page, connection: &E::Connection) {
        if let Some(followed) = self.followed_at(&place) {
            followed.is_waiting = true;
        }
        let lane = self.lanes.lane(connection, &place.0);
        lane.reads.waiting.push_back((place, page));
    }

    /// Begins with what may begin.
    pub(super) fn take_turns<'a>(
        &mut self,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        while let Some((change, permit)) = self.lanes.next_change() {
            requests.push(match change {
                Change::Subscribe(channel) => subscribe(connection, channel, permit),
                Change::Unsubscribe(channel) => unsubscribe(connection, channel, permit),
            });
        }
        while !self.listener.is_full()
            && let Some((place, permit)) = self.lanes.next_read()
        {
            self.begin_to_read(place, permit, connection, requests);
        }
    }

    fn begin_to_read<'a>(
        &mut self,
        (place, page): (Place, Page),
        permit: OwnedSemaphorePermit,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        if let Channel::Presence(_) = &place.0 {
            return self.begin_to_read_members(place, permit, connection, requests);
        }
        // It may not be followed any more, or be read for another visit.
        let read = self.followed_at(&place).and_then(Followed::read_now);
        if let Some(read) = read {
            requests.push(read_log(connection, place, (read, page), permit));
        }
    }
}
