//! The naive model: a plain list of subscriptions, and plain lists of what waits for them. Nothing
//! is shared, counted or indexed; every question is answered by going through the lists.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::Audience;

use crate::history::Kept;
use crate::presence::Record;
use crate::{INLINE, LIMIT, LOOP, POOL, TRANSIENT, WATCH, WORKERS};

pub type Id = u64;
/// A message is called by its place in the hub's sequence.
pub type Message = u64;
/// A subscription.
pub struct Listed {
    /// Its place in the hub's sequence.
    pub id: Id,
    pub session: u8,
    pub topic: u8,
    pub lane: u32,
    pub overlaps: bool,
    pub cancelled: bool,
    /// Calls that go on elsewhere.
    pub under_way: u32,
    pub mailbox: VecDeque<Message>,
    /// Where it watches: records that waited for it, each with one that it took in.
    pub taken_in: Vec<(Message, Message)>,
    /// Messages lost since it last caught up.
    burst: u32,
    /// What it was to get, had nothing been lost.
    pub sent: Vec<Message>,
    pub got: Vec<Message>,
    pub lost: Vec<Message>,
    /// Whether it was told everything so far, where it watches: nothing was thrown away.
    pub is_exact: bool,
}

/// A message in a log, or one of a replay.
#[derive(Clone, Copy)]
pub struct Entry {
    pub message: Message,
    pub topic: u8,
    pub audience: Audience<u8>,
    /// Whom alone it is replayed to.
    pub one: Option<Id>,
    /// The message that its place in the log was made for.
    pub slot: Message,
}

/// A message whose recipients are being gone through.
#[derive(Clone, Copy)]
pub struct Walk {
    pub entry: Entry,
    /// The recipient that was taken last.
    after: Id,
    burst: Option<u32>,
}

impl Lane {
    /// Whether messages wait to be dispatched that nobody has begun with.
    fn is_logged(&self) -> bool {
        !self.log.is_empty() || !self.replays.is_empty()
    }

    /// How many places there are in its log.
    fn slots(&self) -> usize {
        let slots = self.log.iter().map(|entry| entry.slot);
        slots.collect::<BTreeSet<_>>().len()
    }
}

impl Walk {
    fn new(entry: Entry) -> Self {
        Self {
            entry,
            after: 0,
            burst: None,
        }
    }
}

#[derive(Default)]
pub struct Lane {
    pub log: VecDeque<Entry>,
    /// Messages of replays, one subscription's after the other's.
    pub replays: VecDeque<Entry>,
    /// Messages that gave way, and are not yet counted as dropped.
    gave_way: Vec<Entry>,
    bursts: BTreeMap<u8, u32>,
    pub interrupted: Option<Walk>,
    pub awake: usize,
    pub calling: usize,
    pub resumed: VecDeque<Id>,
}

#[derive(Default)]
struct Session {
    queue: VecDeque<(Id, Message)>,
    scheduled: bool,
    turn: u32,
}

/// Work in the run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Session(u8),
    Overlapping,
}

/// What begins with a loss, or is over: as the router tells it.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    Dropped(Id, Message),
    Expelled(Id, Message, u32),
    Recovered(Id, Option<Message>, u32),
    FellBehind(u32, Message),
    CaughtUp(u32, Message, u32),
}

/// A call for a worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub id: Id,
    pub message: Message,
    pub claimed: Option<u8>,
    pub hired: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Parked {
    Free,
    Waiting,
    Lost,
}

/// A call waits in a queue.
struct Waits;

pub struct Model {
    overflow: OverflowPolicy,
    pub sequence: u64,
    pub published: u64,
    /// Deliveries given up.
    pub dropped: usize,
    pub closed: bool,
    pub finished: bool,
    pub listed: Vec<Listed>,
    pub lanes: BTreeMap<u32, Lane>,
    sessions: BTreeMap<u8, Session>,
    overlapping: VecDeque<(Id, Message)>,
    pub run_queue: VecDeque<Token>,
    turn: u32,
    /// Losses to report, since it was done last.
    pub losses: Vec<Lost>,
    /// Lanes to be woken because of a change of subscriptions.
    pub woken: Vec<u32>,
    /// How much is kept of topics with a rule of their own, and of all others.
    pub rules: BTreeMap<u8, usize>,
    pub general: usize,
    pub kept: BTreeMap<u8, Vec<Kept>>,
    /// Topics with messages that are kept, the least recently used first.
    pub used: Vec<u8>,
    pub records: Vec<Record>,
    /// Where somebody watches, or did and is still to be told something, in that order.
    pub watched: Vec<(u8, u32)>,
    pub identities: BTreeMap<u8, u64>,
    /// Whether anything of the last four has changed, or who is subscribed.
    pub is_news: bool,
}

impl Model {
    pub fn new(overflow: OverflowPolicy) -> Self {
        Self {
            overflow,
            sequence: 0,
            published: 0,
            dropped: 0,
            closed: false,
            finished: false,
            listed: Vec::new(),
            lanes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            overlapping: VecDeque::new(),
            run_queue: VecDeque::new(),
            turn: 0,
            losses: Vec::new(),
            woken: Vec::new(),
            rules: BTreeMap::new(),
            general: 0,
            kept: BTreeMap::new(),
            used: Vec::new(),
            records: Vec::new(),
            watched: Vec::new(),
            identities: BTreeMap::new(),
            is_news: true,
        }
    }

    pub fn lane(&mut self, lane: u32) -> &mut Lane {
        self.lanes.entry(lane).or_default()
    }

    pub fn find(&mut self, id: Id) -> &mut Listed {
        self.listed.iter_mut().find(|s| s.id == id).expect("listed")
    }

    pub fn live(&self) -> impl Iterator<Item = &Listed> {
        self.listed.iter().filter(|s| !s.cancelled)
    }

    // ---- sizes ------------------------------------------------------------------------------

    pub fn subscriptions(&self) -> usize {
        self.live().count()
    }

    pub fn sessions(&self) -> usize {
        self.everybody().len()
    }

    pub fn topics(&self) -> usize {
        let named = self
            .live()
            .map(|s| s.topic)
            .filter(|t| (1..WATCH).contains(t));
        named.collect::<BTreeSet<_>>().len()
    }

    pub fn pending(&self) -> usize {
        let logged = |lane: &Lane| lane.slots() + lane.replays.len();
        let logs: usize = self.lanes.values().map(logged).sum();
        let queues: usize = self.sessions.values().map(|s| s.queue.len()).sum();
        let mail: usize = self.live().map(|s| s.mailbox.len()).sum();
        logs + queues + self.overlapping.len() + mail
    }

    pub fn has_log(&self, lane: u32) -> bool {
        let lane = self.lanes.get(&lane);
        lane.is_some_and(|lane| lane.is_logged() || lane.interrupted.is_some())
    }

    pub fn calls_under_way(&self) -> usize {
        let going_on: u32 = self.listed.iter().map(|s| s.under_way).sum();
        let calling: usize = self.lanes.values().map(|lane| lane.calling).sum();
        going_on as usize + calling
    }

    // ---- subscriptions ----------------------------------------------------------------------

    pub fn subscribe(&mut self, session: u8, topic: u8, lane: u32, overlaps: bool) -> Id {
        let was_there = self.is_on(session, topic);
        self.is_news = true;
        self.sequence += 1;
        self.sessions.entry(session).or_default();
        self.listed.push(Listed {
            id: self.sequence,
            session,
            topic,
            lane,
            overlaps,
            cancelled: false,
            under_way: 0,
            mailbox: VecDeque::new(),
            taken_in: Vec::new(),
            burst: 0,
            sent: Vec::new(),
            got: Vec::new(),
            lost: Vec::new(),
            is_exact: true,
        });
        let id = self.sequence;
        if topic >= WATCH && !self.watched.contains(&(topic - WATCH, lane)) {
            self.watched.push((topic - WATCH, lane));
        }
        if !was_there {
            self.tell(session, topic, false, true);
        }
        id
    }

    /// Ends the subscriptions, in that order.
    pub fn cancel_all(&mut self, ended: &[Id]) {
        for &id in ended {
            let s = self.find(id);
            if std::mem::replace(&mut s.cancelled, true) {
                continue;
            }
            self.is_news = true;
            let s = self.find(id);
            s.mailbox.clear();
            let (session, topic, lane) = (s.session, s.topic, s.lane);
            if let Some(watched) = topic.checked_sub(WATCH) {
                self.reunite_records(watched, lane);
            }
            if !self.is_on(session, topic) {
                self.tell(session, topic, true, false);
            }
            if !self.live().any(|s| s.session == session) {
                self.identities.remove(&session);
            }
            self.overlapping.retain(|(other, _)| *other != id);
            for session in self.sessions.values_mut() {
                session.queue.retain(|(other, _)| *other != id);
            }
            for lane in self.lanes.values_mut() {
                lane.replays.retain(|entry| entry.one != Some(id));
            }
            self.forget();
        }
    }

    pub fn cancel_where(&mut self, which: impl Fn(&Listed) -> bool) {
        let ended: Vec<_> = self.live().filter(|s| which(s)).map(|s| s.id).collect();
        self.cancel_all(&ended);
    }

    /// The first subscriptions of a session, of those before a place in the hub's sequence.
    pub fn first_of(&self, session: u8, most: usize, before: u64) -> Vec<Id> {
        let own = self.live().filter(|s| s.session == session).map(|s| s.id);
        own.filter(|id| *id < before).take(most).collect()
    }

    /// Forgets sessions and topics that nothing is left of.
    fn forget(&mut self) {
        let live: Vec<_> = self.live().map(|s| (s.session, s.topic, s.lane)).collect();
        self.sessions.retain(|&id, session| {
            session.scheduled || !session.queue.is_empty() || live.iter().any(|l| l.0 == id)
        });
        for (&key, lane) in &mut self.lanes {
            let log = &lane.log;
            lane.bursts.retain(|&topic, _| {
                log.iter().any(|entry| entry.topic == topic)
                    || live.iter().any(|l| (l.1, l.2) == (topic, key))
            });
        }
        self.forget_watched(&live);
    }

    // ---- sends ------------------------------------------------------------------------------

    /// Sends; returns the message, and who has to be woken.
    pub fn publish(&mut self, topic: u8, audience: Audience<u8>) -> (Message, Vec<u32>) {
        self.published += 1;
        let message = self.sequence + 1;
        let mut woken = Vec::new();
        let entry = Entry {
            message,
            topic,
            audience,
            one: None,
            slot: message,
        };
        if self.keep_sent(&entry) {
            self.sequence = message;
        }
        for lane in [POOL, LOOP, INLINE, TRANSIENT] {
            let gets: Vec<_> = self.left(lane, &entry, 0).collect();
            if gets.is_empty() {
                continue;
            }
            self.sequence = message;
            for id in gets {
                self.find(id).sent.push(message);
            }
            self.append(lane, entry);
            if self.hire(lane) {
                woken.push(lane);
            }
        }
        (message, woken)
    }

    fn append(&mut self, lane: u32, entry: Entry) {
        let (topic, overflow) = (entry.topic, self.overflow);
        let state = self.lane(lane);
        if state.log.iter().filter(|e| e.topic == topic).count() < LIMIT as usize {
            state.log.push_back(entry);
            return;
        }
        let burst = state.bursts.entry(topic).or_default();
        *burst += 1;
        if *burst == 1 {
            self.losses.push(Lost::FellBehind(lane, entry.message));
        }
        if overflow == OverflowPolicy::DropNewest {
            self.dropped += self.lose_for_all(lane, &entry, 0);
            return;
        }
        let state = self.lane(lane);
        state.log.push_back(entry);
        let oldest = state.log.iter().position(|e| e.topic == topic);
        let lost = oldest.and_then(|at| state.log.remove(at)).expect("full");
        state.gave_way.push(lost);
        let is_compacted = state.gave_way.len() > state.slots();
        self.lose_for_all(lane, &lost, 0);
        if is_compacted {
            self.count_given_way(lane, Message::MAX);
        }
    }

    /// Counts what gave way and was sent earlier than `before`: who is left now lost it.
    fn count_given_way(&mut self, lane: u32, before: Message) {
        let gave_way = &mut self.lane(lane).gave_way;
        let (counted, later) = gave_way.iter().partition(|e| e.message < before);
        *gave_way = later;
        let counted: Vec<Entry> = counted;
        let lost = counted.iter().map(|e| self.left(lane, e, 0).count());
        self.dropped += lost.sum::<usize>();
    }

    pub fn hire(&mut self, lane: u32) -> bool {
        let workers = if lane == POOL { WORKERS } else { 1 };
        let lane = self.lane(lane);
        let hired = lane.awake <= lane.calling && lane.awake < workers;
        lane.awake += usize::from(hired);
        hired
    }

    // ---- dispatch ---------------------------------------------------------------------------

    /// Those who are left to get a message, after the one that was taken last.
    pub fn left(&self, lane: u32, entry: &Entry, after: Id) -> impl Iterator<Item = Id> {
        let entry = *entry;
        self.live()
            .filter(move |s| {
                let gets = match (entry.one, entry.audience) {
                    (Some(one), _) => s.id == one,
                    (None, Audience::Everyone) => true,
                    (None, Audience::Others(except)) => s.session != except,
                    (None, Audience::Only(session)) => s.session == session,
                };
                let was_there = entry.one.is_some() || s.id < entry.message;
                let is_on = (s.topic, s.lane) == (entry.topic, lane);
                gets && was_there && is_on && s.id > after
            })
            .map(|s| s.id)
    }

    /// Notes that nobody who is left gets a message; returns how many they are.
    pub fn lose_for_all(&mut self, lane: u32, entry: &Entry, after: Id) -> usize {
        let left: Vec<_> = self.left(lane, entry, after).collect();
        for &id in &left {
            self.find(id).lost.push(entry.message);
        }
        left.len()
    }

    pub fn lose_walk(&mut self, lane: u32, walk: &Walk) -> usize {
        self.lose_for_all(lane, &walk.entry, walk.after)
    }

    /// The next message of a log that anybody is subscribed for.
    fn pop(&mut self, lane: u32) -> Option<Walk> {
        if let Some(walk) = self.lane(lane).interrupted.take() {
            return Some(walk);
        }
        if let Some(entry) = self.lane(lane).replays.pop_front() {
            return Some(Walk::new(entry));
        }
        loop {
            let first = self.lane(lane).log.front().map(|entry| entry.slot);
            self.count_given_way(lane, first.unwrap_or(Message::MAX));
            let state = self.lane(lane);
            let entry = state.log.pop_front()?;
            let is_last = state.log.iter().all(|e| e.topic != entry.topic);
            let burst = if is_last {
                state.bursts.remove(&entry.topic)
            } else {
                None
            };
            let tells_nothing = self.tells_nothing(entry.message);
            self.forget();
            let on = |s: &Listed| (s.topic, s.lane) == (entry.topic, lane);
            if self.live().any(on) && !tells_nothing {
                let walk = Walk::new(entry);
                return Some(Walk { burst, ..walk });
            }
        }
    }

    /// As a deliverer does that walks alone; without a message, it sleeps.
    pub fn next_walk(&mut self, lane: u32) -> Option<Walk> {
        let mut walk = self.pop(lane);
        match &mut walk {
            None => self.lane(lane).awake = 0,
            Some(walk) => self.tell_caught_up(lane, walk),
        }
        walk
    }

    fn tell_caught_up(&mut self, lane: u32, walk: &mut Walk) {
        let (message, burst) = (walk.entry.message, walk.burst.take());
        let told = burst.map(|burst| Lost::CaughtUp(lane, message, burst));
        self.losses.extend(told);
    }

    pub fn take_next(&mut self, lane: u32, walk: &mut Walk) -> Option<Id> {
        let next = self.left(lane, &walk.entry, walk.after).next()?;
        walk.after = next;
        Some(next)
    }

    pub fn abandon(&mut self, lane: u32) -> usize {
        let mut count = 0;
        while let Some(walk) = self.pop(lane) {
            self.dropped += self.lose_walk(lane, &walk);
            count += 1;
        }
        self.lane(lane).awake = 0;
        count
    }

    // ---- handlers that are busy -------------------------------------------------------------

    pub fn is_busy(&mut self, id: Id) -> bool {
        let s = self.find(id);
        s.under_way >= if s.overlaps { LIMIT } else { 1 }
    }

    pub fn park(&mut self, id: Id, message: Message) -> Parked {
        if !self.is_busy(id) {
            return Parked::Free;
        }
        let s = self.find(id);
        if s.cancelled || self.joins_record(id, message) {
            return Parked::Waiting;
        }
        let s = self.find(id);
        s.mailbox.push_back(message);
        if s.mailbox.len() <= LIMIT as usize {
            return Parked::Waiting;
        }
        let lost = match self.overflow {
            OverflowPolicy::DropOldest => self.find(id).mailbox.pop_front(),
            OverflowPolicy::DropNewest => self.find(id).mailbox.pop_back(),
            OverflowPolicy::Unsubscribe => {
                self.expel(id, message);
                return Parked::Lost;
            }
        };
        self.lose(id, lost.expect("full"), message);
        Parked::Lost
    }

    /// Notes that a handler does not get a message, because of another one or of itself.
    fn lose(&mut self, id: Id, message: Message, because: Message) {
        let s = self.find(id);
        s.lost.push(message);
        s.burst += 1;
        if s.burst == 1 {
            self.losses.push(Lost::Dropped(id, because));
        }
        self.dropped += 1;
    }

    /// Ends a subscription, with the messages that wait for it, wherever.
    fn expel(&mut self, id: Id, because: Message) {
        let mail = self.find(id).mailbox.len();
        let queues = self.sessions.values().map(|s| &s.queue);
        let calls = queues.chain([&self.overlapping]).flatten();
        let lost = mail + calls.filter(|(other, _)| *other == id).count();
        self.cancel_where(|s| s.id == id);
        self.dropped += lost;
        let lost = u32::try_from(lost).expect("few");
        self.losses.push(Lost::Expelled(id, because, lost));
    }

    pub fn unpark(&mut self, id: Id) -> Option<Message> {
        let mut next = self.find(id).mailbox.pop_front();
        next = next.filter(|&message| !self.has_come_to_nothing(id, message));
        let s = self.find(id);
        if next.is_none() {
            s.under_way -= 1;
            self.recover(id, None);
        }
        next
    }

    /// Ends a burst of losses, if one goes on.
    fn recover(&mut self, id: Id, message: Option<Message>) {
        let burst = std::mem::take(&mut self.find(id).burst);
        if burst > 0 {
            self.losses.push(Lost::Recovered(id, message, burst));
        }
    }

    pub fn has_mail(&mut self, id: Id) -> bool {
        !self.find(id).mailbox.is_empty() || self.unpark(id).is_some()
    }

    pub fn forsake(&mut self, id: Id) -> usize {
        let s = self.find(id);
        s.under_way -= 1;
        let count = s.mailbox.len();
        s.lost.extend(s.mailbox.drain(..));
        self.dropped += count;
        count
    }

    pub fn resume(&mut self, lane: u32, id: Id) -> bool {
        self.lane(lane).resumed.push_back(id);
        self.hire(lane)
    }

    // ---- workers ----------------------------------------------------------------------------

    pub fn begin_turn(&mut self) {
        self.turn += 1;
    }

    pub fn next_logged(&mut self, budget: usize) -> Option<Call> {
        for _ in 0..budget {
            let (id, message) = self.take_logged()?;
            if let Ok(claimed) = self.claim(id, message) {
                if self.is_free(id, message) {
                    return Some(self.hand_out(id, message, claimed));
                }
                if let Some(session) = claimed {
                    self.put_back(session);
                }
            }
            // A report can take long: nobody's call waits for it.
            if !self.losses.is_empty() {
                return None;
            }
        }
        None
    }

    fn take_logged(&mut self) -> Option<(Id, Message)> {
        loop {
            let mut walk = self.pop(POOL)?;
            if walk.burst.is_some() {
                self.tell_caught_up(POOL, &mut walk);
                self.lane(POOL).interrupted = Some(walk);
                return None;
            }
            let next = self.take_next(POOL, &mut walk);
            if self.left(POOL, &walk.entry, walk.after).next().is_some() {
                self.lane(POOL).interrupted = Some(walk);
            }
            if let Some(id) = next {
                return Some((id, walk.entry.message));
            }
        }
    }

    /// Whether a worker makes the call now, and the session that it claims for that.
    fn claim(&mut self, id: Id, message: Message) -> Result<Option<u8>, Waits> {
        let (session, overlaps) = (self.find(id).session, self.find(id).overlaps);
        if overlaps {
            if self.overlapping.is_empty() {
                return Ok(None);
            }
            if self.enqueue(id, message) {
                self.run_queue.push_back(Token::Overlapping);
            }
            return Err(Waits);
        }
        let turn = self.turn;
        let state = self.sessions.get_mut(&session).expect("it has a handler");
        let was_scheduled = std::mem::replace(&mut state.scheduled, true);
        if !was_scheduled && std::mem::replace(&mut state.turn, turn) != turn {
            return Ok(Some(session));
        }
        self.enqueue(id, message);
        if !was_scheduled {
            self.run_queue.push_back(Token::Session(session));
        }
        Err(Waits)
    }

    fn is_free(&mut self, id: Id, message: Message) -> bool {
        self.park(id, message) == Parked::Free
    }

    /// Where the calls of a handler wait for a worker.
    fn queue(&mut self, id: Id) -> &mut VecDeque<(Id, Message)> {
        let (session, overlaps) = (self.find(id).session, self.find(id).overlaps);
        match self.sessions.get_mut(&session) {
            Some(state) if !overlaps => &mut state.queue,
            _ => &mut self.overlapping,
        }
    }

    /// Appends a call, if there is room or an older one gives way; tells whether the queue has
    /// grown.
    fn enqueue(&mut self, id: Id, message: Message) -> bool {
        if self.joins_record(id, message) {
            return false;
        }
        let queue = self.queue(id);
        queue.push_back((id, message));
        if queue.iter().filter(|(other, _)| *other == id).count() <= LIMIT as usize {
            return true;
        }
        let lost = match self.overflow {
            OverflowPolicy::DropOldest => {
                let queue = self.queue(id);
                let oldest = queue.iter().position(|(other, _)| *other == id);
                oldest.and_then(|at| queue.remove(at))
            }
            OverflowPolicy::DropNewest => self.queue(id).pop_back(),
            OverflowPolicy::Unsubscribe => {
                self.expel(id, message);
                return false;
            }
        };
        self.lose(id, lost.expect("full").1, message);
        false
    }

    fn is_queued(&self, id: Id) -> bool {
        self.queued(id).next().is_some()
    }

    /// What waits for a subscription in the queues of the workers.
    pub fn queued(&self, id: Id) -> impl Iterator<Item = Message> {
        let queues = self.sessions.values().map(|s| &s.queue);
        let calls = queues.chain([&self.overlapping]).flatten();
        let own = calls.filter(move |(other, _)| *other == id);
        own.map(|(_, message)| *message)
    }

    fn hand_out(&mut self, id: Id, message: Message, claimed: Option<u8>) -> Call {
        if !self.is_queued(id) {
            self.recover(id, Some(message));
        }
        Call {
            id,
            message,
            claimed,
            hired: self.call_out(),
        }
    }

    pub fn call_out(&mut self) -> bool {
        let work = self.has_log(POOL) || !self.run_queue.is_empty();
        self.lane(POOL).calling += 1;
        work && self.hire(POOL)
    }

    pub fn returned(&mut self) {
        self.lane(POOL).calling -= 1;
    }

    pub fn put_back(&mut self, session: u8) {
        // It is gone if the hub gave it up meanwhile.
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        state.scheduled = !state.queue.is_empty();
        if state.scheduled {
            self.run_queue.push_back(Token::Session(session));
        }
        self.forget();
    }

    pub fn next_call(&mut self, session: u8) -> Option<Call> {
        loop {
            let state = self.sessions.get_mut(&session)?;
            let Some((id, message)) = state.queue.pop_front() else {
                state.scheduled = false;
                self.forget();
                return None;
            };
            if !self.has_come_to_nothing(id, message) && self.is_free(id, message) {
                return Some(self.hand_out(id, message, None));
            }
        }
    }

    pub fn next_overlapping(&mut self) -> Option<Call> {
        loop {
            let (id, message) = self.overlapping.pop_front()?;
            if !self.has_come_to_nothing(id, message) && self.is_free(id, message) {
                return Some(self.hand_out(id, message, None));
            }
        }
    }

    /// A call is over that went on elsewhere: its mail goes before what is queued.
    pub fn requeue(&mut self, id: Id) -> bool {
        let s = self.find(id);
        s.under_way -= 1;
        let (session, overlaps) = (s.session, s.overlaps);
        let mail = std::mem::take(&mut s.mailbox);
        if mail.is_empty() {
            return false;
        }
        for &message in mail.iter().rev() {
            self.queue(id).push_front((id, message));
        }
        if overlaps {
            let tokens = mail.iter().map(|_| Token::Overlapping);
            self.run_queue.extend(tokens);
            return self.hire(POOL);
        }
        let state = self.sessions.get_mut(&session).expect("it has a handler");
        if std::mem::replace(&mut state.scheduled, true) {
            return false;
        }
        self.run_queue.push_back(Token::Session(session));
        self.hire(POOL)
    }

    pub fn dismiss(&mut self) -> bool {
        let done = !self.has_log(POOL) && self.run_queue.is_empty();
        let lane = self.lane(POOL);
        lane.awake = lane.awake.saturating_sub(usize::from(done));
        done
    }

    pub fn lose_worker(&mut self) -> bool {
        let lane = self.lane(POOL);
        lane.awake = lane.awake.saturating_sub(1);
        lane.awake == 0
    }

    pub fn abandon_calls(&mut self) -> usize {
        let mut calls: Vec<_> = self.overlapping.drain(..).collect();
        for session in self.sessions.values_mut() {
            calls.extend(session.queue.drain(..));
            session.scheduled = false;
        }
        for &(id, message) in &calls {
            self.find(id).lost.push(message);
        }
        self.dropped += calls.len();
        self.forget();
        calls.len()
    }

    // ---- closing ----------------------------------------------------------------------------

    /// Whether nothing is queued, and nobody is delivering.
    fn is_idle(&self) -> bool {
        let is_asleep = |lane: &Lane| lane.awake == 0 && lane.resumed.is_empty();
        let is_quiet = |key: &u32| !self.has_log(*key) && is_asleep(&self.lanes[key]);
        let goes_on = self.listed.iter().any(|s| s.under_way > 0);
        let is_told = self.losses.is_empty();
        self.pending() == 0 && !goes_on && is_told && self.lanes.keys().all(is_quiet)
    }

    /// Closes; returns who has to be woken, because no send will do that any more.
    pub fn close(&mut self) -> Vec<u32> {
        self.closed = true;
        let mut keys: Vec<_> = self.lanes.keys().copied().collect();
        keys.sort_unstable();
        let has_work = |key: &u32| self.has_log(*key) || !self.lanes[key].resumed.is_empty();
        keys.retain(|key| self.lanes[key].awake == 0 && has_work(key));
        keys.retain(|key| self.hire(*key));
        keys
    }

    /// A closed hub is finished once it is idle: then everybody has got everything.
    pub fn conclude(&mut self) {
        if self.closed && !self.finished && self.is_idle() {
            let lost = self.give_up(&[]);
            assert_eq!(lost, 0, "nothing was left");
        }
    }

    /// Gives up everything, and with it the messages that deliverers are in the middle of; returns
    /// how many deliveries are lost by it.
    pub fn give_up(&mut self, in_hand: &[(u32, Walk)]) -> usize {
        for lane in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.count_given_way(lane, Message::MAX);
        }
        let lost = |model: &Self| model.listed.iter().map(|s| s.lost.len()).sum::<usize>();
        let (before, dropped) = (lost(self), self.dropped);
        for lane in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.abandon(lane);
            for id in std::mem::take(&mut self.lane(lane).resumed) {
                self.find(id).under_way -= 1;
            }
        }
        self.abandon_calls();
        for s in &mut self.listed {
            self.dropped += s.mailbox.len();
            s.lost.extend(s.mailbox.drain(..));
        }
        for (lane, walk) in in_hand {
            self.dropped += self.lose_walk(*lane, walk);
        }
        let given_up = self.dropped - dropped;
        assert_eq!(given_up, lost(self) - before, "counted, each once");
        self.check_accounts();
        self.end_history();
        self.is_news = true;
        self.watched.clear();
        self.cancel_where(|_| true);
        self.finished = true;
        given_up
    }

    /// Who is subscribed has got every message, or lost it, once.
    pub fn check_accounts(&self) {
        for s in self.live() {
            let mut all = [&s.got[..], &s.lost[..]].concat();
            all.sort_unstable();
            assert_eq!(all, s.sent, "got or lost, each once");
        }
    }

    // ---- a process of its own ---------------------------------------------------------------

    /// Forgets what is queued and who is delivering, as if it had never been sent.
    pub fn renew(&mut self) {
        for lane in self.lanes.values_mut() {
            *lane = Lane::default();
        }
        for session in self.sessions.values_mut() {
            session.queue.clear();
            session.scheduled = false;
        }
        self.overlapping.clear();
        self.run_queue.clear();
        self.losses.clear();
        for s in &mut self.listed {
            s.mailbox.clear();
            (s.under_way, s.burst) = (0, 0);
            // What it was still to be told is the parent's to tell.
            s.is_exact &= s.sent.len() == s.got.len();
            s.sent = [&s.got[..], &s.lost[..]].concat();
            s.sent.sort_unstable();
        }
        self.forget();
    }

    /// Whether a lane sleeps because Ctrl-C stopped its deliverer.
    pub fn is_interrupted(&self, lane: u32) -> bool {
        self.lanes.get(&lane).is_some_and(|state| {
            let is_left = state.interrupted.is_some() || !state.resumed.is_empty();
            lane == INLINE && state.awake == 0 && is_left
        })
    }

    // ---- what must always hold --------------------------------------------------------------

    /// Nobody is asleep while there is work, and what is queued is on somebody's way.
    pub fn check(&self) {
        for (&key, lane) in &self.lanes {
            assert!(
                lane.awake > 0 || !lane.is_logged() || self.is_interrupted(key),
                "lane {key} is asleep with messages to dispatch"
            );
        }
        let pool = self.lanes.get(&POOL);
        // Workers of a hub that has given up find in it what is not there any more.
        if !self.finished && pool.is_none_or(|pool| pool.awake == 0) {
            assert!(self.run_queue.is_empty(), "asleep with work to take");
        }
        for session in self.sessions.values() {
            assert!(session.scheduled || session.queue.is_empty());
        }
        let tokens = self.run_queue.iter();
        let tokens = tokens.filter(|t| **t == Token::Overlapping).count();
        assert!(self.overlapping.len() <= tokens);
    }
}
