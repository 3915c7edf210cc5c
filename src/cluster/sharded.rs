//! The engine for Redis Cluster: each channel is on one of several servers, and may be moved to another.
//!
//! Connections are managed here: that of the client makes a subscription anew without a word, and what was
//! pushed meanwhile would be missed. Here the node is told, and reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{ConnectionInfo, PushInfo};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::Channel;
use super::engine::{Attendance, Connection, Engine, Failure, Page, Push};
use super::members;
use super::outbox::Batch;
use super::position::{Answer, Id, Read};
use super::redis::life::Ending;
use super::redis::pair::Pair;
use super::redis::{Terms, ask_once};
use super::slots::Slots;
use crate::core::Name;
use crate::core::elsewhere::Host;

/// The time between two looks at who has which slots, and between two attempts to connect to a server.
const PAUSE: Duration = Duration::from_millis(200);
/// One of many servers that does not answer for so long is left alone.
const SHORT: Duration = Duration::from_secs(1);
/// Names for a heart beat that are tried; every slot is found sooner.
const MOST_NAMES: u32 = 1 << 18;

/// The servers of a cluster.
pub struct Sharded {
    seeds: Vec<ConnectionInfo>,
    terms: Arc<Terms>,
    slots: Arc<Mutex<Slots>>,
}

impl Sharded {
    /// Those that the given ones know.
    pub fn new(seeds: Vec<ConnectionInfo>, terms: Terms) -> Self {
        Self {
            seeds,
            terms: Arc::new(terms),
            slots: Arc::default(),
        }
    }
}

impl Engine for Sharded {
    type Connection = ShardedConnection;

    async fn connect(&self, pushes: UnboundedSender<Push>) -> Result<ShardedConnection, Failure> {
        let cluster = Cluster {
            seeds: self.seeds.clone(),
            terms: self.terms.clone(),
            pushes,
            slots: self.slots.clone(),
            looked: tokio::sync::Mutex::default(),
            is_stale: Arc::new(AtomicBool::new(true)),
            doors: Mutex::default(),
        };
        cluster.look().await?;
        Ok(ShardedConnection(Arc::new(cluster)))
    }
}

/// Connections to the servers that are needed.
#[derive(Clone)]
pub struct ShardedConnection(Arc<Cluster>);

struct Cluster {
    seeds: Vec<ConnectionInfo>,
    terms: Arc<Terms>,
    pushes: UnboundedSender<Push>,
    /// As they were last: an earlier connection may have known more servers than the seeds.
    slots: Arc<Mutex<Slots>>,
    /// When they were asked for.
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// Something did not go as the slots had it.
    is_stale: Arc<AtomicBool>,
    doors: Mutex<HashMap<String, Arc<Door>, RandomState>>,
}

/// Where one server is; whoever connects to it has the others wait.
type Door = tokio::sync::Mutex<Behind>;

#[derive(Default)]
enum Behind {
    #[default]
    Nothing,
    Shard(Arc<Shard>),
    Failed(Instant, String),
}

/// One server.
struct Shard {
    pair: Pair,
    ears: Arc<Ears>,
}

/// What a node hears of one server.
struct Ears {
    terms: Arc<Terms>,
    pushes: UnboundedSender<Push>,
    subscribed: Mutex<HashSet<Channel, RandomState>>,
    ending: Arc<Ending>,
    is_stale: Arc<AtomicBool>,
}

impl Ears {
    fn take(&self, info: PushInfo) {
        match self.terms.names.understand(info) {
            Some(Push::Lost) => self.end(),
            // One that the node has asked for is not in the list any more.
            Some(Push::Ended(channel)) if self.subscribed.lock().remove(&channel) => {
                self.is_stale.store(true, Ordering::Relaxed);
                self.tell(Push::Ended(channel));
            }
            Some(Push::Ended(_)) | None => {}
            Some(push) => self.tell(push),
        }
    }

    fn tell(&self, push: Push) {
        // Nobody may be there any more: then the connections are given up.
        let _ = self.pushes.send(push);
    }

    /// Nothing more comes from there.
    fn end(&self) {
        self.ending.end();
        self.is_stale.store(true, Ordering::Relaxed);
        for channel in self.subscribed.lock().drain() {
            self.tell(Push::Ended(channel));
        }
    }

    fn is_over(&self) -> bool {
        self.ending.is_over()
    }
}

impl Shard {
    async fn open(
        server: &ConnectionInfo,
        cluster: &Cluster,
        beat: Vec<u8>,
    ) -> Result<Self, Failure> {
        let ears = Arc::new(Ears {
            terms: cluster.terms.clone(),
            pushes: cluster.pushes.clone(),
            subscribed: Mutex::default(),
            ending: Arc::default(),
            is_stale: cluster.is_stale.clone(),
        });
        let (taking, ending) = (ears.clone(), &ears.ending);
        let take = move |info| taking.take(info);
        let pair = Pair::open(server, &cluster.terms, beat, ending, take).await?;
        Ok(Self { pair, ears })
    }

    /// What became of a request; without this server the others go on.
    fn settled<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Err(Failure::Disconnected(reason)) => {
                self.ears.end();
                Err(Failure::NotNow(reason))
            }
            Err(Failure::NotNow(reason)) => {
                self.ears.is_stale.store(true, Ordering::Relaxed);
                Err(Failure::NotNow(reason))
            }
            result => result,
        }
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.ears.subscribed.lock().insert(channel.clone());
        let done = self.settled(self.pair.subscribe(channel).await);
        if done.is_err() {
            self.ears.subscribed.lock().remove(channel);
        }
        if self.ears.is_over() {
            return Err(Failure::NotNow("the connection was closed".to_owned()));
        }
        done
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), Failure> {
        if !self.ears.subscribed.lock().remove(channel) {
            return Ok(());
        }
        let done = self.pair.unsubscribe(channel).await;
        if done.is_err() {
            // Nobody knows: with the connection it ends for certain.
            self.ears.end();
        }
        Ok(())
    }

    async fn beat(&self) {
        if self.pair.beat().await.is_err() {
            self.ears.end();
        }
    }
}

impl Cluster {
    /// Learns who has which slots, if that may have changed.
    async fn look(&self) -> Result<(), Failure> {
        let mut looked = self.looked.lock().await;
        let is_recent = looked.is_some_and(|last| last.elapsed() < PAUSE);
        if is_recent || !self.is_stale.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let result = self.ask_around().await;
        if result.is_err() {
            self.is_stale.store(true, Ordering::Relaxed);
        }
        *looked = Some(Instant::now());
        result
    }

    /// Any server first: one that is cut off from the others knows nothing new.
    async fn ask_around(&self) -> Result<(), Failure> {
        let mut servers = self.slots.lock().servers().to_vec();
        servers.extend_from_slice(&self.seeds);
        let begin = getrandom::u32().unwrap_or(0) as usize % servers.len();
        servers.rotate_left(begin);
        let mut reasons = Vec::new();
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        for server in &servers {
            match ask_once(server, &question, SHORT).await {
                Ok(answer) => {
                    let slots = Slots::read(answer, server);
                    if !slots.servers().is_empty() {
                        *self.slots.lock() = slots;
                        return Ok(());
                    }
                    reasons.push(format!("{} knows no slots", server.addr()));
                }
                Err(error) => reasons.push(format!("{}: {error}", server.addr())),
            }
        }
        Err(Failure::Disconnected(reasons.join("; ")))
    }

    /// The server that has a channel.
    async fn shard_of(&self, channel: &Channel) -> Result<Arc<Shard>, Failure> {
        self.shard_with(&self.terms.names.pushed(channel)).await
    }

    /// The server that has what is called so.
    async fn shard_with(&self, name: &[u8]) -> Result<Arc<Shard>, Failure> {
        if self.is_stale.load(Ordering::Relaxed) {
            // What is known helps as long as nothing better is; whether anybody answers, the beat tells.
            let _ = self.look().await;
        }
        let server = self.slots.lock().server_of(name).cloned();
        let result = match server {
            Some(server) => self.open(&server).await,
            None => Err("no server has its slot".to_owned()),
        };
        result.map_err(|reason| {
            self.is_stale.store(true, Ordering::Relaxed);
            Failure::NotNow(reason)
        })
    }

    async fn open(&self, server: &ConnectionInfo) -> Result<Arc<Shard>, String> {
        let address = server.addr().to_string();
        let door = self.doors.lock().entry(address).or_default().clone();
        let mut behind = door.lock().await;
        match &*behind {
            Behind::Shard(shard) if !shard.ears.is_over() => return Ok(shard.clone()),
            Behind::Failed(when, reason) if when.elapsed() < PAUSE => return Err(reason.clone()),
            _ => {}
        }
        let shard = match self.beat_at(server) {
            Some(beat) => Shard::open(server, self, beat).await,
            None => Err(Failure::NotNow("it has no slots".to_owned())),
        };
        match shard {
            Ok(shard) => {
                let shard = Arc::new(shard);
                *behind = Behind::Shard(shard.clone());
                Ok(shard)
            }
            Err(failure) => {
                let reason = format!("{}: {}", server.addr(), failure.reason());
                *behind = Behind::Failed(Instant::now(), reason.clone());
                Err(reason)
            }
        }
    }

    /// A name that is on this server.
    fn beat_at(&self, server: &ConnectionInfo) -> Option<Vec<u8>> {
        let slots = self.slots.lock();
        let is_there = |name: &Vec<u8>| {
            let found = slots.server_of(name);
            found.is_some_and(|found| found.addr() == server.addr())
        };
        let mut names = (0..MOST_NAMES).map(|number| self.terms.names.beat(number));
        names.find(is_there)
    }

    /// Those with connections.
    fn shards(&self) -> Vec<Arc<Shard>> {
        let mut shards = Vec::new();
        for door in self.doors.lock().values() {
            // Who is connecting just now has none.
            if let Ok(mut behind) = door.try_lock()
                && let Behind::Shard(shard) = &*behind
            {
                if shard.ears.is_over() {
                    *behind = Behind::Nothing;
                } else {
                    shards.push(shard.clone());
                }
            }
        }
        shards
    }
}

impl Connection for ShardedConnection {
    fn lane(&self, channel: &Channel) -> usize {
        let name = self.0.terms.names.pushed(channel);
        self.0.slots.lock().place_of(&name)
    }

    async fn publish(&self, batch: &Batch) -> Result<(), Failure> {
        let shard = self.0.shard_of(&batch.channel).await?;
        shard.settled(shard.pair.publish(batch).await)
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.0.shard_of(channel).await?.subscribe(channel).await
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), Failure> {
        // On whichever it was: the slot may have been moved.
        for shard in self.0.shards() {
            shard.unsubscribe(channel).await?;
        }
        Ok(())
    }

    async fn read(
        &self,
        channel: &Channel,
        read: Read,
        page: Page,
    ) -> Result<Answer<Vec<u8>>, Failure> {
        let shard = self.0.shard_of(channel).await?;
        shard.settled(shard.pair.read(channel, read, page).await)
    }

    async fn beat(&self) -> Result<(), Failure> {
        let shards = self.0.shards();
        join_all(shards.iter().map(|shard| shard.beat())).await;
        if shards.iter().all(|shard| shard.ears.is_over()) {
            // Somebody must be there all the same.
            self.0.is_stale.store(true, Ordering::Relaxed);
            self.0.look().await?;
        }
        Ok(())
    }
}

impl Attendance for ShardedConnection {
    async fn attend(&self, host: Host, is_first: bool) -> Result<Vec<Host>, Failure> {
        let shard = self.0.shard_with(&self.0.terms.names.alive()).await?;
        shard.settled(shard.pair.attend(host, is_first).await)
    }

    async fn put(&self, batch: &members::Batch) -> Result<Option<Id>, Failure> {
        let channel = Channel::Presence(batch.topic.clone());
        let shard = self.0.shard_of(&channel).await?;
        shard.settled(shard.pair.put(batch).await)
    }

    async fn members(&self, topic: &Name) -> Result<members::Table, Failure> {
        let shard = self.0.shard_of(&Channel::Presence(topic.clone())).await?;
        shard.settled(shard.pair.members(topic).await)
    }
}
