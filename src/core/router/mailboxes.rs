//! Messages for handlers that are busy with earlier ones.

use triomphe::Arc;

use super::{Envelope, LaneKey, Loss, OverflowPolicy, Parked, Router, Subscription, Trash};

impl<H, M, D: Clone> Router<H, M, D> {
    /// Leaves a message for a handler that is busy; tells if it is free instead.
    pub fn park(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        envelope: &Arc<Envelope<M>>,
        trash: &mut Trash<H, M, D>,
    ) -> Parked {
        if !subscription.is_busy() {
            return Parked::Free;
        }
        if subscription.is_cancelled() {
            return Parked::Waiting;
        }
        if self.joins_record(subscription, envelope, trash) {
            return Parked::Waiting;
        }
        let mailbox = self.mailboxes.entry(subscription.serial).or_default();
        if mailbox.len() < self.limit as usize {
            mailbox.push_back(envelope.clone());
            self.waiting += 1;
            return Parked::Waiting;
        }
        match self.overflow {
            OverflowPolicy::DropNewest => {}
            OverflowPolicy::Unsubscribe if !self.reports.are_behind() => {
                self.expel(subscription, envelope, trash);
                return Parked::Lost;
            }
            OverflowPolicy::DropOldest | OverflowPolicy::Unsubscribe => {
                mailbox.push_back(envelope.clone());
                trash.envelopes.extend(mailbox.pop_front());
            }
        }
        self.lose(subscription, envelope);
        Parked::Lost
    }

    /// Enters that a call of a handler goes on. Beyond what the subscription allows, its messages
    /// wait.
    pub fn enter(&mut self, subscription: &Subscription<H>) {
        self.under_way += 1;
        subscription.enter(self.limit);
    }

    /// Enters that a call of a handler is over.
    pub fn leave(&mut self, subscription: &Subscription<H>) {
        self.under_way = self.under_way.saturating_sub(1);
        subscription.leave(self.limit);
    }

    /// Enters that a call of a handler goes on no more and will never be over, and gives up what
    /// waits for that; returns how many messages those were.
    pub fn forsake(&mut self, subscription: &Subscription<H>, trash: &mut Trash<H, M, D>) -> usize {
        let mailbox = self.mailboxes.remove(&subscription.serial);
        let mailbox = mailbox.unwrap_or_default();
        let count = mailbox.len();
        if count > 0 {
            self.forget_record(subscription, trash);
        }
        self.waiting -= count;
        self.dropped += count;
        trash.envelopes.extend(mailbox);
        self.leave(subscription);
        count
    }

    /// Gives up what waits for handlers that are busy.
    pub(super) fn abandon_mailboxes(&mut self, trash: &mut Trash<H, M, D>) {
        for (_, mailbox) in self.mailboxes.drain() {
            self.waiting -= mailbox.len();
            self.dropped += mailbox.len();
            trash.envelopes.extend(mailbox);
        }
    }

    /// Enters that the calls are over of handlers that nobody goes on with.
    pub(super) fn abandon_resumed(&mut self, trash: &mut Trash<H, M, D>) {
        let resumed = self.lanes.iter_mut().map(|(_, lane)| &mut lane.resumed);
        for subscription in resumed.flat_map(std::mem::take).collect::<Vec<_>>() {
            self.leave(&subscription);
            trash.subscriptions.push(subscription);
        }
    }

    /// The next message that waits for a handler whose call is over. Without one, the call is
    /// entered as over, and with it a burst of losses, if one goes on. `last` is the message that
    /// the handler was called with, where there is one.
    pub fn unpark(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        last: Option<&Arc<Envelope<M>>>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<Arc<Envelope<M>>> {
        while let Some(mut envelope) = self.take_mail(subscription) {
            if self.take_record(subscription, &mut envelope, trash) {
                return Some(envelope);
            }
            trash.envelopes.push(envelope);
        }
        self.mailboxes.remove(&subscription.serial);
        self.leave(subscription);
        if !self.reports.are_behind()
            && let Some(burst) = subscription.share().end_burst()
        {
            let loss = Loss::Recovered(subscription.clone(), last.cloned(), burst);
            self.reports.note(loss);
        }
        None
    }

    fn take_mail(&mut self, subscription: &Subscription<H>) -> Option<Arc<Envelope<M>>> {
        let mailbox = self.mailboxes.get_mut(&subscription.serial)?;
        let envelope = mailbox.pop_front()?;
        self.waiting -= 1;
        Some(envelope)
    }

    /// Enters that a handler's awaitable is done, so that its deliverer goes on with what waits.
    pub fn resume(&mut self, lane: LaneKey, subscription: Arc<Subscription<H>>) -> Option<D> {
        let lane = self.lanes.get_mut(lane as usize)?;
        lane.resumed.push_back(subscription);
        lane.hire().then(|| lane.deliverer.clone())
    }

    /// Puts back what [`Self::next_resumed`] gave, and the lane to sleep: the next deliverer goes
    /// on with it. Gives back what none will go on with.
    pub fn interrupt_resumed(
        &mut self,
        lane: LaneKey,
        subscription: Arc<Subscription<H>>,
    ) -> Option<Arc<Subscription<H>>> {
        let lane = self.lanes.get_mut(lane as usize);
        let Some(lane) = lane.filter(|_| !self.finished) else {
            self.leave(&subscription);
            return Some(subscription);
        };
        lane.resumed.push_front(subscription);
        lane.awake = 0;
        None
    }

    /// A handler that [`Self::resume`] entered.
    pub fn next_resumed(&mut self, lane: LaneKey) -> Option<Arc<Subscription<H>>> {
        self.lanes.get_mut(lane as usize)?.resumed.pop_front()
    }

    /// Whether messages wait for a handler whose call is over; without any, as [`Self::unpark`].
    pub fn has_mail(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        last: Option<&Arc<Envelope<M>>>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let mailbox = self.mailboxes.get(&subscription.serial);
        mailbox.is_some_and(|mailbox| !mailbox.is_empty())
            || self.unpark(subscription, last, trash).is_some()
    }
}
