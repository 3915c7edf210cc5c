//! The seam: what a node needs of a broker. `tests/link` has the tests that every engine passes.

use std::future::Future;

use tokio::sync::mpsc::UnboundedSender;

use super::Channel;
use super::members;
use super::outbox::Batch;
use super::position::{Answer, Id, Read};
use crate::core::Name;
use crate::core::elsewhere::Host;

/// A broker, as far as a node knows it before it is connected.
pub trait Engine {
    /// A connection to it.
    type Connection: Connection + Attendance;

    /// Connects; what the broker pushes goes to `pushes` from then on, in its order.
    fn connect(
        &self,
        pushes: UnboundedSender<Push>,
    ) -> impl Future<Output = Result<Self::Connection, Failure>>;
}

/// A connection to a broker, which may be several. Several requests may be under way at once; what the
/// broker pushed on a channel before it confirmed that it is subscribed to is handed over before that.
pub trait Connection: Clone {
    /// Which of several servers has a channel, if one that is slow is not to hinder the others.
    fn lane(&self, channel: &Channel) -> usize;

    /// Appends a batch to its channel's log and pushes it, both or neither; does nothing if it, or a
    /// later one of the same publisher, stands there already.
    fn publish(&self, batch: &Batch) -> impl Future<Output = Result<(), Failure>>;

    /// Has what is published on a channel pushed, from before it returns on.
    fn subscribe(&self, channel: &Channel) -> impl Future<Output = Result<(), Failure>>;

    /// Ends that.
    fn unsubscribe(&self, channel: &Channel) -> impl Future<Output = Result<(), Failure>>;

    /// Reads a channel's log.
    fn read(
        &self,
        channel: &Channel,
        read: Read,
        page: Page,
    ) -> impl Future<Output = Result<Answer<Vec<u8>>, Failure>>;

    /// Sends a heart beat by the way that messages take. Is asked for every second, also while an earlier
    /// one is under way; fails if there has been no sign of life for four of them.
    fn beat(&self) -> impl Future<Output = Result<(), Failure>>;
}

/// A connection to a broker, as far as it knows who is on which topic. Who follows a topic subscribes
/// to its [`Channel::Presence`].
pub trait Attendance: Clone {
    /// Enters that a connection is alive, the first time or again, unless it was taken for dead
    /// meanwhile. Gives all that are alive.
    fn attend(
        &self,
        host: Host,
        is_first: bool,
    ) -> impl Future<Output = Result<Vec<Host>, Failure>>;

    /// Changes the table of a topic and, if there is something to tell, pushes what has changed,
    /// both or neither. Gives how many changes the table has had.
    fn put(&self, batch: &members::Batch) -> impl Future<Output = Result<Option<Id>, Failure>>;

    /// Reads the table of a topic.
    fn members(&self, topic: &Name) -> impl Future<Output = Result<members::Table, Failure>>;
}

/// How much of a log is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// What fits into a small answer, perhaps nothing: many may be under way.
    Small,
    /// What fits into a large one, and one entry at least.
    Large,
}

/// What a broker pushes.
#[derive(Debug)]
pub enum Push {
    /// An entry.
    Entry(Channel, Id, Vec<u8>),
    /// Nothing is pushed on the channel any more, until it is subscribed to again.
    Ended(Channel),
    /// What cannot be understood.
    Garbage,
    /// The connection is gone.
    Lost,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nobody knows whether it was done. It is to be tried again on a new connection.
    Disconnected(String),
    /// Perhaps it was not done. It may be tried again later.
    NotNow(String),
    /// It was not done, and never will be.
    Refused(String),
}

impl Failure {
    /// The reason, in the broker's words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Disconnected(reason) | Self::NotNow(reason) | Self::Refused(reason) => reason,
        }
    }
}
