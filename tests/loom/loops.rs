//! Delivery on an event loop, which other threads wake, as `src/delivery/drain.rs` does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use triomphe::Arc;

use _core::core::fanout::Fanout;
use _core::core::router::Parked;
use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::hub::{Does, Handler, LANE, Locked, Subscription, check_merged, explore};

const PREEMPTIONS: usize = 4;

/// What runs on the loop.
enum Task {
    /// Walks the log, from the message that it was in the middle of.
    Dispatch(Option<Fanout<Handler, u64>>),
    /// A handler that suspended, and is now done with its message.
    Serve(Subscription),
    Stop,
}

/// A hub with an event loop, and what the loop has to run.
struct Looped {
    hub: Locked,
    tasks: Mutex<VecDeque<Task>>,
    called: Condvar,
    /// The handler that suspends is suspended; only the loop's thread looks.
    suspended: AtomicBool,
}

impl Looped {
    fn new(limit: u32) -> Self {
        Self {
            hub: Locked::new(limit, 1),
            tasks: Mutex::new(VecDeque::new()),
            called: Condvar::new(),
            suspended: AtomicBool::new(false),
        }
    }

    fn call_soon(&self, task: Task) {
        self.tasks.lock().unwrap().push_back(task);
        self.called.notify_one();
    }

    fn send_each(&self, messages: &[u64]) {
        for &message in messages {
            self.send(message);
        }
    }

    fn send(&self, message: u64) {
        if self.hub.publish(message) {
            self.call_soon(Task::Dispatch(None));
        }
    }

    fn run(&self) {
        loop {
            match self.next_task() {
                Task::Stop => return,
                Task::Dispatch(current) => self.dispatch(current),
                Task::Serve(subscription) => self.serve(&subscription),
            }
        }
    }

    fn next_task(&self) -> Task {
        let mut tasks = self.tasks.lock().unwrap();
        loop {
            match tasks.pop_front() {
                Some(task) => return task,
                None => tasks = self.called.wait(tasks).unwrap(),
            }
        }
    }

    fn dispatch(&self, mut current: Option<Fanout<Handler, u64>>) {
        loop {
            let next = || {
                self.hub
                    .change_and_report(|router, trash| router.next_fanout(LANE, trash))
            };
            let Some(fanout) = current.take().or_else(next) else {
                return;
            };
            if let Some(suspended) = self.walk(&fanout) {
                // This task is the handler's own now; another one goes on.
                self.call_soon(Task::Dispatch(Some(fanout)));
                self.call_soon(Task::Serve(suspended));
                return;
            }
        }
    }

    /// Calls those who get a message, until a handler suspends.
    fn walk(&self, fanout: &Fanout<Handler, u64>) -> Option<Subscription> {
        loop {
            let was_gone = self.hub.is_gone();
            let subscription = fanout.take_next()?;
            assert!(!(was_gone && subscription.handler.name == 0));
            if subscription.is_busy() {
                let envelope = &fanout.envelope;
                let parked = self
                    .hub
                    .change_and_report(|router, trash| router.park(subscription, envelope, trash));
                if !matches!(parked, Parked::Free) {
                    continue;
                }
            }
            let Handler { name, does } = subscription.handler;
            let message = fanout.envelope.message;
            let is_suspended = name == 0 && self.suspended.load(Ordering::Relaxed);
            assert!(!is_suspended, "called at once");
            self.hub.deliver(name, message);
            if does == Does::GoOn && message == 1 {
                self.hub.change(|router, _| router.enter(subscription));
                self.suspended.store(true, Ordering::Relaxed);
                return Some(subscription.clone());
            }
        }
    }

    /// Calls a handler with the next message that waits for it: it suspends with each of them.
    fn serve(&self, subscription: &Subscription) {
        let was_gone = self.hub.is_gone();
        let next = self
            .hub
            .change_and_report(|router, trash| router.unpark(subscription, None, trash));
        let Some(envelope) = next else {
            self.suspended.store(false, Ordering::Relaxed);
            return;
        };
        assert!(!was_gone, "called after it was cancelled");
        self.hub
            .deliver(subscription.handler.name, envelope.message);
        self.call_soon(Task::Serve(subscription.clone()));
    }

    /// Stops the loop when it has nothing to do, and checks that nothing is left.
    fn stop(&self, event_loop: thread::JoinHandle<()>) {
        self.call_soon(Task::Stop);
        event_loop.join().unwrap();
        self.call_soon(Task::Stop);
        while self.tasks.lock().unwrap().len() > 1 {
            self.run();
            self.call_soon(Task::Stop);
        }
        self.hub.check_quiet();
    }
}

fn start(looped: &Arc<Looped>) -> thread::JoinHandle<()> {
    let looped = looped.clone();
    thread::spawn(move || looped.run())
}

#[test]
fn a_loop_that_goes_to_sleep_while_others_send_misses_nothing() {
    explore(PREEMPTIONS, || {
        let looped = Arc::new(Looped::new(10));
        looped.hub.subscribe(b"ann", 0, Does::Return);
        let event_loop = start(&looped);
        let other = looped.clone();
        let sender = thread::spawn(move || other.send_each(&[11, 12]));
        looped.send(21);
        looped.hub.wait_until(|delivered| delivered.len() == 3);
        sender.join().unwrap();
        looped.stop(event_loop);
        check_merged(&looped.hub.got(0), [&[11, 12], &[21]]);
    });
}

#[test]
fn who_comes_late_and_has_messages_replayed_gets_each_once_while_others_send() {
    explore(PREEMPTIONS, || {
        let looped = Arc::new(Looped::new(10));
        looped.hub.keep();
        looped.hub.subscribe(b"bob", 1, Does::Return);
        let event_loop = start(&looped);
        let other = looped.clone();
        let sender = thread::spawn(move || other.send_each(&[1, 2]));
        if looped.hub.subscribe_late(b"ann", 0) {
            looped.call_soon(Task::Dispatch(None));
        }
        looped.hub.wait_until(|delivered| delivered.len() == 4);
        sender.join().unwrap();
        looped.stop(event_loop);
        assert_eq!(looped.hub.got(0), [1, 2]);
        assert_eq!(looped.hub.got(1), [1, 2]);
    });
}

#[test]
fn a_handler_that_suspends_holds_up_nobody_and_gets_the_rest_in_order() {
    explore(PREEMPTIONS, || {
        let looped = Arc::new(Looped::new(10));
        looped.hub.subscribe(b"ann", 0, Does::GoOn);
        looped.hub.subscribe(b"bob", 1, Does::Return);
        let event_loop = start(&looped);
        looped.send_each(&[1, 2, 3]);
        looped.hub.wait_until(|delivered| delivered.len() == 6);
        looped.stop(event_loop);
        assert_eq!(looped.hub.got(0), [1, 2, 3]);
        assert_eq!(looped.hub.got(1), [1, 2, 3]);
    });
}

#[test]
fn a_handler_that_was_cancelled_while_suspended_or_queued_is_not_called_again() {
    explore(PREEMPTIONS, || {
        let looped = Arc::new(Looped::new(10));
        let leaver = looped.hub.subscribe(b"ann", 0, Does::GoOn);
        looped.hub.subscribe(b"bob", 1, Does::Return);
        let event_loop = start(&looped);
        let other = looped.clone();
        let sender = thread::spawn(move || other.send_each(&[1, 2]));
        looped.hub.cancel(&leaver);
        sender.join().unwrap();
        looped.stop(event_loop);
        assert!([1, 2].starts_with(&looped.hub.got(0)));
        assert_eq!(looped.hub.got(1), [1, 2]);
    });
}

#[test]
fn a_loop_that_is_closed_is_given_up_and_a_later_send_wakes_it_again() {
    explore(PREEMPTIONS, || {
        let looped = Arc::new(Looped::new(10));
        looped.hub.subscribe(b"ann", 0, Does::Return);
        let other = looped.clone();
        let sender = thread::spawn(move || [11, 12].map(|message| other.hub.publish(message)));
        let given_up = looped
            .hub
            .change(|router, trash| router.abandon(LANE, trash));
        let woken = sender.join().unwrap();
        // Before, between, or after the two: whoever sends to a sleeping loop is told so.
        assert_eq!(woken, [true, given_up == 1]);
        let left = if given_up == 2 { 0 } else { 2 - given_up };
        assert_eq!(looped.hub.change(|router, _| router.sizes().pending), left);
        looped.dispatch(None);
        looped.hub.check_quiet();
        assert_eq!(looped.hub.got(0).len(), left);
    });
}

#[test]
fn the_end_of_a_burst_of_losses_is_reported_after_its_beginning_whoever_does_it() {
    explore(PREEMPTIONS, || {
        let looped = Arc::new(Looped::new(1));
        looped.hub.subscribe(b"ann", 0, Does::Return);
        let event_loop = start(&looped);
        looped.send_each(&[1, 2]);
        looped
            .hub
            .wait_until(|delivered| delivered.contains(&(0, 2)));
        looped.stop(event_loop);
        let told = looped.hub.told();
        assert!(matches!(told[..], [] | [0, 1]), "{told:?}");
    });
}
