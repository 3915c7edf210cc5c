//! Delivery on worker threads: sessions' queues of calls, and how many workers there are.
//!
//! A worker is *awake* from the moment when it is entered, before its job has even begun, until it
//! finds nothing to do; it is *calling* while it is inside a handler or a hook, nobody knows for how
//! long. While every worker that is awake is calling, new work brings in one more.

use triomphe::Arc;

use super::{
    Call, CallQueue, LaneKey, Loss, NextCall, Own, Parked, Ready, Router, SessionKey, Subscription,
    Trash,
};

impl<H, M, D: Clone> Router<H, M, D> {
    /// Moves up to `budget` calls from a lane's log to the sessions that make them; sessions that
    /// get something to do are handed to `ready`.
    pub fn dispatch(
        &mut self,
        lane: LaneKey,
        budget: usize,
        mut ready: impl FnMut(Ready),
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) {
        let mut left = budget;
        while left > 0
            && let Some(mut fanout) = self.pop_fanout(lane, trash)
        {
            if let Some(burst) = fanout.burst.take() {
                losses.push(Loss::CaughtUp(fanout.envelope.clone(), burst));
            }
            while left > 0
                && let Some(subscription) = fanout.take_next()
            {
                let call = (subscription.clone(), fanout.envelope.clone());
                left -= 1;
                if call.0.overlaps() {
                    if self.enqueue_overlapping(lane, call, losses, trash) {
                        ready(Ready::Overlapping);
                    }
                } else if let Some(session) = self.enqueue(call, losses, trash) {
                    ready(Ready::Session(session));
                }
            }
            if fanout.has_next() {
                self.lanes[lane as usize].interrupted = Some(fanout);
            } else {
                trash.fanouts.push(fanout);
            }
        }
    }

    /// Appends a call to its session's queue; returns the session if it was idle.
    fn enqueue(
        &mut self,
        call: Call<H, M>,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<SessionKey> {
        let session = call.0.owner.key();
        let owner = self.registry.session(session)?;
        self.waiting += append(owner.queue(), call, self.limit, losses, trash);
        (!std::mem::replace(&mut owner.scheduled, true)).then_some(session)
    }

    /// Appends a call of a handler that may overlap; tells whether the queue grew by it.
    fn enqueue_overlapping(
        &mut self,
        lane: LaneKey,
        call: Call<H, M>,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let queue = &mut self.lanes[lane as usize].overlapping;
        let grown = append(queue, call, self.limit, losses, trash);
        self.waiting += grown;
        grown > 0
    }

    /// The next call that a session, taken from the run queue, has to make; the worker counts as
    /// calling until it has [`Self::returned`]. `None` lets the session go.
    pub fn next_call(
        &mut self,
        lane: LaneKey,
        session: SessionKey,
        more: impl FnOnce() -> bool,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<NextCall<H, M>> {
        loop {
            let owner = self.registry.session(session)?;
            let Some(call) = owner.queue().pop(&Own, &mut trash.calls) else {
                owner.scheduled = false;
                self.registry.release_session(session);
                return None;
            };
            self.waiting -= 1;
            if let Some(call) = self.if_free(call, losses, trash) {
                return Some(self.hand_out(lane, call, more));
            }
        }
    }

    /// The next call of a handler that may overlap; as with [`Self::next_call`].
    pub fn next_overlapping(
        &mut self,
        lane: LaneKey,
        more: impl FnOnce() -> bool,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<NextCall<H, M>> {
        loop {
            let queue = &mut self.lanes.get_mut(lane as usize)?.overlapping;
            let call = queue.pop(&Own, &mut trash.calls)?;
            self.waiting -= 1;
            if let Some(call) = self.if_free(call, losses, trash) {
                return Some(self.hand_out(lane, call, more));
            }
        }
    }

    /// A call that can be made now; one for a busy handler waits, one for nobody goes.
    fn if_free(
        &mut self,
        call: Call<H, M>,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<Call<H, M>> {
        match self.park(&call.0, &call.1, trash) {
            Parked::Free if !call.0.is_cancelled() => return Some(call),
            Parked::Dropped(count) => losses.push(Loss::Dropped(call.clone(), count)),
            Parked::Free | Parked::Waiting => {}
        }
        trash.calls.push(call);
        None
    }

    fn hand_out(
        &mut self,
        lane: LaneKey,
        call: Call<H, M>,
        more: impl FnOnce() -> bool,
    ) -> NextCall<H, M> {
        let burst = call.0.share().caught_up();
        let hired = self.call_out(lane, more);
        NextCall { call, burst, hired }
    }

    /// Enters that a worker is out of a handler again.
    pub fn returned(&mut self, lane: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.calling = lane.calling.saturating_sub(1);
        }
    }

    /// Lets a session go after a bounded number of calls; `true` if it has more to do and
    /// belongs back into the run queue.
    pub fn put_back(&mut self, session: SessionKey) -> bool {
        let Some(owner) = self.registry.session(session) else {
            return false;
        };
        owner.scheduled = !owner.is_idle();
        let more = owner.scheduled;
        self.registry.release_session(session);
        more
    }

    /// Gives the messages that waited for a busy handler back to its session's queue, before what
    /// is there; the handler becomes free.
    pub fn requeue(
        &mut self,
        lane: LaneKey,
        subscription: &Arc<Subscription<H>>,
        mut ready: impl FnMut(Ready),
    ) -> Option<D> {
        let mailbox = self
            .mailboxes
            .remove(&subscription.serial)
            .unwrap_or_default();
        subscription.leave(self.limit);
        let (state, owner) = (
            self.lanes.get_mut(lane as usize)?,
            self.registry.session(subscription.owner.key())?,
        );
        let overlaps = subscription.overlaps();
        let queue = if overlaps {
            &mut state.overlapping
        } else {
            owner.queue()
        };
        let count = mailbox.len();
        for envelope in mailbox.into_iter().rev() {
            queue.unpop(subscription.clone(), envelope, subscription.share());
        }
        if overlaps {
            (0..count).for_each(|_| ready(Ready::Overlapping));
        } else if !queue.is_empty() && !std::mem::replace(&mut owner.scheduled, true) {
            ready(Ready::Session(subscription.owner.key()));
        } else {
            return None;
        }
        (count > 0 && state.hire()).then(|| state.deliverer.clone())
    }

    /// Lets a worker go if there is nothing left to dispatch and, as `idle` tells, nothing ready.
    pub fn dismiss(&mut self, lane: LaneKey, idle: impl FnOnce() -> bool) -> bool {
        let Some(lane) = self.lanes.get_mut(lane as usize) else {
            return true;
        };
        let done = lane.log.is_empty() && lane.interrupted.is_none() && idle();
        lane.awake = lane.awake.saturating_sub(usize::from(done));
        done
    }

    /// Enters that a worker is busy with something that may take long, as is a call; tells whether
    /// one more worker was entered and must be started.
    pub fn call_out(&mut self, lane: LaneKey, more: impl FnOnce() -> bool) -> bool {
        let work = self.has_log(lane) || more();
        self.lanes.get_mut(lane as usize).is_some_and(|lane| {
            lane.calling += 1;
            work && lane.hire()
        })
    }

    /// Enters that a worker is gone; `true` if it was the last one.
    pub fn lose_worker(&mut self, lane: LaneKey) -> bool {
        let Some(lane) = self.lanes.get_mut(lane as usize) else {
            return false;
        };
        lane.awake = lane.awake.saturating_sub(1);
        lane.awake == 0
    }

    /// Whether messages wait to be dispatched.
    pub fn has_log(&self, lane: LaneKey) -> bool {
        let lane = self.lanes.get(lane as usize);
        lane.is_some_and(|lane| !lane.log.is_empty() || lane.interrupted.is_some())
    }
}

/// Appends a call to a queue; returns by how much the queue grew: not at all where an older call
/// of the same subscription gave way.
fn append<H, M, D>(
    queue: &mut CallQueue<H, M>,
    (subscription, envelope): Call<H, M>,
    limit: u32,
    losses: &mut Vec<Loss<H, M>>,
    trash: &mut Trash<H, M, D>,
) -> usize {
    let before = queue.len();
    if queue.push(
        subscription.clone(),
        envelope.clone(),
        subscription.share(),
        limit,
    ) {
        let count = subscription.share().count_dropped();
        losses.push(Loss::Dropped((subscription, envelope), count));
        queue.compact(&Own, &mut trash.calls);
    }
    queue.len() - before
}
