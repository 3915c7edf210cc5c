//! Messages for handlers that are busy with earlier ones.

use std::collections::VecDeque;

use triomphe::Arc;

use super::{Envelope, LaneKey, OverflowPolicy, Parked, Router, Subscription, Trash};

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
        let mailbox = self.mailboxes.entry(subscription.serial).or_default();
        if mailbox.len() < self.limit as usize {
            mailbox.push_back(envelope.clone());
            self.waiting += 1;
            return Parked::Waiting;
        }
        match self.overflow {
            OverflowPolicy::DropNewest => {}
            OverflowPolicy::DropOldest => {
                mailbox.push_back(envelope.clone());
                trash.envelopes.extend(mailbox.pop_front());
            }
            OverflowPolicy::Unsubscribe => return Parked::CutOff(self.expel(subscription, trash)),
        }
        Parked::Dropped(subscription.share().count_dropped())
    }

    /// Ends a subscription that does not keep up; returns how many messages it loses.
    pub(super) fn expel(
        &mut self,
        subscription: &Arc<Subscription<H>>,
        trash: &mut Trash<H, M, D>,
    ) -> u32 {
        let before = self.waiting;
        self.cancel(subscription, trash);
        // And the one for which there was no room.
        u32::try_from(before - self.waiting + 1).unwrap_or(u32::MAX)
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
    /// entered as over, and the second value is the size of the burst of losses that ends with it.
    pub fn unpark(
        &mut self,
        subscription: &Subscription<H>,
    ) -> (Option<Arc<Envelope<M>>>, Option<u32>) {
        let mailbox = self.mailboxes.get_mut(&subscription.serial);
        if let Some(envelope) = mailbox.and_then(VecDeque::pop_front) {
            self.waiting -= 1;
            return (Some(envelope), None);
        }
        self.mailboxes.remove(&subscription.serial);
        self.leave(subscription);
        (None, subscription.share().end_burst())
    }

    /// Enters that a handler's awaitable is done, so that its deliverer goes on with what waits.
    pub fn resume(&mut self, lane: LaneKey, subscription: Arc<Subscription<H>>) -> Option<D> {
        let lane = self.lanes.get_mut(lane as usize)?;
        lane.resumed.push_back(subscription);
        lane.hire().then(|| lane.deliverer.clone())
    }

    /// Puts back what [`Self::next_resumed`] gave, and the lane to sleep: the next deliverer goes
    /// on with it.
    pub fn interrupt_resumed(&mut self, lane: LaneKey, subscription: Arc<Subscription<H>>) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.resumed.push_front(subscription);
            lane.awake = 0;
        }
    }

    /// A handler that [`Self::resume`] entered.
    pub fn next_resumed(&mut self, lane: LaneKey) -> Option<Arc<Subscription<H>>> {
        self.lanes.get_mut(lane as usize)?.resumed.pop_front()
    }

    /// Whether messages wait for a handler whose call is over; without any, the call is entered as
    /// over, and the second value is the size of the burst of losses that ends with it.
    pub fn has_mail(&mut self, subscription: &Subscription<H>) -> (bool, Option<u32>) {
        let mailbox = self.mailboxes.get(&subscription.serial);
        if mailbox.is_some_and(|mailbox| !mailbox.is_empty()) {
            return (true, None);
        }
        (false, self.unpark(subscription).1)
    }
}
