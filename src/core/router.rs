//! The router: takes what is sent, keeps it in order until its deliverer comes for it, and knows
//! which deliverer has to be woken.
//!
//! A *lane* is one way of delivering: an event loop, the executor, or the sender itself. Its log
//! holds what was sent and not yet dispatched. A lane is awake from the moment when something
//! enters its log until its deliverer finds the log empty; both happen under the same lock, so no
//! wake-up is ever lost.

pub mod elsewhere;
mod losses;
mod mailboxes;
pub mod presence;
mod recall;
mod records;
mod renewal;
mod replay;
mod workers;

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use triomphe::Arc;

use super::backlog::{Backlog, OverflowPolicy};
use super::counters::COUNTS;
use super::fanout::{Audience, Envelope, Fanout, Recipients};
use super::history::History;
use super::interest::Channel;
use super::registry::{CallQueue, Registry, Scope};
use super::subscription::{Listener, Own, Subscription};
use super::{GroupKey, LaneKey, SessionKey, TopicKey, Trash, clock};
pub use losses::Loss;
use losses::Reports;
use presence::{FindPresence, MakeNotice};
use recall::Recall;
use records::Record;
use replay::Replay;

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
    /// What subscriptions get before anything that is sent after they came, by their places in the
    /// hub's sequence.
    replays: BTreeMap<u64, Replay<H, M>>,
    /// Whom the message is for that its only deliverer is in the middle of.
    dispatching: Option<Recipients>,
    /// Calls of handlers that may overlap, where sync handlers run on an executor.
    overlapping: CallQueue<H, M>,
    /// The turn of its log, where sync handlers run on an executor.
    turn: u32,
    /// Handlers whose awaitable is done, for the sender's thread to go on with.
    resumed: VecDeque<Arc<Subscription<H>>>,
    groups: usize,
    /// Whether it outlives its subscribers.
    permanent: bool,
    /// Whether to wake it costs so much that a look at the clock does not matter.
    is_remote: bool,
}

impl<H, M, D> Lane<H, M, D> {
    /// Whether messages wait to be dispatched.
    fn has_log(&self) -> bool {
        !self.log.is_empty() || !self.replays.is_empty() || self.interrupted.is_some()
    }

    fn is_idle(&self) -> bool {
        !self.has_log() && self.resumed.is_empty() && self.awake == 0
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
    /// One more worker was entered and must be started: there is work besides this call.
    pub hired: bool,
}

/// The time of one message of so many is noted.
const TIMED: u64 = 64;

/// Work for any worker of an executor.
#[derive(Clone, Copy)]
pub enum Ready {
    /// A session has calls to make, one after the other.
    Session(SessionKey),
    /// A call of a handler that may overlap with others.
    Overlapping,
}

/// What became of a message for a handler that may be busy.
pub enum Parked {
    /// The handler is free: call it.
    Free,
    /// The message waits until the handler is free.
    Waiting,
    /// It was lost, or another one that gave way to it.
    Lost,
}

/// Sizes, for the hub's statistics.
pub struct Sizes {
    /// Sends so far.
    pub published: u64,
    /// Deliveries given up.
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
    /// What was sent last, where it is kept: nowhere, unless somebody asks for it.
    history: Option<Box<History<M>>>,
    history_limit: usize,
    /// What others remember of what was sent, if there are others.
    recall: Option<Box<Recall<H>>>,
    /// Makes a message of who comes and goes.
    make_notice: Option<MakeNotice<M>>,
    /// Finds that in the message again.
    find_presence: FindPresence<M>,
    /// The message of that which waits for a handler that is busy, by the subscription's serial; its
    /// place is in the mailbox or in a queue.
    records: HashMap<u64, Record<M>, RandomState>,
    /// Deliverers to be woken because of a change of subscriptions.
    wake: SmallVec<[D; 2]>,
    /// Messages for handlers that are busy with an earlier one, by the subscription's serial.
    mailboxes: HashMap<u64, VecDeque<Arc<Envelope<M>>>, RandomState>,
    /// Messages in mailboxes and in sessions' queues, and to be replayed.
    waiting: usize,
    /// Calls that go on, with a task of their own.
    under_way: usize,
    reports: Reports<H, M>,
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
            history: None,
            history_limit: 0,
            recall: None,
            make_notice: None,
            find_presence: |_| None,
            records: HashMap::default(),
            wake: SmallVec::new(),
            mailboxes: HashMap::default(),
            waiting: 0,
            under_way: 0,
            reports: Reports::new(),
        }
    }

    /// How many messages may wait for each subscription.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The tables of subscriptions.
    pub fn registry(&self) -> &Registry<H, M> {
        &self.registry
    }

    /// Begins to note where subscribers come and go: what is sent, and what was, comes from others.
    pub fn note_interest(&mut self) {
        self.registry.note_interest();
        self.recall = Some(Box::default());
    }

    /// Where the first subscriber came, or the last one went, since it was asked.
    pub fn take_interest(&mut self) -> Vec<(Channel, bool)> {
        let changes = self.registry.take_interest();
        if let Some(recall) = &mut self.recall {
            for (channel, _) in &changes {
                recall.note(channel);
            }
        }
        changes
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
            self.give_up(|_| 0, trash);
        }
        self.finished
    }

    /// Lets everything go; returns how many deliveries are lost by it. `passed` tells of a deliverer
    /// that is in the middle of a message how far it is: [`Fanout::passed`].
    pub fn give_up(&mut self, passed: impl Fn(&D) -> u64, trash: &mut Trash<H, M, D>) -> usize {
        self.finished = true;
        self.reports.forget_since(0, trash);
        let mut left = 0;
        for (_, lane) in &mut self.lanes {
            if let Some(to) = lane.dispatching.take() {
                let passed = passed(&lane.deliverer);
                left += self.registry.recipients(&to, passed);
            }
        }
        self.dropped += left;
        left + self.clear(trash)
    }

    fn is_idle(&self) -> bool {
        let nothing_goes_on = self.waiting + self.under_way == 0 && self.reports.is_idle();
        nothing_goes_on && self.lanes.iter().all(|(_, lane)| lane.is_idle())
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
            replays: BTreeMap::new(),
            dispatching: None,
            overlapping: Backlog::new(),
            turn: 0,
            resumed: VecDeque::new(),
            groups: 0,
            permanent,
            is_remote: false,
        });
        deliverer
    }

    /// Enters that a lane is not the sender's own: to wake it costs more than to look at the clock.
    pub fn is_remote(&mut self, lane: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.is_remote = true;
        }
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
        let inserted = self.registry.insert(session, topic, lane, listener, serial);
        if inserted.new_group {
            self.lanes[lane as usize].groups += 1;
        }
        if let Some(topic) = inserted.joined {
            self.tell_joined(topic, inserted.subscription.owner.key(), true);
        }
        inserted.subscription
    }

    /// Ends a session's subscriptions.
    pub fn unsubscribe(&mut self, session: &[u8], scope: &Scope<'_>, trash: &mut Trash<H, M, D>) {
        self.unsubscribe_some(session, scope, u64::MAX, usize::MAX, trash);
    }

    /// The place in the sequence of sends and subscriptions that the next one gets.
    pub fn next_place(&self) -> u64 {
        self.sequence + 1
    }

    /// Ends `most` of a session's subscriptions, of those that were entered before that place in the
    /// hub's sequence; tells whether there may be more.
    pub fn unsubscribe_some(
        &mut self,
        session: &[u8],
        scope: &Scope<'_>,
        before: u64,
        most: usize,
        trash: &mut Trash<H, M, D>,
    ) -> bool {
        let subscriptions = self.registry.in_scope(session, scope, before, most);
        let is_full = subscriptions.len() == most;
        for subscription in subscriptions {
            subscription.cancel();
            self.forget(&subscription, trash);
            trash.subscriptions.push(subscription);
        }
        if let Some(session) = self.registry.session_key(session) {
            self.sweep_queue(session, trash);
        }
        self.sweep_overlapping(trash);
        is_full
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
        if let Some(topic) = self.registry.remove(subscription) {
            self.tell_left(topic, subscription.owner.key());
        }
        let joined = self.registry.reunite_notices(subscription);
        trash.envelopes.extend(joined);
        self.registry.forget_identity(subscription.owner.key());
        self.forget_replay(subscription, trash);
        self.forget_record(subscription, trash);
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
    /// Returns the deliverers that slept and must be woken, each exactly once.
    pub fn publish(
        &mut self,
        topic: Option<&[u8]>,
        audience: Audience<&[u8]>,
        message: impl FnOnce() -> M,
        trash: &mut Trash<H, M, D>,
    ) -> SmallVec<[D; 2]> {
        self.published += 1;
        let mut wake = SmallVec::new();
        if let Some(recall) = &self.recall
            && !recall.is_complete(topic, audience)
        {
            return wake;
        }
        let Some(present) = self.present(audience) else {
            return wake;
        };
        let key = self.registry.topic_key(topic);
        let mut message = Some(message);
        let mut envelope = self.keep_sent(topic, key, audience, present, &mut message, trash);
        let Some(topic) = key else {
            return wake;
        };
        self.registry.count_sent(topic);
        for index in 0..self.registry.groups_of(topic).len() {
            let group = self.registry.groups_of(topic)[index];
            if self.registry.has_nobody(group, present) {
                continue;
            }
            if let Some(message) = message.take() {
                let sent_at = self.time_of_send(topic);
                envelope = Some(self.envelope(present, message(), sent_at));
            }
            if let Some(envelope) = envelope.clone() {
                self.log(group, envelope, &mut wake, trash);
            }
        }
        wake
    }

    /// The time, for one message of many, and where it takes a wake-up.
    fn time_of_send(&self, topic: TopicKey) -> u64 {
        let groups = self.registry.groups_of(topic).iter();
        let mut lanes = groups.map(|&g| &self.lanes[self.registry.group(g).lane as usize]);
        let is_noted = self.published % TIMED == 1 || lanes.any(|l| l.is_remote && l.awake == 0);
        if COUNTS && is_noted {
            return clock::now();
        }
        0
    }

    /// A message with the next place in the hub's sequence.
    fn envelope(
        &mut self,
        audience: Audience<SessionKey>,
        message: M,
        sent_at: u64,
    ) -> Arc<Envelope<M>> {
        self.sequence += 1;
        Arc::new(Envelope {
            message,
            audience,
            sequence: self.sequence,
            sent_at,
        })
    }

    /// The audience, by the session's key; `None` if it is a session that does not exist.
    fn present(&self, audience: Audience<&[u8]>) -> Option<Audience<SessionKey>> {
        let key = |id| self.registry.session_key(id);
        Some(match audience {
            Audience::Everyone => Audience::Everyone,
            Audience::Others(id) => key(id).map_or(Audience::Everyone, Audience::Others),
            Audience::Only(id) => Audience::Only(key(id)?),
        })
    }

    fn log(
        &mut self,
        group: GroupKey,
        envelope: Arc<Envelope<M>>,
        wake: &mut SmallVec<[D; 2]>,
        trash: &mut Trash<H, M, D>,
    ) {
        let members = self.registry.group(group);
        let key = members.lane as usize;
        let lane = if members.share.queued() < self.limit {
            let lane = &mut self.lanes[key];
            lane.log.push(group, envelope, &members.share, self.limit);
            lane
        } else {
            self.log_beyond(group, envelope, trash);
            &mut self.lanes[key]
        };
        if lane.hire() {
            wake.push(lane.deliverer.clone());
        }
    }

    /// Enters a message into a log that has no room for it.
    #[cold]
    fn log_beyond(
        &mut self,
        group: GroupKey,
        envelope: Arc<Envelope<M>>,
        trash: &mut Trash<H, M, D>,
    ) {
        let before = trash.logged.len();
        let members = self.registry.group(group);
        if members.share.count_dropped() == 1 {
            let loss = Loss::FellBehind(members.lane, envelope.clone());
            self.reports.note(loss);
        }
        if self.overflow == OverflowPolicy::DropNewest {
            trash.logged.push((group, envelope));
        } else {
            let log = &mut self.lanes[members.lane as usize].log;
            log.push(group, envelope, &members.share, self.limit);
            log.compact(&self.registry, &mut trash.logged);
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
        let state = self.lanes.get_mut(lane as usize)?;
        if let Some(fanout) = &fanout {
            state.dispatching = Some(fanout.to);
        } else {
            (state.dispatching, state.awake) = (None, 0);
            if !state.permanent {
                self.release_lane(lane, trash);
            }
        }
        fanout
    }

    fn pop_fanout(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) -> Option<Fanout<H, M>> {
        if let Some(fanout) = self.lanes.get_mut(lane as usize)?.interrupted.take() {
            return Some(fanout);
        }
        if let Some(fanout) = self.pop_replay(lane) {
            return Some(fanout);
        }
        loop {
            let state = self.lanes.get_mut(lane as usize)?;
            let before = trash.logged.len();
            let popped = state.log.pop(&self.registry, &mut trash.logged);
            if trash.logged.len() > before {
                self.settle_losses(before, trash);
            }
            let (group, envelope) = popped?;
            let Some(members) = self.registry.group_mut(group) else {
                trash.envelopes.push(envelope);
                continue;
            };
            let is_told = !self.reports.are_behind();
            let burst = is_told.then(|| members.share.caught_up()).flatten();
            let tells_nothing = members.tells_nothing(envelope.sequence);
            // The next one gets the place of the last.
            if let Some(next) = members.next_notice()
                && let Some(state) = self.lanes.get_mut(lane as usize)
            {
                state.log.unpop(group, next.clone(), &members.share);
            }
            if members.roster.is_empty() | tells_nothing {
                trash.envelopes.push(envelope);
                self.release_group(group, trash);
                continue;
            }
            let snapshot = self.registry.snapshot(group, envelope.audience);
            let to = Recipients::new(group, &envelope);
            let fanout = Fanout::new(to, snapshot, envelope);
            if let Some(burst) = burst {
                let loss = Loss::CaughtUp(lane, fanout.envelope.clone(), burst);
                self.reports.note(loss);
            }
            return Some(fanout);
        }
    }

    /// Counts the deliveries that are lost with the messages that gave way since there were
    /// `before` of them, and forgets groups that nothing else is left of.
    fn settle_losses(&mut self, before: usize, trash: &mut Trash<H, M, D>) {
        for index in before..trash.logged.len() {
            let (group, envelope) = &trash.logged[index];
            let to = Recipients::new(*group, envelope);
            self.dropped += self.registry.recipients(&to, 0);
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
    /// it. Gives back what none will go on with.
    pub fn interrupt(
        &mut self,
        lane: LaneKey,
        fanout: Option<Fanout<H, M>>,
    ) -> Option<Fanout<H, M>> {
        let Some(lane) = self.lanes.get_mut(lane as usize) else {
            return fanout;
        };
        (lane.dispatching, lane.awake) = (None, 0);
        if self.finished {
            return fanout;
        }
        if fanout.is_some() {
            lane.interrupted = fanout;
        }
        None
    }

    /// Gives up everything in a lane's log, because nobody will come for it; returns how many
    /// messages that were.
    pub fn abandon(&mut self, lane: LaneKey, trash: &mut Trash<H, M, D>) -> usize {
        if !self.lanes.contains(lane as usize) {
            return 0;
        }
        let mut count = 0;
        let noted = self.reports.noted();
        while let Some(fanout) = self.pop_fanout(lane, trash) {
            count += 1;
            self.dropped += fanout.give_up();
            trash.fanouts.push(fanout);
        }
        // It has not caught up.
        self.reports.forget_since(noted, trash);
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
        // Nobody is left to be told who leaves.
        self.make_notice = None;
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
        self.clear_history(trash);
        for subscription in self.registry.iter().cloned().collect::<Vec<_>>() {
            self.cancel(&subscription, trash);
            trash.subscriptions.push(subscription);
        }
        self.dropped - before
    }
}
