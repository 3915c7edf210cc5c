//! Delivery on worker threads: sessions' queues of calls, and how many workers there are.
//!
//! A worker is *awake* from the moment when it is entered, before its job has even begun, until it
//! finds nothing to do; it is *calling* while it is inside a handler or a hook, nobody knows for how
//! long. While every worker that is awake is calling, new work brings in one more.

use triomphe::Arc;

use super::{
    Call, LaneKey, Loss, NextCall, OverflowPolicy, Own, Parked, Ready, Router, SessionKey,
    Subscription, Trash,
};

impl<H, M, D: Clone> Router<H, M, D> {
    /// Begins a turn of the log, in which no session makes more than one call.
    pub fn begin_turn(&mut self, lane: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.turn = lane.turn.wrapping_add(1);
        }
    }

    /// The next call of a lane's log. On the way to it, calls of sessions that are with another
    /// worker, or had their call in this turn, join their session's queue: so those who get little
    /// need not wait for those who get much. `ready` gets what any worker may take. `None` if the
    /// log is empty, no call was found among the next `budget`, or there are losses to report first:
    /// that can take long, and no session must wait for it.
    pub fn next_logged(
        &mut self,
        lane: LaneKey,
        budget: usize,
        mut ready: impl FnMut(Ready),
        more: impl FnOnce() -> bool,
        trash: &mut Trash<H, M, D>,
    ) -> Option<NextCall<H, M>> {
        for _ in 0..budget {
            let call = self.take_logged(lane, trash)?;
            if let Some((call, claimed)) = self.claim(lane, call, &mut ready, trash) {
                if let Some(call) = self.if_free(call, trash) {
                    let next = self.hand_out(lane, call, more);
                    return Some(NextCall { claimed, ..next });
                }
                if let Some(session) = claimed {
                    self.put_back(session, &mut ready);
                }
            }
            if self.has_news() {
                return None;
            }
        }
        None
    }

    /// Claims the session of a call for the worker that makes it; `None` if the call has to wait.
    fn claim(
        &mut self,
        lane: LaneKey,
        call: Call<H, M>,
        mut ready: impl FnMut(Ready),
        trash: &mut Trash<H, M, D>,
    ) -> Option<(Call<H, M>, Option<SessionKey>)> {
        let state = &self.lanes[lane as usize];
        if call.0.overlaps() {
            if state.overlapping.is_empty() {
                return Some((call, None));
            }
            if self.enqueue(lane, call, trash) {
                ready(Ready::Overlapping);
            }
            return None;
        }
        let session = call.0.owner.key();
        let Some(owner) = self.registry.session(session) else {
            trash.calls.push(call);
            return None;
        };
        let is_scheduled = std::mem::replace(&mut owner.scheduled, true);
        if !is_scheduled && std::mem::replace(&mut owner.turn, state.turn) != state.turn {
            return Some((call, Some(session)));
        }
        self.enqueue(lane, call, trash);
        if !is_scheduled {
            ready(Ready::Session(session));
        }
        None
    }

    /// Takes the next call of the message that the lane's workers are at, or of the next one. `None`
    /// if the log is empty, or the end of a burst of losses is to be reported before the next one.
    fn take_logged(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) -> Option<Call<H, M>> {
        loop {
            let noted = self.reports.noted();
            let fanout = self.pop_fanout(lane, trash)?;
            if self.reports.noted() > noted && self.has_news() {
                self.lanes[lane as usize].interrupted = Some(fanout);
                return None;
            }
            let next = fanout.take_next();
            let call = next.map(|subscription| (subscription.clone(), fanout.envelope.clone()));
            if fanout.has_next() {
                self.lanes[lane as usize].interrupted = Some(fanout);
            } else {
                trash.fanouts.push(fanout);
            }
            if call.is_some() {
                return call;
            }
        }
    }

    /// Leaves a call to the queue of its session, or to that of calls that may overlap; tells
    /// whether the queue grew by it.
    fn enqueue(&mut self, lane: LaneKey, call: Call<H, M>, trash: &mut Trash<H, M, D>) -> bool {
        if self.joins_record(&call.0, &call.1, trash) {
            trash.calls.push(call);
            return false;
        }
        let is_full = call.0.share().queued() >= self.limit;
        match self.overflow {
            OverflowPolicy::DropNewest if is_full => {
                self.lose(&call.0, &call.1);
                trash.calls.push(call);
                false
            }
            OverflowPolicy::Unsubscribe if is_full && !self.reports.are_behind() => {
                self.expel(&call.0, &call.1, trash);
                trash.calls.push(call);
                false
            }
            _ => self.append(lane, call, trash),
        }
    }

    /// Appends a call to its queue, where an older one of the same subscription may give way.
    fn append(
        &mut self,
        lane: LaneKey,
        (subscription, envelope): Call<H, M>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let session = self.registry.session(subscription.owner.key());
        let queue = match session {
            Some(owner) if !subscription.overlaps() => owner.queue(),
            _ => &mut self.lanes[lane as usize].overlapping,
        };
        let (before, share) = (queue.len(), subscription.share());
        let gave_way = queue.push(subscription.clone(), envelope.clone(), share, self.limit);
        if gave_way {
            queue.compact(&Own, &mut trash.calls);
        }
        let grown = queue.len() - before;
        self.waiting += grown;
        if gave_way {
            self.lose(&subscription, &envelope);
        }
        grown > 0
    }

    /// The next call that a session, taken from the run queue, has to make; the worker counts as
    /// calling until it has [`Self::returned`]. `None` lets the session go.
    pub fn next_call(
        &mut self,
        lane: LaneKey,
        session: SessionKey,
        more: impl FnOnce() -> bool,
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
            if let Some(call) = self.unqueue(call, trash) {
                return Some(self.hand_out(lane, call, more));
            }
        }
    }

    /// The next call of a handler that may overlap; as with [`Self::next_call`].
    pub fn next_overlapping(
        &mut self,
        lane: LaneKey,
        more: impl FnOnce() -> bool,
        trash: &mut Trash<H, M, D>,
    ) -> Option<NextCall<H, M>> {
        loop {
            let queue = &mut self.lanes.get_mut(lane as usize)?.overlapping;
            let call = queue.pop(&Own, &mut trash.calls)?;
            self.waiting -= 1;
            if let Some(call) = self.unqueue(call, trash) {
                return Some(self.hand_out(lane, call, more));
            }
        }
    }

    /// A call that waited in a queue, if it can be made now and still tells something.
    fn unqueue(&mut self, mut call: Call<H, M>, trash: &mut Trash<H, M, D>) -> Option<Call<H, M>> {
        if self.take_record(&call.0, &mut call.1, trash) {
            return self.if_free(call, trash);
        }
        trash.calls.push(call);
        None
    }

    /// A call that can be made now; one for a busy handler waits, one for nobody goes.
    fn if_free(&mut self, call: Call<H, M>, trash: &mut Trash<H, M, D>) -> Option<Call<H, M>> {
        match self.park(&call.0, &call.1, trash) {
            Parked::Free if !call.0.is_cancelled() => Some(call),
            Parked::Free | Parked::Waiting | Parked::Lost => {
                trash.calls.push(call);
                None
            }
        }
    }

    fn hand_out(
        &mut self,
        lane: LaneKey,
        call: Call<H, M>,
        more: impl FnOnce() -> bool,
    ) -> NextCall<H, M> {
        if !self.reports.are_behind()
            && let Some(burst) = call.0.caught_up()
        {
            let (subscription, envelope) = call.clone();
            let loss = Loss::Recovered(subscription, Some(envelope), burst);
            self.reports.note(loss);
        }
        let hired = self.call_out(lane, more);
        NextCall {
            call,
            claimed: None,
            hired,
        }
    }

    /// Enters that a worker is out of a handler again.
    pub fn returned(&mut self, lane: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.calling = lane.calling.saturating_sub(1);
        }
    }

    /// Lets a session go after a bounded number of calls; if it has more to do, `ready` gets it.
    pub fn put_back(&mut self, session: SessionKey, mut ready: impl FnMut(Ready)) {
        let Some(owner) = self.registry.session(session) else {
            return;
        };
        owner.scheduled = !owner.is_idle();
        if owner.scheduled {
            ready(Ready::Session(session));
        } else {
            self.registry.release_session(session);
        }
    }

    /// Gives the messages that waited for a busy handler back to its session's queue, before what
    /// is there; the handler becomes free.
    pub fn requeue(
        &mut self,
        lane: LaneKey,
        subscription: &Arc<Subscription<H>>,
        mut ready: impl FnMut(Ready),
        trash: &mut Trash<H, M, D>,
    ) -> Option<D> {
        let mailbox = self
            .mailboxes
            .remove(&subscription.serial)
            .unwrap_or_default();
        self.leave(subscription);
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
        if count > 0 && subscription.share().has_stale() {
            queue.purge(&Own, &mut trash.calls);
        }
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
        let done = !lane.has_log() && idle();
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
        lane.is_some_and(super::Lane::has_log)
    }
}
