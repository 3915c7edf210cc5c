//! Losses: counted when they happen, and noted, in that order, for the one thread that reports
//! them.
//!
//! Where reporting is slower than losing, bursts go on instead of ending: what waits to be reported is
//! bounded by [`BEHIND`] and one beginning for each subscription and topic.

use std::collections::VecDeque;

use triomphe::Arc;

use super::{Call, Envelope, LaneKey, Router, Subscription, Trash};

/// With so much to report, whoever reports is behind.
const BEHIND: usize = 100;

/// What somebody is told of losses, other than by a count.
pub enum Loss<H, M> {
    /// A subscription lost the first message of a burst, because of that one.
    Dropped(Call<H, M>),
    /// A subscription was ended because of that message, and lost so many with it.
    Expelled(Call<H, M>, u32),
    /// A subscription has caught up after a burst of that many; with one of its messages, where
    /// there is one at hand.
    Recovered(Arc<Subscription<H>>, Option<Arc<Envelope<M>>>, u32),
    /// A lane does not keep up with the topic of a message: the first of a burst is lost.
    FellBehind(LaneKey, Arc<Envelope<M>>),
    /// A lane has caught up with the topic of a message, after a burst of that many.
    CaughtUp(LaneKey, Arc<Envelope<M>>, u32),
    /// Somebody who keeps messages in a queue of his own has something to tell.
    Beyond,
}

/// What is to be reported.
pub(super) struct Reports<H, M> {
    noted: VecDeque<Loss<H, M>>,
    /// A thread is reporting; it goes on until nothing is left.
    under_way: bool,
}

impl<H, M> Reports<H, M> {
    pub(super) const fn new() -> Self {
        Self {
            noted: VecDeque::new(),
            under_way: false,
        }
    }

    pub(super) fn note(&mut self, loss: Loss<H, M>) {
        self.noted.push_back(loss);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.noted.is_empty() && !self.under_way
    }

    /// Whether so much is to be reported that bursts are better told as one.
    pub(super) fn are_behind(&self) -> bool {
        self.noted.len() >= BEHIND
    }

    /// How much is noted.
    pub(super) fn noted(&self) -> usize {
        self.noted.len()
    }

    /// Forgets what is to be reported: it is somebody else's to do.
    pub(super) fn renew<D>(&mut self, trash: &mut Trash<H, M, D>) {
        self.under_way = false;
        self.forget_since(0, trash);
    }

    /// Forgets what was noted since there was so much.
    pub(super) fn forget_since<D>(&mut self, noted: usize, trash: &mut Trash<H, M, D>) {
        for loss in self.noted.drain(noted..) {
            match loss {
                Loss::Dropped(call) | Loss::Expelled(call, _) => trash.calls.push(call),
                Loss::Recovered(subscription, envelope, _) => {
                    trash.subscriptions.push(subscription);
                    trash.envelopes.extend(envelope);
                }
                Loss::FellBehind(_, envelope) | Loss::CaughtUp(_, envelope, _) => {
                    trash.envelopes.push(envelope);
                }
                Loss::Beyond => {}
            }
        }
    }
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// Whether there is something to report, and nobody who does.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.reports.noted.is_empty() && !self.reports.under_way
    }

    /// Enters that the caller reports from now on, if there is something to report, and nobody who
    /// does. Under the same lock as the change that brought it about: so nobody else has to do it.
    #[inline]
    pub fn begin_reports(&mut self) -> bool {
        if self.reports.noted.is_empty() {
            return false;
        }
        !std::mem::replace(&mut self.reports.under_way, true)
    }

    /// The next thing to report, in the order in which they happened; without one, the caller
    /// reports no more.
    pub fn next_report(&mut self) -> Option<Loss<H, M>> {
        let next = self.reports.noted.pop_front();
        self.reports.under_way = next.is_some();
        next
    }

    /// Notes that somebody who keeps messages in a queue of his own has something to tell.
    pub fn note_beyond(&mut self) {
        self.reports.note(Loss::Beyond);
    }

    /// Counts a message that a subscription loses because of that one; the first of a burst is
    /// news.
    pub(super) fn lose(&mut self, subscription: &Arc<Subscription<H>>, because: &Arc<Envelope<M>>) {
        self.dropped += 1;
        if subscription.share().count_dropped() == 1 {
            let call = (subscription.clone(), because.clone());
            self.reports.note(Loss::Dropped(call));
        }
    }

    /// Ends a subscription that does not keep up, and counts what it loses, with a message for
    /// which there was no room.
    pub(super) fn expel(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        because: &Arc<Envelope<M>>,
        trash: &mut Trash<H, M, D>,
    ) {
        let before = self.waiting;
        self.cancel(subscription, trash);
        trash.subscriptions.push(subscription.clone());
        let count = before - self.waiting + 1;
        self.dropped += count;
        let call = (subscription.clone(), because.clone());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.reports.note(Loss::Expelled(call, count));
    }
}
