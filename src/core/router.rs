//! The router: takes what is sent, keeps it in order until its deliverer comes for it, and knows
//! which deliverer has to be woken.
//!
//! A *lane* is one way of delivering: an event loop, the executor, or the sender itself. Its log
//! holds what was sent and not yet dispatched. A lane is awake from the moment when something
//! enters its log until its deliverer finds the log empty; both happen under the same lock, so no
//! wake-up is ever lost.

mod mailboxes;
mod renewal;
mod workers;

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use triomphe::Arc;

use super::backlog::{Backlog, OverflowPolicy};
use super::fanout::{Envelope, Fanout};
use super::registry::{CallQueue, Registry, Scope};
use super::subscription::{Listener, Own, Subscription};
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
    /// The turn of its log, where sync handlers run on an executor.
    turn: u32,
    /// Handlers whose awaitable is done, for the sender's thread to go on with.
    resumed: VecDeque<Arc<Subscription<H>>>,
    groups: usize,
    /// Whether it outlives its subscribers.
    permanent: bool,
}

impl<H, M, D> Lane<H, M, D> {
    fn is_idle(&self) -> bool {
        let nothing_left = self.log.is_empty() && self.interrupted.is_none();
        nothing_left && self.resumed.is_empty() && self.awake == 0
    }

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
    /// The session that makes this call alone, to be put back after it.
    pub claimed: Option<SessionKey>,
    /// The size of the burst of losses that ends with it.
    pub burst: Option<u32>,
    /// One more worker was entered and must be started: there is work besides this call.
    pub hired: bool,
}

/// Work for any worker of an executor.
#[derive(Clone, Copy)]
pub enum Ready {
    /// A session has calls to make, one after the other.
    Session(SessionKey),
    /// A call of a handler that may overlap with others.
    Overlapping,
}

/// Losses that a dispatch brought about or to an end.
pub enum Loss<H, M> {
    /// A subscription lost a message because of that one, the n-th of a burst.
    Dropped(Call<H, M>, u32),
    /// A subscription was ended because of that message, and lost so many with it.
    CutOff(Call<H, M>, u32),
    /// A subscription has caught up with that message, after a burst of that many.
    Recovered(Call<H, M>, u32),
    /// The lane has caught up with the topic of a message, after a burst of that many.
    CaughtUp(Arc<Envelope<M>>, u32),
}

impl<H, M> Loss<H, M> {
    /// Whether anybody is told of it, other than by a count.
    pub fn is_news(&self) -> bool {
        !matches!(self, Self::Dropped(_, count) if *count > 1)
    }
}

/// What a send did.
pub struct Published<D> {
    /// The deliverers that slept and must be woken, each exactly once.
    pub wake: SmallVec<[D; 2]>,
    /// Whether a message gave way to it, the first of a burst, because a lane does not keep up.
    pub burst: bool,
}

/// What became of a message for a handler that may be busy.
pub enum Parked {
    /// The handler is free: call it.
    Free,
    /// The message waits until the handler is free.
    Waiting,
    /// A message was lost, this one or one that gave way to it: the n-th of a burst.
    Dropped(u32),
    /// The subscription was ended, and lost so many messages with it.
    CutOff(u32),
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
    overflow: OverflowPolicy,
    closed: bool,
    finished: bool,
    registry: Registry<H, M>,
    lanes: Slab<Lane<H, M, D>>,
    /// Messages for handlers that are busy with an earlier one, by the subscription's serial.
    mailboxes: HashMap<u64, VecDeque<Arc<Envelope<M>>>, RandomState>,
    /// Messages in mailboxes and in sessions' queues.
    waiting: usize,
    /// Calls that go on, with a task of their own.
    under_way: usize,
}

impl<H, M, D: Clone> Router<H, M, D> {
    /// A router that lets `limit` messages wait for each subscription.
    pub fn new(limit: u32, overflow: OverflowPolicy) -> Self {
        Self {
            sequence: 0,
            published: 0,
            dropped: 0,
            limit,
            overflow,
            closed: false,
            finished: false,
            registry: Registry::new(),
            lanes: Slab::new(),
            mailboxes: HashMap::default(),
            waiting: 0,
            under_way: 0,
        }
    }

    /// The tables of subscriptions.
    pub fn registry(&self) -> &Registry<H, M> {
        &self.registry
    }

    /// Refuses sends and subscriptions from now on. What a lane left half way waits for the next
    /// send, which does not come any more: the deliverers that are returned must be woken for it.
    pub fn close(&mut self) -> SmallVec<[D; 2]> {
        self.closed = true;
        let lanes = self.lanes.iter_mut().map(|(_, lane)| lane);
        let asleep = lanes.filter(|lane| lane.awake == 0 && !lane.is_idle());
        asleep
            .filter_map(|lane| lane.hire().then(|| lane.deliverer.clone()))
            .collect()
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether it is closed and everything is delivered, or given up.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Lets everything go if there is nothing to wait for any more; tells whether that is so.
    pub fn finish(&mut self, trash: &mut Trash<H, M, D>) -> bool {
        if self.closed && !self.finished && self.is_idle() {
            self.give_up(trash);
        }
        self.finished
    }

    /// Lets everything go; returns how many deliveries are lost by it.
    pub fn give_up(&mut self, trash: &mut Trash<H, M, D>) -> usize {
        self.finished = true;
        self.clear(trash)
    }

    fn is_idle(&self) -> bool {
        self.waiting + self.under_way == 0 && self.lanes.iter().all(|(_, lane)| lane.is_idle())
    }

    /// Calls that go on.
    pub fn calls_under_way(&self) -> usize {
        let calling = self.lanes.iter().map(|(_, lane)| lane.calling);
        self.under_way + calling.sum::<usize>()
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
            turn: 0,
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

    /// Whether nobody is at work for a lane, or on the way to it.
    pub fn is_asleep(&self, lane: LaneKey) -> bool {
        self.lanes
            .get(lane as usize)
            .is_none_or(|lane| lane.awake == 0)
    }

    // ---- subscriptions ----------------------------------------------------------------------

    /// Subscribes a handler to what is sent from now on.
    pub fn subscribe(
        &mut self,
        session: &[u8],
        topic: Option<&[u8]>,
        lane: LaneKey,
        listener: Listener<H>,
    ) -> Arc<Subscription<H>> {
        self.sequence += 1;
        let serial = self.sequence;
        let (subscription, new_group) =
            self.registry.insert(session, topic, lane, listener, serial);
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
            self.sweep_queue(subscription.owner.key(), trash);
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
        if let Some(owner) = self.registry.session(session)
            && !owner.is_idle()
        {
            let queue = owner.queue();
            let before = queue.len();
            queue.remove_unless(|s| !s.is_cancelled(), &Own, &mut trash.calls);
            self.waiting -= before - queue.len();
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
            let state = self.lanes.remove(lane as usize);
            trash.fanouts.extend(state.interrupted);
            trash.deliverers.push(state.deliverer);
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
            wake: SmallVec::new(),
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
        if self.overflow == OverflowPolicy::DropNewest && members.share.queued() >= self.limit {
            published.burst |= members.share.count_dropped() == 1;
            trash.logged.push((group, envelope));
        } else if lane.log.push(group, envelope, &members.share, self.limit) {
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

    /// Counts what has given way so far and is still there.
    fn settle_logs(&mut self, trash: &mut Trash<H, M, D>) {
        let before = trash.logged.len();
        for (_, lane) in &mut self.lanes {
            lane.log.purge(&self.registry, &mut trash.logged);
        }
        self.settle_losses(before, trash);
    }

    /// Puts the lane to sleep, perhaps in the middle of a message; the next deliverer goes on with
    /// it.
    pub fn interrupt(&mut self, lane: LaneKey, fanout: Option<Fanout<H, M>>) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            if fanout.is_some() {
                lane.interrupted = fanout;
            }
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
        while let Some(fanout) = self.pop_fanout(lane, trash) {
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
        let Some(state) = self.lanes.get_mut(lane as usize) else {
            return 0;
        };
        let queue = &mut state.overlapping;
        let mut count = queue.len();
        queue.remove_unless(|_| false, &Own, &mut trash.calls);
        count += self.registry.abandon_queues(&mut trash.calls);
        self.dropped += count;
        self.waiting -= count;
        count
    }

    /// Gives up everything that waits, and ends every subscription; returns how many deliveries
    /// are lost by it.
    pub fn clear(&mut self, trash: &mut Trash<H, M, D>) -> usize {
        self.settle_logs(trash);
        let before = self.dropped;
        let lanes: Vec<_> = self.lanes.iter().map(|(index, _)| index).collect();
        for lane in lanes {
            #[expect(clippy::cast_possible_truncation, reason = "a lane's key fits")]
            let lane = lane as LaneKey;
            self.abandon(lane, trash);
            self.abandon_calls(lane, trash);
        }
        self.abandon_mailboxes(trash);
        self.abandon_resumed(trash);
        for subscription in self.registry.iter().cloned().collect::<Vec<_>>() {
            self.cancel(&subscription, trash);
            trash.subscriptions.push(subscription);
        }
        self.dropped - before
    }
}
