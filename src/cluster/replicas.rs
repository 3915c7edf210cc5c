//! Entries that count as published when replicas have them too, so that one of them can take over.

use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisError;

use super::engine::Failure;
use super::redis::{RedisConnection, failure};

/// Replicas have so long; then it is tried again.
const PATIENCE: Duration = Duration::from_millis(500);

/// The replicas that are waited for on one connection. One question is enough for everything that was
/// published before it.
pub struct Replicas {
    wanted: usize,
    /// Questions that were asked.
    asked: Mutex<u64>,
    answers: tokio::sync::Mutex<Answered>,
}

/// The last question that was answered, and how many replicas had everything then.
#[derive(Default)]
struct Answered {
    question: u64,
    had: Option<Result<usize, Failure>>,
}

impl Replicas {
    /// So many are waited for.
    pub fn new(wanted: usize) -> Self {
        Self {
            wanted,
            asked: Mutex::new(0),
            answers: tokio::sync::Mutex::default(),
        }
    }

    /// Whether any are.
    pub fn are_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// Waits until they have what was published on a connection before.
    pub async fn have_it(&self, connection: &RedisConnection) -> Result<(), Failure> {
        if !self.are_wanted() {
            return Ok(());
        }
        let before = *self.asked.lock();
        let mut answered = self.answers.lock().await;
        // Somebody may have asked since, and may have got an answer.
        if answered.question <= before {
            let question = {
                let mut asked = self.asked.lock();
                *asked += 1;
                *asked
            };
            let mut wait = redis::cmd("WAIT");
            wait.arg(self.wanted).arg(PATIENCE.as_millis());
            let had: Result<usize, RedisError> = connection.ask(&wait).await;
            let had = had.map_err(|error| failure(&error));
            *answered = Answered {
                question,
                had: Some(had),
            };
        }
        match &answered.had {
            Some(Ok(had)) if *had >= self.wanted => Ok(()),
            Some(Ok(had)) => Err(Failure::NotNow(format!(
                "NOREPLICAS: {had} of {} replicas have it",
                self.wanted
            ))),
            Some(Err(failure)) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}
