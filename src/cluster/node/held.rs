//! Batches that wait until their channel is followed: whoever has subscribed before something was sent
//! is to hear it, and from what a broker has before the node listens it would be taken for the past.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::{Channel, Followed, Listener, Node, Stage};
use crate::cluster::engine::Engine;
use crate::cluster::outbox::Batch;
use crate::cluster::wire;

/// What is held back.
#[derive(Default)]
pub struct Held {
    back: HashMap<Channel, Batch, RandomState>,
    /// What need not wait any more, if nothing has changed since.
    out: VecDeque<Batch>,
}

impl Held {
    /// Something has changed with a channel.
    pub fn let_out(&mut self, channel: &Channel) {
        self.out.extend(self.back.remove(channel));
    }

    fn let_all_out(&mut self) {
        self.out.extend(self.back.drain().map(|(_, batch)| batch));
    }
}

impl Followed {
    /// Whether all that is published from now on is heard in that visit, or nothing in any.
    fn is_settled(&self, visit: u64) -> bool {
        let hears = self.visit == visit && self.is_ready && !matches!(self.stage, Stage::Leaving);
        hears || self.is_unreadable
    }
}

impl<E: Engine, L: Listener> Node<E, L> {
    /// The next batch that may be published.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        if self.handle.is_closing() {
            self.held.let_all_out();
        }
        loop {
            let next = || self.handle.desk.lock().outbox.next(wire::now());
            let batch = self.held.out.pop_front().or_else(next)?;
            if !self.must_wait(&batch.channel) {
                return Some(batch);
            }
            self.held.back.insert(batch.channel.clone(), batch);
        }
    }

    fn must_wait(&self, channel: &Channel) -> bool {
        if self.handle.is_closing() {
            return false;
        }
        let Some(wish) = self.listener.wants(channel) else {
            return false;
        };
        let followed = self.followed.get(channel);
        followed.is_none_or(|followed| !followed.is_settled(wish.visit))
    }
}
