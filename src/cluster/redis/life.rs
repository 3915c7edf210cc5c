//! Whether the connections to a server live: for as long as something comes, however slowly.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use redis::{ErrorKind, RedisError};
use tokio::sync::Notify;

/// With so many heart beats without a sign of life, a connection is taken for dead.
const PATIENCE: u32 = 4;

/// The signs of life of one connection. Heart beats are counted and no time is taken: a process that
/// stood still has not listened meanwhile, and that is not silence.
#[derive(Default)]
pub struct Pulse {
    signs: AtomicU64,
    missed: AtomicU32,
}

impl Pulse {
    /// Something came.
    pub fn sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
        self.missed.store(0, Ordering::Relaxed);
    }

    /// How often something came.
    pub fn signs(&self) -> u64 {
        self.signs.load(Ordering::Relaxed)
    }

    /// Something is to come with each heart beat: there is one that nothing has come with yet.
    pub fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nothing comes any more.
    pub fn is_dead(&self) -> bool {
        self.missed.load(Ordering::Relaxed) >= PATIENCE
    }
}

/// Whether the connections to a server are given up. No request on them has a time of its own: one that
/// waits behind many others is late, and nothing is wrong.
#[derive(Default)]
pub struct Ending {
    is_over: AtomicBool,
    over: Notify,
}

impl Ending {
    /// They are: what is under way on them fails.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.over.notify_waiters();
    }

    /// Whether they are.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The answer to a request, as long as there can be one.
    pub async fn or<T>(
        &self,
        request: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        let mut over = pin!(self.over.notified());
        // From here on nothing is missed.
        over.as_mut().enable();
        if self.is_over() {
            return Err(no_answer());
        }
        tokio::select! {
            biased;
            answer = request => answer,
            () = over => Err(no_answer()),
        }
    }
}

/// The error of a request that will get no answer.
pub fn no_answer() -> RedisError {
    (ErrorKind::Io, "no answer").into()
}
