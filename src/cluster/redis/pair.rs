//! The two connections to a server: on one it is asked for things, on the other it pushes.
//!
//! A server closes connections that are subscribed to something and get large answers, as it does with
//! those that do not take what it pushes. And in a cluster it ends subscriptions by itself: then the client
//! takes what it says for an answer to what was asked first, so nothing else may be asked there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join;
use redis::{ConnectionInfo, PushInfo};
use tokio::time::timeout;

use super::life::{Ending, no_answer};
use super::{PATIENCE, RedisConnection, Terms, disconnected};
use crate::cluster::Channel;
use crate::cluster::engine::{Connection, Failure, Page};
use crate::cluster::outbox::Batch;
use crate::cluster::position::{Answer, Read};

/// The connections to a server that takes writes.
#[derive(Clone)]
pub struct Pair {
    /// On which it is asked for things.
    pub work: RedisConnection,
    listening: RedisConnection,
    beat: Arc<[u8]>,
    is_beating: Arc<AtomicBool>,
}

impl Pair {
    /// Connects, and listens to its own heart beat, which has that name; what is pushed is handed to a
    /// function.
    pub async fn open(
        server: &ConnectionInfo,
        terms: &Arc<Terms>,
        beat: Vec<u8>,
        ending: &Arc<Ending>,
        pushed: impl Fn(PushInfo) + Clone + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let open = || RedisConnection::open(server, terms, ending, pushed.clone());
        let opened = async {
            let (work, listening) = try_join(open(), open()).await?;
            listening.listen(beat.clone()).await?;
            Ok((work, listening))
        };
        let opened = timeout(PATIENCE, opened).await;
        let (work, listening) = opened.unwrap_or_else(|_| Err(disconnected(no_answer())))?;
        Ok(Self {
            work,
            listening,
            beat: beat.into(),
            is_beating: Arc::default(),
        })
    }

    /// What is asked on one connection is heard on the other: so both are known to live. One that is
    /// late, since much is to be said before it, is waited for.
    async fn beat_once(&self) -> Result<(), Failure> {
        let before = self.listening.pulse.signs();
        self.work.push(&self.beat, &[]).await?;
        if self.listening.pulse.signs() == before {
            self.listening.pulse.miss();
        }
        Ok(())
    }
}

impl Connection for Pair {
    fn lane(&self, _: &Channel) -> usize {
        0
    }

    async fn publish(&self, batch: &Batch) -> Result<(), Failure> {
        self.work.publish(batch).await
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.listening.subscribe(channel).await
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.listening.unsubscribe(channel).await
    }

    async fn read(
        &self,
        channel: &Channel,
        read: Read,
        page: Page,
    ) -> Result<Answer<Vec<u8>>, Failure> {
        self.work.read(channel, read, page).await
    }

    async fn beat(&self) -> Result<(), Failure> {
        if self.work.pulse.is_dead() || self.listening.pulse.is_dead() {
            let reason = format!("no heart beat for {} seconds", PATIENCE.as_secs());
            return Err(Failure::Disconnected(reason));
        }
        self.work.pulse.miss();
        if self.is_beating.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let beaten = self.beat_once().await;
        self.is_beating.store(false, Ordering::Relaxed);
        beaten
    }
}
