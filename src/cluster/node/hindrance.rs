//! What the broker does not take for now, since when, and whether that was told.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use tokio::time::{Duration, Instant};

use super::{Channel, LATER, Listener, MUCH_LATER, News, Node};
use crate::cluster::engine::Engine;

/// What the broker does not take for so long is told.
const LONG: Duration = Duration::from_secs(1);

/// What the broker does not take, and whether that was told.
#[derive(Default)]
pub struct Hindrance {
    since: HashMap<Hindered, Instant, RandomState>,
    is_told: bool,
}

/// What is hindered on a channel.
#[derive(PartialEq, Eq, Hash)]
pub enum Hindered {
    /// What is to be published.
    Publish(Channel),
    /// The log is to be read.
    Read(Channel),
}

impl Hindrance {
    /// On a new connection everything is read anew.
    pub fn begin_again(&mut self) {
        let is_publish = |what: &Hindered| matches!(what, Hindered::Publish(_));
        self.since.retain(|what, _| is_publish(what));
    }
}

impl<E: Engine, L: Listener> Node<E, L> {
    /// The broker may do it in a moment; if not, it is told once. Gives the time until it is asked again:
    /// as long as it has taken so far.
    pub(super) fn hindered(&mut self, what: Hindered, reason: &str) -> Duration {
        let since = self.hindrance.since.entry(what);
        let elapsed = since.or_insert_with(Instant::now).elapsed();
        if elapsed > LONG && !std::mem::replace(&mut self.hindrance.is_told, true) {
            self.tell(News::Hindered(reason.to_owned()));
        }
        elapsed.clamp(LATER, MUCH_LATER)
    }

    pub(super) fn not_hindered(&mut self, what: &Hindered) {
        self.hindrance.since.remove(what);
        if self.hindrance.since.is_empty() && std::mem::take(&mut self.hindrance.is_told) {
            self.tell(News::Unhindered);
        }
    }
}
