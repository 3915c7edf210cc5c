//! What a new subscription gets of what was sent before it came.

use std::collections::VecDeque;
use std::time::Instant;

use triomphe::Arc;

use super::{
    Audience, Envelope, Fanout, History, LaneKey, Recipients, Router, Subscription, Trash,
};
use crate::core::history::Retention;
use crate::core::roster::{Snapshot, snapshot_of};
use crate::core::{SessionKey, TopicKey};

/// Messages for one subscription, before anything that is sent after it came.
pub(super) struct Replay<H, M> {
    subscription: Snapshot<H>,
    to: Recipients,
    envelopes: VecDeque<Arc<Envelope<M>>>,
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// How many messages are kept in all, at the most. Comes before the two below.
    pub fn limit_history(&mut self, limit: usize) {
        self.history_limit = limit;
    }

    /// Keeps so much, from now on, of every topic without a rule of its own, and of what is sent
    /// to all.
    pub fn keep_all(&mut self, retention: Retention) {
        if retention.messages > 0 {
            self.history_or_new().keep_all(retention);
        }
    }

    /// Keeps so much of a topic, or of what is sent to all, from now on; `None` for as much as of every
    /// topic without a rule of its own.
    pub fn keep(
        &mut self,
        topic: Option<&[u8]>,
        retention: Option<Retention>,
        trash: &mut Trash<H, M, D>,
    ) {
        let history = self.history_or_new();
        history.keep(topic, retention, Instant::now(), &mut trash.envelopes);
    }

    fn history_or_new(&mut self) -> &mut History<M> {
        let limit = self.history_limit;
        self.history
            .get_or_insert_with(|| Box::new(History::new(limit)))
    }

    /// Whether messages of a topic, or those sent to all, are kept.
    pub fn keeps(&self, topic: Option<&[u8]>) -> bool {
        let history = self.history.as_ref();
        history.is_some_and(|history| history.retention(topic).is_some())
    }

    /// The messages that are kept.
    pub fn history(&self) -> Option<&History<M>> {
        self.history.as_deref()
    }

    /// Keeps a message that is being sent, if messages of its topic are kept. `key` is the topic and
    /// `present` the audience, as the tables have them.
    pub(super) fn keep_sent(
        &mut self,
        topic: Option<&[u8]>,
        key: Option<TopicKey>,
        audience: Audience<&[u8]>,
        present: Audience<SessionKey>,
        message: &mut Option<impl FnOnce() -> M>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<Arc<Envelope<M>>> {
        let retention = self.history.as_ref()?.retention(topic)?;
        let except = match audience {
            Audience::Everyone => None,
            Audience::Others(id) => Some(id),
            Audience::Only(_) => return None,
        };
        let sent_at = key.map_or(0, |key| self.time_of_send(key));
        let envelope = self.envelope(present, message.take()?(), sent_at);
        let history = self.history.as_mut()?;
        history.record(
            topic,
            retention,
            &envelope,
            except,
            Instant::now(),
            &mut trash.envelopes,
        );
        Some(envelope)
    }

    /// Lets a subscription that was just entered have the last `count` messages of its topic first,
    /// or as many as may wait for it; returns the deliverer, if it must be woken.
    pub fn replay(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        topic: Option<&[u8]>,
        count: usize,
    ) -> Option<D> {
        if let Some(recall) = &mut self.recall
            && recall.holds_back(subscription, topic, count)
        {
            return None;
        }
        let history = self.history.as_mut()?;
        let (session, count) = (subscription.owner.id(), count.min(self.limit as usize));
        let envelopes = history.last(topic, session, count, Instant::now());
        self.begin_with(subscription, envelopes)
    }

    /// Lets a subscription that was just entered have these messages first; returns the deliverer,
    /// if it must be woken.
    pub(super) fn begin_with(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        envelopes: VecDeque<Arc<Envelope<M>>>,
    ) -> Option<D> {
        let lane = self.registry.group(subscription.group).lane;
        let lane = self.lanes.get_mut(lane as usize)?;
        if envelopes.is_empty() {
            return None;
        }
        self.waiting += envelopes.len();
        let replay = Replay {
            subscription: snapshot_of(vec![subscription.clone()]),
            to: Recipients::one(subscription),
            envelopes,
        };
        lane.replays.insert(subscription.serial, replay);
        lane.hire().then(|| lane.deliverer.clone())
    }

    /// The next message of a replay.
    pub(super) fn pop_replay(&mut self, lane: LaneKey) -> Option<Fanout<H, M>> {
        let mut oldest = self.lanes.get_mut(lane as usize)?.replays.first_entry()?;
        let replay = oldest.get_mut();
        let envelope = replay.envelopes.pop_front()?;
        self.waiting -= 1;
        let fanout = Fanout::new(replay.to, replay.subscription.clone(), envelope);
        if replay.envelopes.is_empty() {
            oldest.remove();
        }
        Some(fanout)
    }

    /// Gives up what is left of the replay of a subscription that has ended.
    pub(super) fn forget_replay(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        trash: &mut Trash<H, M, D>,
    ) {
        if let Some(recall) = &mut self.recall {
            let topic = self.registry.group_name(subscription.group);
            recall.forget(subscription, topic.map(|name| &**name));
        }
        let lane = self.registry.group(subscription.group).lane;
        let Some(lane) = self.lanes.get_mut(lane as usize) else {
            return;
        };
        if let Some(replay) = lane.replays.remove(&subscription.serial) {
            self.waiting -= replay.envelopes.len();
            trash.envelopes.extend(replay.envelopes);
        }
    }

    /// Gives up all replays, which are somebody else's to make.
    pub(super) fn forget_replays(&mut self, trash: &mut Trash<H, M, D>) {
        if let Some(recall) = &mut self.recall {
            recall.clear();
        }
        for (_, lane) in &mut self.lanes {
            for replay in std::mem::take(&mut lane.replays).into_values() {
                trash.envelopes.extend(replay.envelopes);
                let chunks = replay.subscription.iter();
                trash
                    .subscriptions
                    .extend(chunks.flat_map(|chunk| chunk.iter().cloned()));
            }
        }
    }

    /// Lets go of the messages that are kept.
    pub(super) fn clear_history(&mut self, trash: &mut Trash<H, M, D>) {
        if let Some(history) = &mut self.history {
            history.clear(&mut trash.envelopes);
        }
    }
}
