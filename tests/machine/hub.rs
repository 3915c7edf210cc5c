//! The router and the model side by side, with those who work for them: every step is made in
//! both, and what they say is compared.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::Fanout;
use _core::core::registry::Scope;
use _core::core::router::{self, Loss, NextCall, Ready, Router};
use _core::core::subscription::Listener;
use _core::core::{self, SessionKey};
use triomphe::Arc;

use crate::model::{Call, Id, Lost, Message, Model, Parked, Token, Walk};
use crate::{INLINE, LIMIT, LOOP, POOL, Step, TRANSIENT, WORKERS};

type Subscription = Arc<core::subscription::Subscription<Id>>;
type Trash = core::Trash<Id, Message, u32>;

/// A worker that is awake.
#[derive(Default)]
struct Worker {
    /// Its call, and the session that it claimed for that.
    call: Option<(Subscription, Option<SessionKey>)>,
    /// The session that it took from the run queue.
    session: Option<SessionKey>,
}

/// A message that a deliverer is in the middle of, in the router and in the model.
type Current = (Fanout<Id, Message>, Walk);

pub struct Hub {
    router: Router<Id, Message, u32>,
    model: Model,
    subscriptions: Vec<Subscription>,
    ids: HashMap<SessionKey, u8>,
    run_queue: VecDeque<Ready>,
    workers: Vec<Worker>,
    current: HashMap<u32, Current>,
    /// Handlers that went on elsewhere; one that is there twice has two calls under way.
    under_way: Vec<Subscription>,
}

fn session(id: u8) -> Vec<u8> {
    format!("session-{id}").into_bytes()
}

fn topic(id: u8) -> Option<Vec<u8>> {
    (id > 0).then(|| format!("topic-{id}").into_bytes())
}

fn listener(id: Id, overlaps: bool) -> Listener<Id> {
    Listener {
        handler: id,
        digest: 0,
        overlaps,
    }
}

impl Hub {
    pub fn new(overflow: OverflowPolicy) -> Self {
        let mut router = Router::new(LIMIT, overflow);
        router.add_lane(true, WORKERS, |lane| lane);
        router.add_lane(true, 1, |lane| lane);
        router.add_lane(true, 1, |lane| lane);
        router.begin_turn(POOL);
        let mut model = Model::new(overflow);
        model.begin_turn();
        Self {
            router,
            model,
            subscriptions: Vec::new(),
            ids: HashMap::new(),
            run_queue: VecDeque::new(),
            workers: Vec::new(),
            current: HashMap::new(),
            under_way: Vec::new(),
        }
    }

    /// Makes a step, and lets a closed router finish after it, as `PubSubHub::change` does.
    pub fn make(&mut self, step: &Step) {
        self.change(step);
        self.conclude();
    }

    fn change(&mut self, step: &Step) {
        match *step {
            Step::Subscribe {
                session,
                topic,
                lane,
                overlaps,
            } => self.subscribe(session, topic, lane, overlaps),
            Step::Unsubscribe {
                session: s,
                topic: t,
            } => {
                self.model.cancel_where(|l| (l.session, l.topic) == (s, t));
                let name = topic(t);
                let scope = name.as_deref().map_or(Scope::Everything, Scope::Topic);
                self.router
                    .unsubscribe(&session(s), &scope, &mut Trash::default());
            }
            Step::UnsubscribeAll { session } => self.unsubscribe_all(session),
            Step::Cancel { nth } => {
                if let Some(subscription) = nth_of(&self.subscriptions, nth) {
                    self.model.cancel_where(|l| l.id == subscription.handler);
                    self.router.cancel(subscription, &mut Trash::default());
                }
            }
            Step::CutOff { lane } => {
                self.model.cancel_where(|l| l.lane == lane);
                self.router.cut_off(lane, &mut Trash::default());
            }
            Step::Publish { topic, except } => self.publish(topic, except),
            Step::Walk {
                lane,
                calls,
                goes_on,
            } => self.walk(lane, calls, goes_on),
            Step::Interrupt => self.interrupt(),
            Step::Abandon { lane } => self.abandon(lane),
            Step::Finish { nth, looks_first } => self.finish_call(nth, looks_first),
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

    fn subscribe(&mut self, s: u8, t: u8, lane: u32, overlaps: bool) {
        if self.router.is_closed() {
            return;
        }
        if lane == TRANSIENT && self.router.deliverer(TRANSIENT).is_none() {
            let found = self.router.add_lane(false, 1, |lane| lane);
            assert_eq!(found, TRANSIENT);
        }
        let id = self.model.subscribe(s, t, lane, overlaps);
        let subscription = (self.router).subscribe(
            &session(s),
            topic(t).as_deref(),
            lane,
            listener(id, overlaps),
        );
        assert_eq!(subscription.serial, id);
        self.ids.insert(subscription.owner.key(), s);
        self.subscriptions.push(subscription);
    }

    fn unsubscribe_all(&mut self, s: u8) {
        self.model.cancel_where(|l| l.session == s);
        self.router
            .unsubscribe(&session(s), &Scope::All, &mut Trash::default());
    }

    fn publish(&mut self, t: u8, except: Option<u8>) {
        if self.router.is_closed() {
            return;
        }
        let (message, woken, burst) = self.model.publish(t, except);
        let (name, except) = (topic(t), except.map(session));
        let trash = &mut Trash::default();
        let published =
            (self.router).publish(name.as_deref(), except.as_deref(), || message, trash);
        let mut wake = published.wake;
        wake.sort_unstable();
        assert_eq!((&wake[..], published.burst), (&woken[..], burst));
        self.wake(&woken);
    }

    fn wake(&mut self, lanes: &[u32]) {
        if lanes.contains(&POOL) {
            self.workers.push(Worker::default());
        }
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
            assert_eq!(taken.map(|s| s.handler), expected);
            let Some(subscription) = taken else { return };
            let goes_on = goes_on >> nth & 1 == 1;
            self.call_or_park(subscription, &fanout.envelope, goes_on);
        }
        self.current.insert(lane, (fanout, walk));
    }

    fn begin_walk(&mut self, lane: u32) {
        let expected = self.model.next_walk(lane);
        let found = self.router.next_fanout(lane, &mut Trash::default());
        let told = expected.map(|walk| (walk.entry.message, walk.burst));
        let telling = (found.as_ref()).map(|fanout| (fanout.envelope.message, fanout.burst));
        assert_eq!(telling, told);
        if let (Some(mut fanout), Some(mut walk)) = (found, expected) {
            // It is reported at once, once.
            (fanout.burst, walk.burst) = (None, None);
            self.current.insert(lane, (fanout, walk));
        }
    }

    fn call_or_park(
        &mut self,
        subscription: &Subscription,
        envelope: &Arc<core::fanout::Envelope<Message>>,
        goes_on: bool,
    ) {
        let id = subscription.handler;
        assert_eq!(subscription.is_busy(), self.model.is_busy(id));
        let trash = &mut Trash::default();
        let parked = match self.router.park(subscription, envelope, trash) {
            router::Parked::Free => Parked::Free,
            router::Parked::Waiting => Parked::Waiting,
            router::Parked::Dropped(count) => Parked::Dropped(count),
            router::Parked::CutOff(count) => Parked::CutOff(count),
        };
        assert_eq!(parked, self.model.park(id, envelope.message));
        if parked == Parked::Free {
            self.deliver(subscription, envelope.message);
            if goes_on {
                self.enter(subscription.clone());
            }
        }
    }

    fn deliver(&mut self, subscription: &Subscription, message: Message) {
        assert!(!subscription.is_cancelled(), "called after it had ended");
        self.model.find(subscription.handler).got.push(message);
    }

    fn enter(&mut self, subscription: Subscription) {
        self.model.find(subscription.handler).under_way += 1;
        self.router.enter(&subscription);
        self.under_way.push(subscription);
    }

    fn interrupt(&mut self) {
        if let Some((fanout, walk)) = self.current.remove(&INLINE) {
            self.router.interrupt(INLINE, Some(fanout));
            let lane = self.model.lane(INLINE);
            (lane.interrupted, lane.awake) = (Some(walk), 0);
        }
    }

    fn abandon(&mut self, lane: u32) {
        if let Some((fanout, walk)) = self.current.remove(&lane) {
            assert_eq!(fanout.give_up(), self.model.lose_walk(lane, &walk));
        }
        let expected = self.model.abandon(lane);
        let found = self.router.abandon(lane, &mut Trash::default());
        assert_eq!(found, expected);
    }

    // ---- handlers that went on elsewhere ----------------------------------------------------

    fn finish_call(&mut self, nth: usize, looks_first: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let nth = nth % self.under_way.len();
        let subscription = self.under_way[nth].clone();
        match self.model.find(subscription.handler).lane {
            POOL => {
                self.under_way.swap_remove(nth);
                self.requeue(&subscription);
            }
            INLINE => {
                self.under_way.swap_remove(nth);
                let expected = self.model.resume(INLINE, subscription.handler);
                let wake = self.router.resume(INLINE, subscription);
                assert_eq!(wake.is_some(), expected);
            }
            _ => self.go_on_with_mail(nth, &subscription, looks_first),
        }
    }

    fn requeue(&mut self, subscription: &Subscription) {
        let expected = self.model.requeue(subscription.handler);
        let run_queue = &mut self.run_queue;
        let ready = |work| run_queue.push_back(work);
        let trash = &mut Trash::default();
        let wake = self.router.requeue(POOL, subscription, ready, trash);
        assert_eq!(wake.is_some(), expected);
        if wake.is_some() {
            self.wake(&[POOL]);
        }
    }

    fn go_on_with_mail(&mut self, nth: usize, subscription: &Subscription, looks_first: bool) {
        let id = subscription.handler;
        let is_left = if looks_first {
            let found = self.router.has_mail(subscription);
            assert_eq!(found, self.model.has_mail(id));
            found.0
        } else {
            self.unpark(subscription)
        };
        if !is_left {
            self.under_way.swap_remove(nth);
        }
    }

    /// Takes what waits for a handler, if anything does; else its call is over.
    fn unpark(&mut self, subscription: &Subscription) -> bool {
        let (envelope, burst) = self.router.unpark(subscription);
        let message = envelope.map(|envelope| envelope.message);
        assert_eq!((message, burst), self.model.unpark(subscription.handler));
        if let Some(message) = message {
            self.deliver(subscription, message);
        }
        message.is_some()
    }

    /// As the sender's thread goes on with handlers that are done. Every third message of a handler
    /// interrupts it, as Ctrl-C does; then the lane sleeps until the next send.
    fn resume_all(&mut self, lane: u32) {
        while let Some(subscription) = self.router.next_resumed(lane) {
            let expected = self.model.lane(lane).resumed.pop_front();
            assert_eq!(Some(subscription.handler), expected);
            while self.unpark(&subscription) {
                let id = subscription.handler;
                if self.model.find(id).got.len().is_multiple_of(3) {
                    let lane_model = self.model.lane(lane);
                    lane_model.resumed.push_front(id);
                    lane_model.awake = 0;
                    self.router.interrupt_resumed(lane, subscription);
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
            self.router.begin_turn(POOL);
        }
        let expected = self.model.next_logged(budget);
        let mut losses = Vec::new();
        let run_queue = RefCell::new(&mut self.run_queue);
        let found = self.router.next_logged(
            POOL,
            budget,
            |work| run_queue.borrow_mut().push_back(work),
            || !run_queue.borrow().is_empty(),
            &mut losses,
            &mut Trash::default(),
        );
        self.settle(nth, found, expected, &losses);
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
                let (mut losses, more) = (Vec::new(), !self.run_queue.is_empty());
                let trash = &mut Trash::default();
                let found = (self.router).next_overlapping(POOL, || more, &mut losses, trash);
                self.settle(nth, found, expected, &losses);
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
        let (mut losses, more) = (Vec::new(), !self.run_queue.is_empty());
        let trash = &mut Trash::default();
        let found = (self.router).next_call(POOL, session, || more, &mut losses, trash);
        if found.is_none() {
            self.workers[nth].session = None;
        }
        self.settle(nth, found, expected, &losses);
    }

    /// Compares what a worker was told to do, and makes the worker do it.
    fn settle(
        &mut self,
        nth: usize,
        found: Option<NextCall<Id, Message>>,
        expected: Option<Call>,
        losses: &[Loss<Id, Message>],
    ) {
        let told: Vec<_> = losses.iter().map(lost).collect();
        assert_eq!(told, std::mem::take(&mut self.model.losses));
        let telling = found.as_ref().map(|next| Call {
            id: next.call.0.handler,
            message: next.call.1.message,
            claimed: next.claimed.map(|session| self.ids[&session]),
            burst: next.burst,
            hired: next.hired,
        });
        assert_eq!(telling, expected);
        if let Some(next) = found {
            self.deliver(&next.call.0, next.call.1.message);
            self.workers[nth].call = Some((next.call.0, next.claimed));
            if next.hired {
                self.wake(&[POOL]);
            }
        }
        if !losses.is_empty() {
            let more = !self.run_queue.is_empty();
            let hired = self.router.call_out(POOL, || more);
            assert_eq!(hired, self.model.call_out());
            if hired {
                self.wake(&[POOL]);
            }
            self.router.returned(POOL);
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
        self.router.returned(POOL);
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
        self.router
            .put_back(session, |work| run_queue.push_back(work));
    }

    fn dismiss(&mut self, nth: usize) {
        if self.free_worker(nth).is_none() {
            return;
        }
        let idle = self.run_queue.is_empty();
        let done = self.router.dismiss(POOL, || idle);
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
        let was_last = self.router.lose_worker(POOL);
        assert_eq!(was_last, self.model.lose_worker());
        if was_last {
            self.run_queue.clear();
            let expected = (self.model.abandon(POOL), self.model.abandon_calls());
            self.model.run_queue.clear();
            let trash = &mut Trash::default();
            let found = (
                self.router.abandon(POOL, trash),
                self.router.abandon_calls(POOL, trash),
            );
            assert_eq!(found, expected);
        }
    }

    // ---- closing, and a process of its own --------------------------------------------------

    fn close(&mut self) {
        let mut asleep = self.router.close();
        asleep.sort_unstable();
        let woken = self.model.close();
        assert_eq!(asleep[..], woken[..], "woken to finish");
        self.wake(&woken);
    }

    fn conclude(&mut self) {
        if self.router.is_closed() && !self.router.is_finished() {
            self.router.finish(&mut Trash::default());
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
        let found = self.router.give_up(&mut Trash::default());
        assert_eq!(found, expected, "given up");
    }

    /// The hub's copy in a child process: of its deliverers, none is there.
    fn renew(&mut self) {
        let before = self.router.sizes();
        self.router.renew(&mut Trash::default());
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

    pub fn check(&self) {
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
    }

    /// Lets everybody do what there is to do.
    pub fn finish(&mut self) {
        while !self.under_way.is_empty() {
            self.finish_call(0, false);
        }
        for lane in [INLINE, LOOP, TRANSIENT] {
            self.finish_walk(lane);
        }
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
        if self.model.is_interrupted(INLINE) {
            // What Ctrl-C left waits for a send that does not come.
            self.give_up();
        }
        self.conclude();
        assert_eq!(self.router.is_finished(), self.router.is_closed());
        assert_eq!(self.router.sizes().pending, 0, "everything is delivered");
    }

    fn finish_walk(&mut self, lane: u32) {
        loop {
            while self.model.lane(lane).awake > 0 {
                self.walk(lane, 1000, 0);
            }
            if !self.model.is_interrupted(lane) || self.router.is_closed() {
                return;
            }
            // The next send goes on with what Ctrl-C left.
            self.subscribe(0, 0, lane, false);
            self.publish(0, None);
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
        (0..3).for_each(|session| self.unsubscribe_all(session));
        self.check_empty();
    }

    /// Closes the hub, in which nothing waits.
    pub fn shut(&mut self) {
        self.close();
        self.conclude();
        assert!(self.router.is_finished(), "nothing was to wait for");
        self.check_empty();
    }

    fn check_empty(&self) {
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
        assert!((0..3).all(|id| self.router.registry().session_key(&session(id)).is_none()));
    }
}

fn nth_of<T>(list: &[T], nth: usize) -> Option<&T> {
    list.get(nth % list.len().max(1))
}

fn lost(loss: &Loss<Id, Message>) -> Lost {
    match loss {
        Loss::Dropped((subscription, envelope), count) => {
            Lost::Dropped(subscription.handler, envelope.message, *count)
        }
        Loss::CutOff((subscription, envelope), count) => {
            Lost::CutOff(subscription.handler, envelope.message, *count)
        }
        Loss::Recovered(..) => panic!("the router tells that with the call"),
        Loss::CaughtUp(envelope, burst) => Lost::CaughtUp(envelope.message, *burst),
    }
}
