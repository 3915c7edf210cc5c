//! The router and the model side by side, with those who work for them: every step is made in
//! both, and what they say is compared.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::{Audience, Envelope, Fanout};
use _core::core::history::{History, Retention};
use _core::core::registry::Scope;
use _core::core::router::{self, Loss, NextCall, Ready};
use _core::core::subscription::{Address, Listener};
use _core::core::{self, SessionKey};
use triomphe::Arc;

use crate::locked::{Handler, Locked, Payload, Says, Tested, Trash};
use crate::model::{Call, Id, Lost, Model, Parked, Token, Walk};
use crate::presence::Members;
use crate::{INLINE, KEPT, LIMIT, LOOP, POOL, Step, TRANSIENT, WORKERS};

type Subscription = Arc<core::subscription::Subscription<Handler>>;

/// A worker that is awake.
#[derive(Default)]
struct Worker {
    /// Its call, and the session that it claimed for that.
    call: Option<(Subscription, Option<SessionKey>)>,
    /// The session that it took from the run queue.
    session: Option<SessionKey>,
}

/// A message that a deliverer is in the middle of, in the router and in the model.
type Current = (Fanout<Handler, Payload>, Walk);

pub struct Hub {
    router: Locked,
    model: Model,
    subscriptions: Vec<(Id, Address)>,
    /// How many things sessions have said of themselves.
    said: u64,
    ids: HashMap<SessionKey, u8>,
    run_queue: VecDeque<Ready>,
    workers: Vec<Worker>,
    current: HashMap<u32, Current>,
    /// How far the lanes' deliverers are with the message that they took last.
    passed: HashMap<u32, u64>,
    /// Handlers that went on elsewhere; one that is there twice has two calls under way.
    under_way: Vec<Subscription>,
}

const SESSIONS: [&[u8]; 3] = [b"session-0", b"session-1", b"session-2"];
const TOPICS: [&[u8]; 2] = [b"topic-1", b"topic-2"];

fn session(id: u8) -> &'static [u8] {
    SESSIONS[usize::from(id)]
}

fn topic(id: u8) -> Option<&'static [u8]> {
    let named = usize::from(id).checked_sub(1)?;
    Some(TOPICS[named])
}

fn listener(id: Id, overlaps: bool) -> Listener<Handler> {
    Listener {
        handler: Handler::new(id),
        digest: 0,
        overlaps,
    }
}

impl Hub {
    pub fn new(overflow: OverflowPolicy) -> Self {
        let mut router = Locked::new(LIMIT, overflow);
        router.change(|router, _| {
            router.limit_history(KEPT);
            router.make_notices(Payload::notice, Payload::presence);
            for workers in [WORKERS, 1, 1] {
                router.add_lane(true, workers, |lane| lane);
            }
            router.begin_turn(POOL);
        });
        let mut model = Model::new(overflow);
        model.begin_turn();
        Self {
            router,
            model,
            subscriptions: Vec::new(),
            said: 0,
            ids: HashMap::new(),
            run_queue: VecDeque::new(),
            workers: Vec::new(),
            current: HashMap::new(),
            passed: HashMap::new(),
            under_way: Vec::new(),
        }
    }

    /// Makes a step, reports the losses in it, and lets a closed router finish after that, as
    /// `PubSubHub::change_and_report` does.
    pub fn make(&mut self, step: &Step) {
        self.change(step);
        self.settle_wakes();
        self.conclude();
        self.report();
        self.conclude();
    }

    fn change(&mut self, step: &Step) {
        match *step {
            Step::Subscribe {
                session,
                topic,
                lane,
                overlaps,
                replay,
            } => self.subscribe(session, topic, lane, overlaps, replay),
            Step::Watch {
                session,
                topic,
                lane,
            } => self.watch(session, topic, lane),
            Step::Identify { session } => self.identify(session),
            Step::Unsubscribe {
                session: s,
                topic: t,
            } => {
                self.model.cancel_where(|l| (l.session, l.topic) == (s, t));
                let scope = topic(t).map_or(Scope::Everything, Scope::Topic);
                let end = |router: &mut Tested, trash: &mut Trash| {
                    router.unsubscribe(session(s), &scope, trash);
                };
                self.router.change(end);
            }
            Step::UnsubscribeAll {
                session,
                most,
                before,
            } => self.unsubscribe_all(session, most, before),
            Step::Cancel { nth } => self.cancel(nth),
            Step::CutOff { lane } => self.cut_off(lane),
            Step::Publish { topic, audience } => self.publish(topic, audience),
            Step::Keep { topic, messages } => self.keep(topic, messages),
            Step::KeepAll { messages } => self.keep_all(messages),
            Step::Walk {
                lane,
                calls,
                goes_on,
            } => self.walk(lane, calls, goes_on),
            Step::Interrupt => self.interrupt(),
            Step::Abandon { lane } => self.abandon(lane),
            Step::Finish { nth, looks_first } => self.finish_call(nth, looks_first),
            Step::Forsake { nth } => self.forsake(nth),
            Step::Log {
                worker,
                begins,
                budget,
            } => self.log(worker, begins, budget),
            Step::Take { worker } => self.take(worker),
            Step::GoOn { worker } => self.go_on(worker),
            Step::Return { worker, goes_on } => self.return_from(worker, goes_on),
            Step::PutBack { worker } => self.put_back(worker),
            Step::Dismiss { worker } => self.dismiss(worker),
            Step::Lose { worker } => self.lose(worker),
            Step::Close => self.close(),
            Step::GiveUp => self.give_up(),
            Step::Renew => self.renew(),
        }
    }

    // ---- subscriptions and sends ------------------------------------------------------------

    fn subscribe(&mut self, s: u8, t: u8, lane: u32, overlaps: bool, replay: usize) {
        if self.router.is_closed() {
            return;
        }
        self.provide(lane);
        let id = self.model.subscribe(s, t, lane, overlaps);
        // Those who want earlier messages say who they are, too.
        let said = (replay > 0).then(|| self.say());
        let replayed = replay > 0 && self.model.replay(id, replay);
        if let Some(said) = said {
            self.model.introduce(s, said);
        }
        let enter = |router: &mut Tested, _: &mut Trash| {
            let listener = listener(id, overlaps);
            let subscription = router.subscribe(session(s), topic(t), lane, listener);
            let wake = (replay > 0).then(|| router.replay(&subscription, topic(t), replay));
            if let Some(said) = said {
                router.introduce(&subscription, Payload::identity(said));
            }
            (subscription, wake.flatten())
        };
        let (subscription, wake) = self.router.change(enter);
        self.enlist(s, id, &subscription);
        self.wake_for_replay(wake, lane, replayed);
    }

    fn watch(&mut self, s: u8, t: u8, lane: u32) {
        if self.router.is_closed() {
            return;
        }
        self.provide(lane);
        let (id, replayed) = self.model.watch(s, t, lane);
        let name = TOPICS[usize::from(t - 1)];
        let enter = |router: &mut Tested, _: &mut Trash| {
            router.subscribe_presence(session(s), name, lane, listener(id, false))
        };
        let (subscription, wake) = self.router.change(enter);
        self.enlist(s, id, &subscription);
        self.wake_for_replay(wake, lane, replayed);
    }

    fn provide(&mut self, lane: u32) {
        if lane == TRANSIENT && self.router.deliverer(TRANSIENT).is_none() {
            let add = |router: &mut Tested, _: &mut Trash| router.add_lane(false, 1, |lane| lane);
            assert_eq!(self.router.change(add), TRANSIENT);
        }
    }

    fn enlist(&mut self, s: u8, id: Id, subscription: &Subscription) {
        assert_eq!(subscription.serial, id);
        self.ids.insert(subscription.owner.key(), s);
        self.subscriptions.push((id, subscription.address()));
    }

    fn wake_for_replay(&mut self, wake: Option<u32>, lane: u32, expected: bool) {
        assert_eq!(wake, expected.then_some(lane), "woken for a replay");
        if expected {
            self.wake(&[lane]);
        }
    }

    /// Something that nobody has said yet.
    fn say(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    fn identify(&mut self, s: u8) {
        let said = self.say();
        self.model.identify(s, said);
        let identity = Payload::identity(said);
        self.router
            .change(|router, _| router.identify(session(s), identity));
    }

    fn unsubscribe_all(&mut self, s: u8, most: usize, before: u64) {
        let ended = self.model.first_of(s, most, before);
        self.model.cancel_all(&ended);
        let end = |router: &mut Tested, trash: &mut Trash| {
            router.unsubscribe_some(session(s), &Scope::All, before, most, trash)
        };
        let is_full = self.router.change(end);
        assert_eq!(is_full, ended.len() == most, "there may be more");
    }

    fn cancel(&mut self, nth: usize) {
        let Some(&(id, address)) = nth_of(&self.subscriptions, nth) else {
            return;
        };
        let found = self.router.registry().find(address).cloned();
        assert_eq!(found.is_none(), self.model.find(id).cancelled);
        self.model.cancel_all(&[id]);
        if let Some(subscription) = found {
            assert_eq!(subscription.handler.id, id);
            self.router
                .change(|router, trash| router.cancel(&subscription, trash));
        }
    }

    fn cut_off(&mut self, lane: u32) {
        // In which order, is not said.
        let all = self.router.registry().iter().map(|s| s.handler.id);
        let mut ended: Vec<_> = all.collect();
        ended.retain(|id| self.model.find(*id).lane == lane);
        self.model.cancel_all(&ended);
        assert!(self.model.live().all(|s| s.lane != lane));
        self.router
            .change(|router, trash| router.cut_off(lane, trash));
    }

    fn publish(&mut self, t: u8, audience: Audience<u8>) {
        if self.router.is_closed() {
            return;
        }
        let before = self.model.sequence;
        let (message, woken) = self.model.publish(t, audience);
        let to = match audience {
            Audience::Everyone => Audience::Everyone,
            Audience::Others(s) => Audience::Others(session(s)),
            Audience::Only(s) => Audience::Only(session(s)),
        };
        let mut is_made = false;
        let make = || {
            is_made = true;
            Payload::message(message)
        };
        let send =
            |router: &mut Tested, trash: &mut Trash| router.publish(topic(t), to, make, trash);
        let mut wake = self.router.change(send);
        assert_eq!(is_made, self.model.sequence > before, "made for somebody");
        wake.sort_unstable();
        assert_eq!(wake[..], woken[..]);
        self.wake(&woken);
    }

    fn keep(&mut self, t: u8, messages: Option<usize>) {
        self.model.keep(t, messages);
        let rule = messages.map(retention);
        self.router
            .change(|router, trash| router.keep(topic(t), rule, trash));
    }

    fn keep_all(&mut self, messages: usize) {
        self.model.keep_all(messages);
        self.router
            .change(|router, _| router.keep_all(retention(messages)));
    }

    fn wake(&mut self, lanes: &[u32]) {
        let jobs = lanes.iter().filter(|lane| **lane == POOL);
        self.workers.extend(jobs.map(|_| Worker::default()));
    }

    /// Wakes those who tell others of a change of subscriptions.
    fn settle_wakes(&mut self) {
        let mut expected = std::mem::take(&mut self.model.woken);
        let mut woken = self.router.take_woken();
        expected.sort_unstable();
        woken.sort_unstable();
        assert_eq!(woken, expected, "woken to tell of a change");
        self.wake(&woken);
    }

    // ---- lanes that are walked --------------------------------------------------------------

    fn walk(&mut self, lane: u32, calls: usize, goes_on: u8) {
        let is_at_it = self.current.contains_key(&lane);
        if self.model.lane(lane).awake == 0 && !is_at_it {
            return;
        }
        if !self.current.contains_key(&lane) {
            self.resume_all(lane);
            if self.model.lane(lane).awake > 0 {
                self.begin_walk(lane);
            }
        }
        let Some((fanout, mut walk)) = self.current.remove(&lane) else {
            return;
        };
        for nth in 0..calls {
            let expected = self.model.take_next(lane, &mut walk);
            let taken = fanout.take_next();
            assert_eq!(taken.map(|s| s.handler.id), expected);
            let Some(subscription) = taken else { return };
            assert_eq!(fanout.passed(), subscription.serial);
            self.passed.insert(lane, subscription.serial);
            let goes_on = goes_on >> nth & 1 == 1;
            self.call_or_park(subscription, &fanout.envelope, goes_on);
        }
        self.current.insert(lane, (fanout, walk));
    }

    fn begin_walk(&mut self, lane: u32) {
        let expected = self.model.next_walk(lane);
        let next = |router: &mut Tested, trash: &mut Trash| router.next_fanout(lane, trash);
        let found = self.router.change(next);
        let told = expected.map(|walk| walk.entry.message);
        let telling = found.as_ref().map(|fanout| fanout.envelope.sequence);
        assert_eq!(telling, told);
        if let (Some(fanout), Some(walk)) = (found, expected) {
            self.passed.insert(lane, fanout.passed());
            self.current.insert(lane, (fanout, walk));
        }
    }

    fn call_or_park(
        &mut self,
        subscription: &Subscription,
        envelope: &Arc<Envelope<Payload>>,
        goes_on: bool,
    ) {
        let id = subscription.handler.id;
        assert_eq!(subscription.is_busy(), self.model.is_busy(id));
        let park =
            |router: &mut Tested, trash: &mut Trash| router.park(subscription, envelope, trash);
        let parked = match self.router.change(park) {
            router::Parked::Free => Parked::Free,
            router::Parked::Waiting => Parked::Waiting,
            router::Parked::Lost => Parked::Lost,
        };
        assert_eq!(parked, self.model.park(id, envelope.sequence));
        if parked == Parked::Free {
            self.deliver(subscription, envelope);
            if goes_on {
                self.enter(subscription.clone());
            }
        }
    }

    fn deliver(&mut self, subscription: &Subscription, envelope: &Envelope<Payload>) {
        assert!(!subscription.is_cancelled(), "called after it had ended");
        let told = match &envelope.message.says {
            Says::Message(number) => {
                assert_eq!(*number, envelope.sequence);
                None
            }
            Says::Notice(presence) => Some(presence.joined_and_left()),
            Says::Identity(_) => panic!("an identity is no message"),
        };
        let told = told.map(|(joined, left)| (members(&joined), members(&left)));
        let id = subscription.handler.id;
        let expected = self.model.told(id, envelope.sequence);
        assert_eq!(told, expected, "who came, who left");
        self.model.find(id).got.push(envelope.sequence);
    }

    fn enter(&mut self, subscription: Subscription) {
        self.model.find(subscription.handler.id).under_way += 1;
        self.router.change(|router, _| router.enter(&subscription));
        self.under_way.push(subscription);
    }

    fn interrupt(&mut self) {
        if let Some((fanout, walk)) = self.current.remove(&INLINE) {
            let interrupt =
                |router: &mut Tested, _: &mut Trash| router.interrupt(INLINE, Some(fanout));
            let let_go = self.router.change(interrupt);
            assert_eq!(let_go.is_some(), self.model.finished, "kept to go on with");
            let walk = (!self.model.finished).then_some(walk);
            let lane = self.model.lane(INLINE);
            (lane.interrupted, lane.awake) = (walk, 0);
        }
    }

    fn abandon(&mut self, lane: u32) {
        if let Some((fanout, walk)) = self.current.remove(&lane) {
            assert_eq!(fanout.give_up(), self.model.lose_walk(lane, &walk));
        }
        let expected = self.model.abandon(lane);
        let found = self
            .router
            .change(|router, trash| router.abandon(lane, trash));
        assert_eq!(found, expected);
    }

    // ---- handlers that went on elsewhere ----------------------------------------------------

    fn finish_call(&mut self, nth: usize, looks_first: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let nth = nth % self.under_way.len();
        let subscription = self.under_way[nth].clone();
        match self.model.find(subscription.handler.id).lane {
            POOL => {
                self.under_way.swap_remove(nth);
                self.requeue(&subscription);
            }
            INLINE => {
                self.under_way.swap_remove(nth);
                let expected = self.model.resume(INLINE, subscription.handler.id);
                let resume =
                    |router: &mut Tested, _: &mut Trash| router.resume(INLINE, subscription);
                let wake = self.router.change(resume);
                assert_eq!(wake.is_some(), expected);
            }
            _ => self.go_on_with_mail(nth, &subscription, looks_first),
        }
    }

    fn forsake(&mut self, nth: usize) {
        if self.under_way.is_empty() {
            return;
        }
        let nth = nth % self.under_way.len();
        let subscription = self.under_way.swap_remove(nth);
        let expected = self.model.forsake(subscription.handler.id);
        let forsake = |router: &mut Tested, trash: &mut Trash| router.forsake(&subscription, trash);
        assert_eq!(self.router.change(forsake), expected);
    }

    fn requeue(&mut self, subscription: &Subscription) {
        let expected = self.model.requeue(subscription.handler.id);
        let run_queue = &mut self.run_queue;
        let ready = |work| run_queue.push_back(work);
        let requeue = |router: &mut Tested, trash: &mut Trash| {
            router.requeue(POOL, subscription, ready, trash)
        };
        let wake = self.router.change(requeue);
        assert_eq!(wake.is_some(), expected);
        if wake.is_some() {
            self.wake(&[POOL]);
        }
    }

    fn go_on_with_mail(&mut self, nth: usize, subscription: &Subscription, looks_first: bool) {
        let id = subscription.handler.id;
        let is_left = if looks_first {
            let found = self
                .router
                .change(|router, trash| router.has_mail(subscription, None, trash));
            assert_eq!(found, self.model.has_mail(id));
            found
        } else {
            self.unpark(subscription)
        };
        if !is_left {
            self.under_way.swap_remove(nth);
        }
    }

    /// Takes what waits for a handler, if anything does; else its call is over.
    fn unpark(&mut self, subscription: &Subscription) -> bool {
        let unpark =
            |router: &mut Tested, trash: &mut Trash| router.unpark(subscription, None, trash);
        let envelope = self.router.change(unpark);
        let message = envelope.as_ref().map(|envelope| envelope.sequence);
        assert_eq!(message, self.model.unpark(subscription.handler.id));
        if let Some(envelope) = &envelope {
            self.deliver(subscription, envelope);
        }
        message.is_some()
    }

    /// As the sender's thread goes on with handlers that are done. Every third message of a handler
    /// interrupts it, as Ctrl-C does; then the lane sleeps until the next send.
    fn resume_all(&mut self, lane: u32) {
        while let Some(subscription) = self.router.change(|router, _| router.next_resumed(lane)) {
            let expected = self.model.lane(lane).resumed.pop_front();
            assert_eq!(Some(subscription.handler.id), expected);
            while self.unpark(&subscription) {
                let id = subscription.handler.id;
                if self.model.find(id).got.len().is_multiple_of(3) {
                    let lane_model = self.model.lane(lane);
                    lane_model.resumed.push_front(id);
                    lane_model.awake = 0;
                    let interrupt = |router: &mut Tested, _: &mut Trash| {
                        router.interrupt_resumed(lane, subscription)
                    };
                    drop(self.router.change(interrupt));
                    return;
                }
            }
        }
        assert!(self.model.lane(lane).resumed.is_empty());
    }

    // ---- workers ----------------------------------------------------------------------------

    fn free_worker(&mut self, nth: usize) -> Option<&mut Worker> {
        let worker = self.workers.get_mut(nth)?;
        (worker.call.is_none() && worker.session.is_none()).then_some(worker)
    }

    fn log(&mut self, nth: usize, begins: bool, budget: usize) {
        if self.free_worker(nth).is_none() {
            return;
        }
        if begins {
            self.model.begin_turn();
            self.router.change(|router, _| router.begin_turn(POOL));
        }
        let expected = self.model.next_logged(budget);
        let run_queue = RefCell::new(&mut self.run_queue);
        let ready = |work| run_queue.borrow_mut().push_back(work);
        let more = || !run_queue.borrow().is_empty();
        let found = self
            .router
            .change(|router, trash| router.next_logged(POOL, budget, ready, more, trash));
        self.settle(nth, found, expected);
    }

    fn take(&mut self, nth: usize) {
        if self.free_worker(nth).is_none() {
            return;
        }
        let Some(ready) = self.run_queue.pop_front() else {
            return;
        };
        let token = self.model.run_queue.pop_front();
        assert_eq!(Some(self.token(ready)), token);
        match ready {
            Ready::Session(session) => {
                self.workers[nth].session = Some(session);
                self.go_on(nth);
            }
            Ready::Overlapping => {
                let expected = self.model.next_overlapping();
                let more = !self.run_queue.is_empty();
                let found = self
                    .router
                    .change(|router, trash| router.next_overlapping(POOL, || more, trash));
                self.settle(nth, found, expected);
            }
        }
    }

    fn token(&self, ready: Ready) -> Token {
        match ready {
            Ready::Session(session) => Token::Session(self.ids[&session]),
            Ready::Overlapping => Token::Overlapping,
        }
    }

    fn go_on(&mut self, nth: usize) {
        let Some(worker) = self.workers.get(nth) else {
            return;
        };
        let (None, Some(session)) = (&worker.call, worker.session) else {
            return;
        };
        let expected = self.model.next_call(self.ids[&session]);
        let more = !self.run_queue.is_empty();
        let found = self
            .router
            .change(|router, trash| router.next_call(POOL, session, || more, trash));
        if found.is_none() {
            self.workers[nth].session = None;
        }
        self.settle(nth, found, expected);
    }

    /// Compares what a worker was told to do, and makes the worker do it.
    fn settle(
        &mut self,
        nth: usize,
        found: Option<NextCall<Handler, Payload>>,
        expected: Option<Call>,
    ) {
        let telling = found.as_ref().map(|next| Call {
            id: next.call.0.handler.id,
            message: next.call.1.sequence,
            claimed: next.claimed.map(|session| self.ids[&session]),
            hired: next.hired,
        });
        assert_eq!(telling, expected);
        if let Some(next) = found {
            self.deliver(&next.call.0, &next.call.1);
            self.workers[nth].call = Some((next.call.0, next.claimed));
            if next.hired {
                self.wake(&[POOL]);
            }
        }
        if self.router.has_news() {
            let more = !self.run_queue.is_empty();
            let hired = (self.router).change(|router, _| router.call_out(POOL, || more));
            assert_eq!(hired, self.model.call_out());
            if hired {
                self.wake(&[POOL]);
            }
            self.report();
            self.router.change(|router, _| router.returned(POOL));
            self.model.returned();
        }
    }

    fn return_from(&mut self, nth: usize, goes_on: bool) {
        let call = self.workers.get_mut(nth).and_then(|w| w.call.take());
        let Some((subscription, claimed)) = call else {
            return;
        };
        if goes_on {
            self.enter(subscription);
        }
        self.router.change(|router, _| router.returned(POOL));
        self.model.returned();
        if let Some(session) = claimed {
            self.let_go(session);
        }
    }

    fn put_back(&mut self, nth: usize) {
        if let Some(worker) = self.workers.get_mut(nth)
            && worker.call.is_none()
            && let Some(session) = worker.session.take()
        {
            self.let_go(session);
        }
    }

    fn let_go(&mut self, session: SessionKey) {
        self.model.put_back(self.ids[&session]);
        let run_queue = &mut self.run_queue;
        let ready = |work| run_queue.push_back(work);
        self.router
            .change(|router, _| router.put_back(session, ready));
    }

    fn dismiss(&mut self, nth: usize) {
        if self.free_worker(nth).is_none() {
            return;
        }
        let idle = self.run_queue.is_empty();
        let done = (self.router).change(|router, _| router.dismiss(POOL, || idle));
        assert_eq!(done, self.model.dismiss());
        if done {
            self.workers.remove(nth);
        }
    }

    fn lose(&mut self, nth: usize) {
        if self.free_worker(nth).is_none() {
            return;
        }
        self.workers.remove(nth);
        let was_last = (self.router).change(|router, _| router.lose_worker(POOL));
        assert_eq!(was_last, self.model.lose_worker());
        if was_last {
            self.run_queue.clear();
            let expected = (self.model.abandon(POOL), self.model.abandon_calls());
            self.model.run_queue.clear();
            let found = self.router.change(|router, trash| {
                let logged = router.abandon(POOL, trash);
                (logged, router.abandon_calls(POOL, trash))
            });
            assert_eq!(found, expected);
        }
    }

    /// Compares what is to be reported.
    fn report(&mut self) {
        let is_news = !self.model.losses.is_empty();
        let begins = self.router.change(|router, _| router.begin_reports());
        assert_eq!(begins, is_news, "something to report");
        if is_news {
            let next = || self.router.change(|router, _| router.next_report());
            let told: Vec<_> = std::iter::from_fn(next).collect();
            let told = by_lane(told.iter().map(lost).collect());
            assert_eq!(told, by_lane(std::mem::take(&mut self.model.losses)));
        }
    }

    // ---- closing, and a process of its own --------------------------------------------------

    fn close(&mut self) {
        let mut asleep = self.router.change(|router, _| router.close());
        asleep.sort_unstable();
        let woken = self.model.close();
        assert_eq!(asleep[..], woken[..], "woken to finish");
        self.wake(&woken);
    }

    fn conclude(&mut self) {
        if self.router.is_closed() && !self.router.is_finished() {
            self.router.change(Tested::finish);
        }
        self.model.conclude();
        assert_eq!(self.router.is_finished(), self.model.finished, "finished");
    }

    /// Who waited for a closed hub waits no longer.
    fn give_up(&mut self) {
        if !self.router.is_closed() {
            return;
        }
        let in_hand = self.current.iter().map(|(lane, (_, walk))| (*lane, *walk));
        let expected = self.model.give_up(&in_hand.collect::<Vec<_>>());
        let passed = |lane: &u32| self.passed.get(lane).copied().unwrap_or_default();
        let found = (self.router).change(|router, trash| router.give_up(passed, trash));
        assert_eq!(found, expected, "given up");
    }

    /// The hub's copy in a child process: of its deliverers, none is there.
    fn renew(&mut self) {
        let before = self.router.sizes();
        self.router.change(Tested::renew);
        self.model.renew();
        self.run_queue.clear();
        self.workers.clear();
        self.current.clear();
        self.under_way.clear();
        let after = self.router.sizes();
        assert_eq!((after.pending, self.router.calls_under_way()), (0, 0));
        assert_eq!(after.subscriptions, before.subscriptions);
        assert_eq!(after.dropped, before.dropped, "they are the parent's");
        assert!((0..4).all(|lane| self.router.is_asleep(lane)));
    }

    // ---- what must always hold --------------------------------------------------------------

    pub fn check(&mut self) {
        let (sizes, model) = (self.router.sizes(), &self.model);
        assert_eq!(sizes.pending, model.pending(), "pending");
        assert_eq!(sizes.subscriptions, model.subscriptions(), "subscriptions");
        assert_eq!(sizes.sessions, model.sessions(), "sessions");
        assert_eq!(sizes.topics, model.topics(), "topics");
        assert_eq!(sizes.published, model.published, "published");
        assert_eq!(sizes.dropped, model.dropped, "dropped");
        let calls = self.router.calls_under_way();
        assert_eq!(calls, model.calls_under_way(), "calls under way");
        for (&lane, state) in &model.lanes {
            assert_eq!(self.router.is_asleep(lane), state.awake == 0);
            assert_eq!(self.router.has_log(lane), model.has_log(lane));
        }
        model.check();
        if std::mem::take(&mut self.model.is_news) {
            self.check_members();
            self.check_history();
            self.model.check_watchers();
        }
    }

    fn check_members(&self) {
        let (registry, model) = (self.router.registry(), &self.model);
        assert_eq!(members(&registry.everybody()), model.everybody());
        let mut topics: Vec<_> = registry.topics().map(|name| &**name).collect();
        topics.sort_unstable();
        let mut expected = Vec::new();
        for (name, t) in TOPICS.iter().zip(1..) {
            let there = model.members(t);
            assert_eq!(members(&registry.members(name)), there, "who is there");
            assert_eq!(registry.count_on(name), there.len(), "how many are there");
            expected.extend((!there.is_empty()).then_some(*name));
        }
        assert_eq!(topics, expected, "topics that somebody is on");
    }

    fn check_history(&self) {
        for t in 0..3 {
            assert_eq!(self.router.keeps(topic(t)), self.model.keeps(t) > 0);
        }
        let kept = self.router.history().map_or(0, History::len);
        assert_eq!(kept, self.model.kept().len(), "how many are kept");
        let all = self.router.history().into_iter().flat_map(History::iter);
        let mut all: Vec<_> = all.map(|envelope| envelope.sequence).collect();
        all.sort_unstable();
        assert!(all.iter().eq(&self.model.kept()), "what is kept");
    }

    /// Lets everybody do what there is to do: what one does can be news to another.
    pub fn finish(&mut self) {
        while self.is_at_work() {
            while !self.under_way.is_empty() {
                self.finish_call(0, false);
                self.report();
            }
            for lane in [INLINE, LOOP, TRANSIENT] {
                self.finish_walk(lane);
            }
            self.settle_wakes();
            self.finish_workers();
            self.settle_wakes();
        }
        if self.model.is_interrupted(INLINE) {
            // What Ctrl-C left waits for a send that does not come.
            self.give_up();
        }
        self.conclude();
        assert_eq!(self.router.is_finished(), self.router.is_closed());
        assert_eq!(self.router.sizes().pending, 0, "everything is delivered");
    }

    fn is_at_work(&self) -> bool {
        let is_left = self.model.is_interrupted(INLINE) && !self.router.is_closed();
        let is_awake = self.model.lanes.values().any(|lane| lane.awake > 0);
        is_left || is_awake || !self.under_way.is_empty() || !self.workers.is_empty()
    }

    fn finish_workers(&mut self) {
        while !self.workers.is_empty() {
            self.return_from(0, false);
            self.check();
            if self.workers[0].session.is_some() {
                self.go_on(0);
            } else if !self.run_queue.is_empty() {
                self.take(0);
            } else {
                self.log(0, true, 1000);
                self.dismiss(0);
            }
        }
    }

    fn finish_walk(&mut self, lane: u32) {
        loop {
            while self.model.lane(lane).awake > 0 {
                self.walk(lane, 1000, 0);
                self.report();
            }
            if !self.model.is_interrupted(lane) || self.router.is_closed() {
                return;
            }
            // The next send goes on with what Ctrl-C left.
            self.subscribe(0, 0, lane, false, 0);
            self.publish(0, Audience::Everyone);
        }
    }

    /// Nothing is lost without a word, doubled, or out of order.
    pub fn check_deliveries(&self) {
        for s in &self.model.listed {
            assert!(s.got.is_sorted_by(|a, b| a < b), "in order, and once");
            assert!(s.got.iter().all(|message| s.sent.contains(message)));
        }
        self.model.check_accounts();
    }

    /// Ends all subscriptions: nothing may be left of them.
    pub fn leave(&mut self) {
        (0..3).for_each(|session| self.unsubscribe_all(session, usize::MAX, u64::MAX));
        self.settle_wakes();
        // Those who watched left before they could be told, and nobody is told of that.
        self.finish();
        self.check_empty();
    }

    /// Closes the hub, in which nothing waits.
    pub fn shut(&mut self) {
        self.close();
        self.conclude();
        assert!(self.router.is_finished(), "nothing was to wait for");
        self.check_empty();
    }

    fn check_empty(&mut self) {
        self.check();
        let sizes = self.router.sizes();
        assert_eq!(
            (sizes.subscriptions, sizes.sessions, sizes.topics),
            (0, 0, 0)
        );
        assert!(
            self.router.deliverer(TRANSIENT).is_none(),
            "its lane is gone"
        );
        assert!((0..3).all(|id| self.router.registry().session_key(session(id)).is_none()));
    }
}

fn nth_of<T>(list: &[T], nth: usize) -> Option<&T> {
    list.get(nth % list.len().max(1))
}

fn retention(messages: usize) -> Retention {
    Retention {
        messages,
        age: None,
    }
}

/// Sessions, as the model lists them.
fn members(all: &[core::presence::Member<Payload>]) -> Members {
    let number = |id: &[u8]| id.last().map_or(0, |digit| digit - b'0');
    let members = all.iter().map(|member| {
        let said = member
            .identity
            .as_ref()
            .map(|identity| identity.says.said());
        (number(member.owner.id()), said)
    });
    let found: Members = members.collect();
    assert_eq!(found.len(), all.len(), "each once");
    found
}

/// What one send brings about in several lanes has no order.
fn by_lane(mut told: Vec<Lost>) -> Vec<Lost> {
    let lane = |lost: &Lost| match lost {
        Lost::FellBehind(lane, _) => Some(*lane),
        _ => None,
    };
    for same in told.chunk_by_mut(|a, b| lane(a).is_some() && lane(b).is_some()) {
        same.sort_by_key(lane);
    }
    told
}

fn lost(loss: &Loss<Handler, Payload>) -> Lost {
    match loss {
        Loss::Dropped((subscription, envelope)) => {
            Lost::Dropped(subscription.handler.id, envelope.sequence)
        }
        Loss::Expelled((subscription, envelope), count) => {
            Lost::Expelled(subscription.handler.id, envelope.sequence, *count)
        }
        Loss::Recovered(subscription, envelope, count) => {
            let message = envelope.as_ref().map(|envelope| envelope.sequence);
            Lost::Recovered(subscription.handler.id, message, *count)
        }
        Loss::FellBehind(lane, envelope) => Lost::FellBehind(*lane, envelope.sequence),
        Loss::CaughtUp(lane, envelope, burst) => Lost::CaughtUp(*lane, envelope.sequence, *burst),
        Loss::Beyond => panic!("nobody has a queue of his own here"),
    }
}
