//! The engine for servers that sentinels watch: one takes writes, and another one when that fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, RedisError};
use futures_util::StreamExt;
use futures_util::future::try_join;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedSender;

use super::Channel;
use super::engine::{Attendance, Connection, Engine, Failure, Page, Push};
use super::members;
use super::outbox::Batch;
use super::position::{Answer, Id, Read};
use super::redis::pair::Pair;
use super::redis::{self, Terms, ask_once};
use super::url;
use crate::core::Name;
use crate::core::elsewhere::Host;

/// A sentinel that does not answer for so long is left alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// With every so many heart beats the sentinels are asked again.
const ASK_EVERY: u32 = 5;

/// Servers that sentinels watch.
pub struct Watched {
    sentinels: Arc<Sentinels>,
    terms: Arc<Terms>,
}

/// Those who watch.
struct Sentinels {
    places: Vec<ConnectionInfo>,
    service: String,
    server: ConnectionInfo,
}

/// A connection to the server that takes writes.
#[derive(Clone)]
pub struct WatchedConnection {
    connection: Pair,
    sentinels: Arc<Sentinels>,
    address: ConnectionAddr,
    beats: Arc<AtomicU32>,
}

/// What a sentinel knows of a server: the one of the later epoch is right.
struct Known {
    epoch: u64,
    server: ConnectionInfo,
}

impl Watched {
    /// Servers that are known to sentinels by a name.
    pub fn new(
        places: Vec<ConnectionInfo>,
        service: String,
        server: ConnectionInfo,
        terms: Terms,
    ) -> Self {
        Self {
            sentinels: Arc::new(Sentinels {
                places,
                service,
                server,
            }),
            terms: Arc::new(terms),
        }
    }
}

impl Sentinels {
    /// The server that takes writes, as most of them know it.
    async fn master(&self) -> Result<ConnectionInfo, Failure> {
        let mut asked: FuturesUnordered<_> =
            self.places.iter().map(|place| self.ask(place)).collect();
        let (mut best, mut answers, mut reasons) = (None::<Known>, 0, Vec::new());
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(known) => {
                    answers += 1;
                    if best.as_ref().is_none_or(|best| best.epoch < known.epoch) {
                        best = Some(known);
                    }
                }
                Err(reason) => reasons.push(reason),
            }
            if answers > self.places.len() / 2 {
                break;
            }
        }
        let none = || Failure::Disconnected(format!("no sentinel helps: {}", reasons.join("; ")));
        best.map(|best| best.server).ok_or_else(none)
    }

    /// The epoch before the address: a sentinel that is just making another server the master has the
    /// new epoch already, and among what it knows of the master still the old address.
    async fn ask(&self, place: &ConnectionInfo) -> Result<Known, String> {
        let told = |error: RedisError| format!("{}: {error}", place.addr());
        let mut question = ::redis::cmd("SENTINEL");
        question.arg("MASTER").arg(&self.service);
        let master: HashMap<String, String> =
            ask_once(place, &question, PATIENCE).await.map_err(told)?;
        let mut question = ::redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let (host, port): (String, u16) =
            ask_once(place, &question, PATIENCE).await.map_err(told)?;
        let epoch = master.get("config-epoch");
        Ok(Known {
            epoch: epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
            server: url::at(&self.server, &host, port),
        })
    }
}

impl Engine for Watched {
    type Connection = WatchedConnection;

    async fn connect(&self, pushes: UnboundedSender<Push>) -> Result<WatchedConnection, Failure> {
        let server = self.sentinels.master().await?;
        let connection = redis::connect(&server, &self.terms, pushes).await?;
        Ok(WatchedConnection {
            connection,
            sentinels: self.sentinels.clone(),
            address: server.addr().clone(),
            beats: Arc::default(),
        })
    }
}

impl WatchedConnection {
    /// A server that was cut off from the others may not know that another one takes the writes now.
    async fn check(&self) -> Result<(), Failure> {
        if !self
            .beats
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(ASK_EVERY)
        {
            return Ok(());
        }
        match self.sentinels.master().await {
            Ok(server) if *server.addr() != self.address => Err(Failure::Disconnected(format!(
                "the master is now {}",
                server.addr()
            ))),
            // Without them it goes on as well.
            _ => Ok(()),
        }
    }
}

impl Connection for WatchedConnection {
    fn lane(&self, channel: &Channel) -> usize {
        self.connection.lane(channel)
    }

    async fn publish(&self, batch: &Batch) -> Result<(), Failure> {
        self.connection.publish(batch).await
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.connection.subscribe(channel).await
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.connection.unsubscribe(channel).await
    }

    async fn read(
        &self,
        channel: &Channel,
        read: Read,
        page: Page,
    ) -> Result<Answer<Vec<u8>>, Failure> {
        self.connection.read(channel, read, page).await
    }

    async fn beat(&self) -> Result<(), Failure> {
        try_join(self.connection.beat(), self.check())
            .await
            .map(drop)
    }
}

impl Attendance for WatchedConnection {
    async fn attend(&self, host: Host, is_first: bool) -> Result<Vec<Host>, Failure> {
        self.connection.attend(host, is_first).await
    }

    async fn put(&self, batch: &members::Batch) -> Result<Option<Id>, Failure> {
        self.connection.put(batch).await
    }

    async fn members(&self, topic: &Name) -> Result<members::Table, Failure> {
        self.connection.members(topic).await
    }
}
