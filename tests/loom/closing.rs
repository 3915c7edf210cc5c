//! Closing a hub, as `src/close.rs` does, while others send and deliver.

use _core::core::fanout::{Audience, Fanout};
use triomphe::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::hub::{Does, LANE, Locked, Subscription, Watcher, explore};

const PREEMPTIONS: usize = 4;

/// A hub with a deliverer that has a thread of its own.
struct Closing {
    hub: Locked,
    /// Whether the deliverer was woken; without a value, it is to end.
    woken: Mutex<Option<bool>>,
    waking: Condvar,
    /// How far the deliverer is with the message that it is in the middle of.
    passed: std::sync::Mutex<u64>,
    /// Messages that were not refused.
    accepted: Mutex<Vec<u64>>,
    /// Handlers whose awaitables go on.
    awaited: Mutex<Vec<Subscription>>,
}

impl Closing {
    fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            hub: Locked::new(limit, 1),
            woken: Mutex::new(Some(false)),
            waking: Condvar::new(),
            passed: std::sync::Mutex::new(0),
            accepted: Mutex::new(Vec::new()),
            awaited: Mutex::new(Vec::new()),
        })
    }

    /// As `PubSubHub::publish`: a closed hub takes nothing.
    fn send(&self, message: u64) {
        let wake = self.hub.change_and_report(|router, trash| {
            (!router.is_closed())
                .then(|| router.publish(None, Audience::Everyone, || message, trash))
        });
        let Some(wake) = wake else { return };
        self.accepted.lock().unwrap().push(message);
        if !wake.is_empty() {
            self.wake(Some(true));
        }
    }

    fn wake(&self, woken: Option<bool>) {
        *self.woken.lock().unwrap() = woken;
        self.waking.notify_one();
    }

    /// The deliverer's thread.
    fn run(&self) {
        while self.is_woken() {
            self.drain();
        }
    }

    fn is_woken(&self) -> bool {
        let mut woken = self.woken.lock().unwrap();
        while *woken == Some(false) {
            woken = self.waking.wait(woken).unwrap();
        }
        *woken = woken.and(Some(false));
        woken.is_some()
    }

    fn drain(&self) {
        let next = || {
            self.hub.change_and_report(|router, trash| {
                let fanout = router.next_fanout(LANE, trash);
                self.pass(fanout.as_ref().map_or(0, Fanout::passed));
                fanout
            })
        };
        while let Some(fanout) = next() {
            // As with a GIL, nobody gives up between these two.
            let take_next = || {
                self.hub.change(|_, _| {
                    let next = fanout.take_next();
                    next.inspect(|subscription| self.pass(subscription.serial))
                })
            };
            while let Some(subscription) = take_next() {
                let (handler, message) = (&subscription.handler, fanout.envelope.message);
                self.hub.deliver(handler.name, message);
                if handler.does == Does::GoOn {
                    self.hub.change(|router, _| router.enter(subscription));
                    self.awaited.lock().unwrap().push(subscription.clone());
                }
            }
        }
    }

    /// Enters how far the deliverer is with a message; the hub's lock is held.
    fn pass(&self, passed: u64) {
        *self.passed.lock().unwrap() = passed;
    }

    /// What the event loop does when an awaitable is done; tells whether there was one.
    fn finish(&self) -> bool {
        let done = self.awaited.lock().unwrap().pop();
        if let Some(subscription) = &done {
            self.hub
                .change_and_report(|router, trash| router.unpark(subscription, None, trash));
        }
        done.is_some()
    }

    /// Closes the hub; without a watcher, there is nothing to wait for.
    fn close(&self) -> Option<Arc<Watcher>> {
        self.hub.change(|router, _| router.close());
        let is_done = self.hub.change(|router, _| router.is_finished());
        (!is_done).then(|| self.hub.watch())
    }

    /// Waits for everything to be delivered: then it is, and nobody is at work for the hub.
    fn close_and_wait(&self) -> Option<Arc<Watcher>> {
        let watcher = self.close();
        if let Some(watcher) = &watcher {
            watcher.wait();
        }
        self.hub.check_quiet();
        let calls = self.hub.change(|router, _| router.calls_under_way());
        assert_eq!(calls, 0, "somebody is still inside a handler");
        watcher
    }

    /// Ends the threads; then who closed was told once, and never again.
    fn stop(&self, threads: [thread::JoinHandle<()>; 2], watcher: Option<Arc<Watcher>>) {
        let [sender, deliverer] = threads;
        sender.join().unwrap();
        self.wake(None);
        deliverer.join().unwrap();
        assert!(watcher.is_none_or(|watcher| watcher.told() == 1));
    }
}

fn start(closing: &Arc<Closing>, messages: &'static [u64]) -> [thread::JoinHandle<()>; 2] {
    let (sender, deliverer) = (closing.clone(), closing.clone());
    [
        thread::spawn(move || messages.iter().for_each(|&message| sender.send(message))),
        thread::spawn(move || deliverer.run()),
    ]
}

#[test]
fn who_closes_is_told_once_everything_that_was_accepted_is_delivered() {
    explore(PREEMPTIONS, || {
        let closing = Closing::new(10);
        closing.hub.subscribe(b"ann", 0, Does::Return);
        let threads = start(&closing, &[1, 2]);
        let watcher = closing.close_and_wait();
        let got = closing.hub.got(0);
        closing.stop(threads, watcher);
        // It was told neither before the last delivery, nor was anything delivered after that.
        assert_eq!(got, *closing.accepted.lock().unwrap());
        assert_eq!(got, closing.hub.got(0));
    });
}

#[test]
fn who_closes_waits_for_a_handler_that_goes_on_elsewhere() {
    explore(PREEMPTIONS, || {
        let closing = Closing::new(10);
        closing.hub.subscribe(b"ann", 0, Does::GoOn);
        closing.send(1);
        let other = closing.clone();
        let event_loop = thread::spawn(move || {
            other.drain();
            assert!(other.finish(), "its call went on");
        });
        let watcher = closing.close_and_wait();
        assert_eq!(closing.hub.got(0), [1]);
        assert!(closing.awaited.lock().unwrap().is_empty());
        event_loop.join().unwrap();
        assert!(watcher.is_none_or(|watcher| watcher.told() == 1));
    });
}

#[test]
fn two_who_close_at_once_are_each_told_once() {
    explore(PREEMPTIONS, || {
        let closing = Closing::new(10);
        closing.hub.subscribe(b"ann", 0, Does::Return);
        closing.send(1);
        let (deliverer, other) = (closing.clone(), closing.clone());
        let deliverer = thread::spawn(move || deliverer.drain());
        let other = thread::spawn(move || other.close_and_wait());
        let own = closing.close_and_wait();
        assert_eq!(closing.hub.got(0), [1]);
        deliverer.join().unwrap();
        for watcher in [own, other.join().unwrap()].into_iter().flatten() {
            assert_eq!(watcher.told(), 1);
        }
    });
}

#[test]
fn who_closes_waits_for_the_report_of_a_loss() {
    explore(PREEMPTIONS, || {
        let closing = Closing::new(1);
        closing.hub.subscribe(b"ann", 0, Does::Return);
        let threads = start(&closing, &[1, 2]);
        let watcher = closing.close_and_wait();
        let told = closing.hub.told();
        assert!(matches!(told[..], [] | [0, 1]), "{told:?}");
        closing.stop(threads, watcher);
    });
}

#[test]
fn who_gives_up_is_told_once_and_counts_what_nobody_gets() {
    explore(PREEMPTIONS, || {
        let closing = Closing::new(10);
        closing.hub.subscribe(b"ann", 0, Does::Return);
        let threads = start(&closing, &[1, 2]);
        let watcher = closing.close();
        let lost = closing
            .hub
            .change(|router, trash| router.give_up(|_| *closing.passed.lock().unwrap(), trash));
        if let Some(watcher) = &watcher {
            watcher.wait();
        }
        closing.stop(threads, watcher);
        closing.hub.check_quiet();
        let (got, accepted) = (closing.hub.got(0), closing.accepted.lock().unwrap());
        assert!(accepted.starts_with(&got), "in order");
        assert_eq!(got.len() + lost, accepted.len(), "got or lost");
        let dropped = closing.hub.change(|router, _| router.sizes().dropped);
        assert_eq!(dropped, lost);
    });
}
