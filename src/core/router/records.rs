//! Who came and went, for handlers that are busy. That is a state, not a row of messages: for each
//! who watches, one record waits and takes in what comes after it. So it counts against no limit,
//! and nothing of it is ever given up for something newer.

use triomphe::Arc;

use super::{Envelope, Router, Subscription, Trash};
use crate::core::presence::Presence;

/// A record that waits for one who watches.
pub(super) struct Record<M> {
    /// What is told in the place of what stands in the mailbox or in the queue.
    pub envelope: Arc<Envelope<M>>,
    /// No other subscription gets it, so that it can take in what this one is to be told.
    is_own: bool,
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// Lets a record join the one that waits for the same subscription; tells whether it did. Without
    /// one, it is what waits from now on, and the caller gives it its place. Any other message joins
    /// nothing.
    pub(super) fn joins_record(
        &mut self,
        subscription: &Subscription<H>,
        envelope: &Arc<Envelope<M>>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let Some(later) = (self.find_presence)(&envelope.message) else {
            return false;
        };
        if self.is_awaited(subscription) && self.take_in(subscription, later, trash) {
            return true;
        }
        let record = Record {
            envelope: envelope.clone(),
            is_own: false,
        };
        let before = self.records.insert(subscription.serial, record);
        trash.envelopes.extend(before.map(|record| record.envelope));
        false
    }

    /// Whether anything waits for a subscription, in whatever queue.
    fn is_awaited(&self, subscription: &Subscription<H>) -> bool {
        let mailbox = self.mailboxes.get(&subscription.serial);
        let has_mail = mailbox.is_some_and(|mailbox| !mailbox.is_empty());
        has_mail || subscription.share().queued() > 0
    }

    /// Enters later changes into the record that waits for a subscription, if there is one.
    fn take_in(
        &mut self,
        subscription: &Subscription<H>,
        later: &Presence<M>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let (Some(record), Some(make)) =
            (self.records.get_mut(&subscription.serial), self.make_notice)
        else {
            return false;
        };
        let Some(waiting) = (self.find_presence)(&record.envelope.message) else {
            return false;
        };
        let replaced = &mut self.registry.replaced;
        if record.is_own {
            waiting.take_in(later, replaced);
            return true;
        }
        let own = waiting.copied();
        own.take_in(later, replaced);
        let envelope = Arc::new(Envelope {
            message: make(Arc::new(own)),
            audience: record.envelope.audience,
            sequence: record.envelope.sequence,
            sent_at: record.envelope.sent_at,
        });
        trash
            .envelopes
            .push(std::mem::replace(&mut record.envelope, envelope));
        record.is_own = true;
        true
    }

    /// Where a message leaves the queue in which it waited, puts the record in its place that took in
    /// what came since, if it is one. Tells whether there is still something to tell.
    pub(super) fn take_record(
        &mut self,
        subscription: &Subscription<H>,
        queued: &mut Arc<Envelope<M>>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        if self.records.is_empty() {
            return true;
        }
        let Some(record) = self.records.remove(&subscription.serial) else {
            return true;
        };
        trash
            .envelopes
            .push(std::mem::replace(queued, record.envelope));
        let told = (self.find_presence)(&queued.message);
        told.is_none_or(|presence| !presence.is_empty())
    }

    /// Forgets the record that waits for a subscription; its place is forgotten by the caller.
    pub(super) fn forget_record(
        &mut self,
        subscription: &Subscription<H>,
        trash: &mut Trash<H, M, D>,
    ) {
        let record = self.records.remove(&subscription.serial);
        trash.envelopes.extend(record.map(|record| record.envelope));
    }
}
