//! What a node asks of its broker, and the answers.

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, sleep};

use super::presence;
use crate::cluster::Channel;
use crate::cluster::engine::{Connection, Failure, Page};
use crate::cluster::outbox::Batch;
use crate::cluster::position::{Answer, Read};

/// Of what is read: the channel, and which of the times that it is subscribed to.
pub type Place = (Channel, u64);

/// A request that is done.
pub enum Done {
    /// A batch was published on a channel.
    Published(Channel, Result<(), Failure>),
    /// A channel was subscribed to.
    Subscribed(Channel, Result<(), Failure>),
    /// A channel is not subscribed to any more.
    Unsubscribed(Channel, Result<(), Failure>),
    /// A log was read.
    Read(Place, Result<Answer<Vec<u8>>, Failure>),
    /// A heart beat was sent.
    Beaten(Result<(), Failure>),
    /// Something about who is on which topic.
    Presence(presence::Answer),
    /// It is time to try again.
    Later(Box<Done>),
}

/// Those that are under way.
pub type Requests<'a> = FuturesUnordered<LocalBoxFuture<'a, Done>>;

pub fn publish<C: Connection>(connection: &C, batch: Batch) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move {
        let done = connection.publish(&batch).await;
        Done::Published(batch.channel, done)
    })
}

pub fn subscribe<C: Connection>(
    connection: &C,
    channel: Channel,
    permit: OwnedSemaphorePermit,
) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move {
        let done = connection.subscribe(&channel).await;
        drop(permit);
        Done::Subscribed(channel, done)
    })
}

pub fn unsubscribe<C: Connection>(
    connection: &C,
    channel: Channel,
    permit: OwnedSemaphorePermit,
) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move {
        let done = connection.unsubscribe(&channel).await;
        drop(permit);
        Done::Unsubscribed(channel, done)
    })
}

pub fn read_log<C: Connection>(
    connection: &C,
    place: Place,
    (read, page): (Read, Page),
    permit: OwnedSemaphorePermit,
) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move {
        let done = connection.read(&place.0, read, page).await;
        drop(permit);
        Done::Read(place, done)
    })
}

pub fn beat<C: Connection>(connection: &C) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move { Done::Beaten(connection.beat().await) })
}

pub fn after<'a>(time: Duration, done: Done) -> LocalBoxFuture<'a, Done> {
    Box::pin(async move {
        sleep(time).await;
        Done::Later(Box::new(done))
    })
}
