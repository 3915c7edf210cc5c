//! The router: takes what is sent, keeps it in order until its deliverer comes for it, and knows
//! which deliverer has to be woken.
//!
//! A *lane* is one way of delivering: an event loop, the executor, or the sender itself. Its log
//! holds what was sent and not yet dispatched. A lane is awake from the moment when something
//! enters its log until its deliverer finds the log empty; both happen under the same lock, so no
//! wake-up is ever lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use slab::Slab;

use super::backlog::Backlog;
use super::fanout::{Envelope, Fanout};
use super::registry::{CallQueue, Registry, Scope};
use super::subscription::{Own, Subscription};
use super::{GroupKey, LaneKey, SessionKey, Trash};

/// One delivery: what to call and with what.
pub type Call<H, M> = (Arc<Subscription<H>>, Arc<Envelope<M>>);

struct Lane<H, M, D> {
    deliverer: D,
    log: Backlog<GroupKey, Arc<Envelope<M>>>,
    /// Deliverers at work, or on their way to it.
    awake: usize,
    /// Those of them that are inside a handler: nobody knows for how long.
    calling: usize,
    /// How many deliverers there may be at once.
    workers: usize,
    /// The message whose dispatch a deliverer had to leave half way.
    interrupted: Option<Fanout<H, M>>,
    /// Calls of handlers that may overlap, where sync handlers run on an executor.
    overlapping: CallQueue<H, M>,
    /// Handlers whose awaitable is done, for the sender's thread to go on with.
    resumed: VecDeque<Arc<Subscription<H>>>,
    groups: usize,
    /// Whether it outlives its subscribers.
    permanent: bool,
}

impl<H, M, D> Lane<H, M, D> {
    /// Enters one more deliverer, if all there are may be busy for long and there may be more.
    fn hire(&mut self) -> bool {
        let hired = self.awake <= self.calling && self.awake < self.workers;
        self.awake += usize::from(hired);
        hired
    }
}

/// A call for a worker to make.
pub struct NextCall<H, M> {
    /// The call.
    pub call: Call<H, M>,
    /// The size of the burst of losses that ends with it.
    pub burst: Option<u32>,
    /// One more worker was entered and must be started: there is work besides this call.
    pub hired: bool,
}

/// Work for any worker of an executor.
pub enum Ready {
    /// A session has calls to make, one after the other.
    Session(SessionKey),
    /// A call of a handler that may overlap with others.
    Overlapping,
}

/// Losses that a dispatch brought about or to an end.
pub enum Loss<H, M> {
    /// A subscription lost a message, the n-th of a burst.
    Dropped(Arc<Subscription<H>>, u32),
    /// The lane has caught up with the topic of a message, after a burst of that many.
    CaughtUp(Arc<Envelope<M>>, u32),
}

/// What a send did.
pub struct Published<D> {
    /// The deliverers that slept and must be woken, each exactly once.
    pub wake: Vec<D>,
    /// Whether a message gave way to it, the first of a burst, because a lane does not keep up.
    pub burst: bool,
}

/// What became of a message for a handler that may be busy.
pub enum Parked {
    /// The handler is free: call it.
    Free,
    /// The message waits until the handler is free.
    Waiting,
    /// The message waits, and the oldest gave way to it: the n-th of a burst.
    Dropped(u32),
}

/// Sizes, for the hub's statistics.
pub struct Sizes {
    /// Sends so far.
    pub published: u64,
    /// Deliveries given up with messages in a lane's log, or with an executor.
    pub dropped: usize,
    /// Messages in queues.
    pub pending: usize,
    /// Sessions with a subscription.
    pub sessions: usize,
    /// Topics with a subscription.
    pub topics: usize,
    /// Subscriptions.
    pub subscriptions: usize,
}

/// Everything that a hub knows. `H` is a handler, `M` a message and `D` a deliverer; the router
/// never looks inside them.
pub struct Router<H, M, D> {
    sequence: u64,
    published: u64,
    dropped: usize,
    limit: u32,
    closed: bool,
    registry: Registry<H, M>,
    lanes: Slab<Lane<H, M, D>>,
    /// Messages for handlers that are busy with an earlier one, by the subscription's serial.
    mailboxes: HashMap<u64, VecDeque<Arc<Envelope<M>>>, RandomState>,
    /// Messages in mailboxes and in sessions' queues.
    waiting: usize,
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// A router that lets `limit` messages wait for each subscription.
    pub fn new(limit: u32) -> Self {
        Self {
            sequence: 0,
            published: 0,
            dropped: 0,
            limit,
            closed: false,
            registry: Registry::new(),
            lanes: Slab::new(),
            mailboxes: HashMap::default(),
            waiting: 0,
        }
    }

    /// The tables of subscriptions.
    pub fn registry(&self) -> &Registry<H, M> {
        &self.registry
    }

    /// Refuses sends and subscriptions from now on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The router's sizes.
    pub fn sizes(&self) -> Sizes {
        let (sessions, topics, subscriptions) = self.registry.sizes();
        let logged: usize = self.lanes.iter().map(|(_, lane)| lane.log.len()).sum();
        let pending = logged + self.waiting;
        Sizes {
            published: self.published,
            dropped: self.dropped,
            pending,
            sessions,
            topics,
            subscriptions,
        }
    }

    /// Adds a way of delivering.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "four billion lanes do not fit in memory"
    )]
    pub fn add_lane(
        &mut self,
        permanent: bool,
        workers: usize,
        deliverer: impl FnOnce(LaneKey) -> D,
    ) -> D {
        let entry = self.lanes.vacant_entry();
        let deliverer = deliverer(entry.key() as LaneKey);
        entry.insert(Lane {
            deliverer: deliverer.clone(),
            log: Backlog::new(),
            awake: 0,
            calling: 0,
            workers,
            interrupted: None,
            overlapping: Backlog::new(),
            resumed: VecDeque::new(),
            groups: 0,
            permanent,
        });
        deliverer
    }

    /// The ways of delivering.
    pub fn deliverers(&self) -> impl Iterator<Item = &D> {
        self.lanes.iter().map(|(_, lane)| &lane.deliverer)
    }

    // ---- subscriptions ----------------------------------------------------------------------

    /// Subscribes a handler to what is sent from now on.
    pub fn subscribe(
        &mut self,
        session: &[u8],
        topic: Option<&[u8]>,
        lane: LaneKey,
        handler: H,
        overlaps: bool,
    ) -> Arc<Subscription<H>> {
        self.sequence += 1;
        let place = (
            self.sequence,
            overlaps,
            if overlaps { self.limit } else { 1 },
        );
        let (subscription, new_group) = self.registry.insert(session, topic, lane, handler, place);
        if new_group {
            self.lanes[lane as usize].groups += 1;
        }
        subscription
    }

    /// Ends a session's subscriptions.
    pub fn unsubscribe(&mut self, session: &[u8], scope: &Scope<'_>, trash: &mut Trash<H, M, D>) {
        for subscription in self.registry.in_scope(session, scope) {
            subscription.cancel();
            self.forget(&subscription, trash);
            trash.subscriptions.push(subscription);
        }
        if let Some(session) = self.registry.session_key(session) {
            self.sweep_queue(session, trash);
        }
        self.sweep_overlapping(trash);
    }

    /// Ends one subscription.
    pub fn cancel(&mut self, subscription: &Arc<Subscription<H>>, trash: &mut Trash<H, M, D>) {
        if subscription.cancel() {
            self.forget(subscription, trash);
            self.sweep_queue(subscription.session, trash);
            self.sweep_overlapping(trash);
        }
    }

    /// The deliverer of a subscription that has not ended.
    pub fn deliverer_of(&self, subscription: &Subscription<H>) -> Option<D> {
        if subscription.is_cancelled() {
            return None;
        }
        let lane = self.registry.group(subscription.group).lane;
        self.lanes
            .get(lane as usize)
            .map(|lane| lane.deliverer.clone())
    }

    /// The deliverer of a lane.
    pub fn deliverer(&self, lane: LaneKey) -> Option<&D> {
        self.lanes.get(lane as usize).map(|lane| &lane.deliverer)
    }

    /// Ends every subscription that a lane serves: it cannot deliver any more.
    pub fn cut_off(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) {
        let registry = &self.registry;
        let served = registry
            .iter()
            .filter(|s| registry.group(s.group).lane == lane);
        for subscription in served.cloned().collect::<Vec<_>>() {
            self.cancel(&subscription, trash);
            trash.subscriptions.push(subscription);
        }
    }

    /// Takes a cancelled subscription, and what waits for it alone, out of the tables.
    fn forget(&mut self, subscription: &Arc<Subscription<H>>, trash: &mut Trash<H, M, D>) {
        self.registry.remove(subscription);
        if let Some(mailbox) = self.mailboxes.remove(&subscription.serial) {
            self.waiting -= mailbox.len();
            trash.envelopes.extend(mailbox);
        }
        self.release_group(subscription.group, trash);
    }

    /// Takes calls of cancelled subscriptions out of a session's queue.
    fn sweep_queue(&mut self, session: SessionKey, trash: &mut Trash<H, M, D>) {
        if let Some(owner) = self.registry.session(session) {
            let before = owner.queue.len();
            owner
                .queue
                .remove_unless(|s| !s.is_cancelled(), &Own, &mut trash.calls);
            self.waiting -= before - owner.queue.len();
        }
        self.registry.release_session(session);
    }

    /// Takes calls of cancelled subscriptions out of the queues of calls that may overlap.
    fn sweep_overlapping(&mut self, trash: &mut Trash<H, M, D>) {
        for (_, lane) in &mut self.lanes {
            let queue = &mut lane.overlapping;
            let before = queue.len();
            if before > 0 {
                queue.remove_unless(|s| !s.is_cancelled(), &Own, &mut trash.calls);
                self.waiting -= before - queue.len();
            }
        }
    }

    fn release_group(&mut self, group: GroupKey, trash: &mut Trash<H, M, D>) {
        if let Some(lane) = self.registry.release_group(group) {
            self.lanes[lane as usize].groups -= 1;
            self.release_lane(lane, trash);
        }
    }

    /// Forgets a lane that was made for subscribers who have all left.
    fn release_lane(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) {
        let Some(state) = self.lanes.get(lane as usize) else {
            return;
        };
        if !state.permanent && state.groups == 0 && state.awake == 0 {
            trash
                .deliverers
                .push(self.lanes.remove(lane as usize).deliverer);
        }
    }

    // ---- publish ----------------------------------------------------------------------------

    /// Enters a message into the log of every lane that has a subscriber for it. Costs the same
    /// for one subscriber and for any number of them, and nothing is made where there is none.
    pub fn publish(
        &mut self,
        topic: Option<&[u8]>,
        except: Option<&[u8]>,
        message: impl FnOnce() -> M,
        trash: &mut Trash<H, M, D>,
    ) -> Published<D> {
        self.published += 1;
        let mut published = Published {
            wake: Vec::new(),
            burst: false,
        };
        let except = except.and_then(|id| self.registry.session_key(id));
        let mut message = Some(message);
        let mut envelope = None;
        for index in 0..self.registry.groups_on(topic).len() {
            let group = self.registry.groups_on(topic)[index];
            if self.reaches_nobody(group, except) {
                continue;
            }
            if let Some(message) = message.take() {
                self.sequence += 1;
                let sequence = self.sequence;
                envelope = Some(Arc::new(Envelope {
                    message: message(),
                    except,
                    sequence,
                }));
            }
            if let Some(envelope) = envelope.clone() {
                self.log(group, envelope, &mut published, trash);
            }
        }
        published
    }

    fn reaches_nobody(&self, group: GroupKey, except: Option<SessionKey>) -> bool {
        let members = self.registry.group(group).roster.len();
        members == except.map_or(0, |session| self.registry.members_of(session, group))
    }

    fn log(
        &mut self,
        group: GroupKey,
        envelope: Arc<Envelope<M>>,
        published: &mut Published<D>,
        trash: &mut Trash<H, M, D>,
    ) {
        let before = trash.logged.len();
        let members = self.registry.group(group);
        let lane = &mut self.lanes[members.lane as usize];
        if lane.log.push(group, envelope, &members.share, self.limit) {
            published.burst |= members.share.count_dropped() == 1;
            lane.log.compact(&self.registry, &mut trash.logged);
        }
        if lane.hire() {
            published.wake.push(lane.deliverer.clone());
        }
        self.settle_losses(before, trash);
    }

    // ---- dispatch ---------------------------------------------------------------------------

    /// The next message of a lane's log with those who get it. `None` puts the lane to sleep.
    pub fn next_fanout(
        &mut self,
        lane: LaneKey,
        trash: &mut Trash<H, M, D>,
    ) -> Option<Fanout<H, M>> {
        let fanout = self.pop_fanout(lane, trash);
        if fanout.is_none() {
            self.interrupt(lane, None);
            self.release_lane(lane, trash);
        }
        fanout
    }

    fn pop_fanout(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) -> Option<Fanout<H, M>> {
        if let Some(fanout) = self.lanes.get_mut(lane as usize)?.interrupted.take() {
            return Some(fanout);
        }
        loop {
            let state = self.lanes.get_mut(lane as usize)?;
            let before = trash.logged.len();
            let popped = state.log.pop(&self.registry, &mut trash.logged);
            self.settle_losses(before, trash);
            let (group, envelope) = popped?;
            let Some(members) = self.registry.group_mut(group) else {
                trash.envelopes.push(envelope);
                continue;
            };
            let burst = members.share.caught_up();
            if members.roster.is_empty() {
                trash.envelopes.push(envelope);
                self.release_group(group, trash);
                continue;
            }
            return Some(Fanout::new(members.roster.snapshot(), envelope, burst));
        }
    }

    /// Counts the deliveries that are lost with the messages that gave way since there were
    /// `before` of them, and forgets groups that nothing else is left of.
    fn settle_losses(&mut self, before: usize, trash: &mut Trash<H, M, D>) {
        for index in before..trash.logged.len() {
            let (group, envelope) = &trash.logged[index];
            self.dropped += self.registry.recipients(*group, envelope);
        }
        for index in before..trash.logged.len() {
            self.release_group(trash.logged[index].0, trash);
        }
    }

    /// Puts the lane to sleep in the middle of a message; the next deliverer goes on with it.
    pub fn interrupt(&mut self, lane: LaneKey, fanout: Option<Fanout<H, M>>) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.interrupted = fanout;
            lane.awake = 0;
        }
    }

    /// Gives up everything in a lane's log, because nobody will come for it; returns how many
    /// messages that were.
    pub fn abandon(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) -> usize {
        if !self.lanes.contains(lane as usize) {
            return 0;
        }
        let mut count = 0;
        while let Some(mut fanout) = self.pop_fanout(lane, trash) {
            count += 1;
            self.dropped += fanout.give_up();
            trash.fanouts.push(fanout);
        }
        self.interrupt(lane, None);
        self.release_lane(lane, trash);
        count
    }

    /// Gives up the calls that wait for a lane's workers, because there are none any more; returns
    /// how many that were.
    pub fn abandon_calls(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) -> usize {
        let queue = &mut self.lanes[lane as usize].overlapping;
        let mut count = queue.len();
        queue.remove_unless(|_| false, &Own, &mut trash.calls);
        count += self.registry.abandon_queues(&mut trash.calls);
        self.dropped += count;
        self.waiting -= count;
        count
    }

    /// Gives up everything.
    pub fn clear(&mut self, trash: &mut Trash<H, M, D>) {
        for subscription in self.registry.iter().cloned().collect::<Vec<_>>() {
            self.cancel(&subscription, trash);
            trash.subscriptions.push(subscription);
        }
        let lanes: Vec<_> = self.lanes.iter().map(|(index, _)| index).collect();
        for lane in lanes {
            #[expect(clippy::cast_possible_truncation, reason = "a lane's key fits")]
            self.abandon(lane as LaneKey, trash);
        }
    }

    // ---- busy handlers ----------------------------------------------------------------------

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
        mailbox.push_back(envelope.clone());
        if mailbox.len() <= self.limit as usize {
            self.waiting += 1;
            return Parked::Waiting;
        }
        trash.envelopes.extend(mailbox.pop_front());
        Parked::Dropped(subscription.share.count_dropped())
    }

    /// Enters that a call of a handler goes on. Beyond what the subscription allows, its messages
    /// wait.
    pub fn enter(&mut self, subscription: &Subscription<H>) {
        subscription.enter();
    }

    /// Enters that a call of a handler is over.
    pub fn leave(&mut self, subscription: &Subscription<H>) {
        subscription.leave();
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
        subscription.leave();
        (None, subscription.share.end_burst())
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

    // ---- workers ----------------------------------------------------------------------------

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
                && fanout.seek()
                && let Some(subscription) = fanout.current()
            {
                let call = (subscription.clone(), fanout.envelope.clone());
                fanout.advance();
                left -= 1;
                if call.0.overlaps {
                    if self.enqueue_overlapping(lane, call, losses, trash) {
                        ready(Ready::Overlapping);
                    }
                } else if let Some(session) = self.enqueue(call, losses, trash) {
                    ready(Ready::Session(session));
                }
            }
            if fanout.seek() {
                self.lanes[lane as usize].interrupted = Some(fanout);
            } else {
                trash.fanouts.push(fanout);
            }
        }
    }

    /// Appends a call to its session's queue; returns the session if it was idle.
    fn enqueue(
        &mut self,
        (subscription, envelope): Call<H, M>,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> Option<SessionKey> {
        let session = subscription.session;
        let owner = self.registry.session(session)?;
        let before = owner.queue.len();
        if owner.queue.push(
            subscription.clone(),
            envelope,
            &subscription.share,
            self.limit,
        ) {
            losses.push(Loss::Dropped(
                subscription.clone(),
                subscription.share.count_dropped(),
            ));
            owner.queue.compact(&Own, &mut trash.calls);
        }
        self.waiting += owner.queue.len() - before;
        (!std::mem::replace(&mut owner.scheduled, true)).then_some(session)
    }

    /// Appends a call of a handler that may overlap; tells whether the queue grew by it.
    fn enqueue_overlapping(
        &mut self,
        lane: LaneKey,
        (subscription, envelope): Call<H, M>,
        losses: &mut Vec<Loss<H, M>>,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let queue = &mut self.lanes[lane as usize].overlapping;
        let before = queue.len();
        if queue.push(
            subscription.clone(),
            envelope,
            &subscription.share,
            self.limit,
        ) {
            losses.push(Loss::Dropped(
                subscription.clone(),
                subscription.share.count_dropped(),
            ));
            queue.compact(&Own, &mut trash.calls);
        }
        self.waiting += queue.len() - before;
        queue.len() > before
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
            let Some(call) = owner.queue.pop(&Own, &mut trash.calls) else {
                owner.scheduled = false;
                self.registry.release_session(session);
                return None;
            };
            self.waiting -= 1;
            match self.park(&call.0, &call.1, trash) {
                Parked::Free if !call.0.is_cancelled() => {
                    return Some(self.hand_out(lane, call, more));
                }
                Parked::Dropped(count) => losses.push(Loss::Dropped(call.0, count)),
                Parked::Free | Parked::Waiting => trash.calls.push(call),
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
            match self.park(&call.0, &call.1, trash) {
                Parked::Free if !call.0.is_cancelled() => {
                    return Some(self.hand_out(lane, call, more));
                }
                Parked::Dropped(count) => losses.push(Loss::Dropped(call.0, count)),
                Parked::Free | Parked::Waiting => trash.calls.push(call),
            }
        }
    }

    fn hand_out(
        &mut self,
        lane: LaneKey,
        call: Call<H, M>,
        more: impl FnOnce() -> bool,
    ) -> NextCall<H, M> {
        let burst = call.0.share.caught_up();
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
        owner.scheduled = !owner.queue.is_empty();
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
        subscription.leave();
        let (state, owner) = (
            self.lanes.get_mut(lane as usize)?,
            self.registry.session(subscription.session)?,
        );
        let overlaps = subscription.overlaps;
        let queue = if overlaps {
            &mut state.overlapping
        } else {
            &mut owner.queue
        };
        let count = mailbox.len();
        for envelope in mailbox.into_iter().rev() {
            queue.unpop(subscription.clone(), envelope, &subscription.share);
        }
        if overlaps {
            (0..count).for_each(|_| ready(Ready::Overlapping));
        } else if !queue.is_empty() && !std::mem::replace(&mut owner.scheduled, true) {
            ready(Ready::Session(subscription.session));
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
