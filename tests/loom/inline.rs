//! Inline delivery: senders that deliver, as `src/delivery/inline.rs` does.

use triomphe::Arc;

use _core::core::fanout::Fanout;
use _core::core::router::Parked;
use loom::sync::Mutex;
use loom::thread;

use crate::hub::{Does, Handler, LANE, Locked, Subscription, check_merged, explore};

const PREEMPTIONS: usize = 5;

/// A hub without an executor.
struct Inline {
    hub: Locked,
    /// Handlers whose awaitables go on.
    awaited: Mutex<Vec<Subscription>>,
}

enum Work {
    Message(Fanout<Handler, u64>),
    Resumed(Subscription),
}

/// A handler was interrupted by what is meant for the process.
struct Quit;

impl Inline {
    fn new(limit: u32) -> Self {
        Self {
            hub: Locked::new(limit, 1),
            awaited: Mutex::new(Vec::new()),
        }
    }

    fn send_each(&self, messages: &[u64]) {
        for &message in messages {
            self.send(message);
        }
    }

    fn send(&self, message: u64) {
        if self.hub.publish(message) {
            let _ = self.drain();
        }
    }

    fn drain(&self) -> Result<(), Quit> {
        while let Some(work) = self.next() {
            match work {
                Work::Resumed(subscription) => self.resume(&subscription),
                Work::Message(fanout) => {
                    let result = self.deliver_all(&fanout);
                    if result.is_err() {
                        self.hub
                            .change(|router, _| drop(router.interrupt(LANE, Some(fanout))));
                        return result;
                    }
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Work> {
        self.hub.change_and_report(|router, trash| {
            let resumed = router.next_resumed(LANE).map(Work::Resumed);
            resumed.or_else(|| router.next_fanout(LANE, trash).map(Work::Message))
        })
    }

    fn deliver_all(&self, fanout: &Fanout<Handler, u64>) -> Result<(), Quit> {
        loop {
            let was_gone = self.hub.is_gone();
            let Some(subscription) = fanout.take_next() else {
                return Ok(());
            };
            assert!(!(was_gone && subscription.handler.name == 0));
            if subscription.is_busy() {
                let envelope = &fanout.envelope;
                let park = self
                    .hub
                    .change_and_report(|router, trash| router.park(subscription, envelope, trash));
                if !matches!(park, Parked::Free) {
                    continue;
                }
            }
            self.make(subscription, fanout.envelope.message)?;
        }
    }

    /// Calls a handler; tells whether its awaitable goes on elsewhere.
    fn make(&self, subscription: &Subscription, message: u64) -> Result<bool, Quit> {
        let was_gone = self.hub.is_gone();
        if subscription.is_cancelled() {
            return Ok(false);
        }
        let Handler { name, does } = subscription.handler;
        assert!(!(was_gone && name == 0), "called after it was cancelled");
        self.hub.deliver(name, message);
        match does {
            Does::GoOn if message == 1 => {
                self.hub.change(|router, _| router.enter(subscription));
                self.awaited.lock().unwrap().push(subscription.clone());
                Ok(true)
            }
            Does::Quit if message == 1 => Err(Quit),
            _ => Ok(false),
        }
    }

    fn resume(&self, subscription: &Subscription) {
        let unpark = || {
            self.hub
                .change_and_report(|router, trash| router.unpark(subscription, None, trash))
        };
        while let Some(envelope) = unpark() {
            if matches!(self.make(subscription, envelope.message), Ok(true)) {
                self.hub.change(|router, _| router.leave(subscription));
                return;
            }
        }
    }

    /// What the event loop does when an awaitable is done, as `Serving::give_back` does.
    fn finish(&self) {
        let done = self.awaited.lock().unwrap().pop();
        if let Some(subscription) = done
            && self
                .hub
                .change(|router, _| router.resume(LANE, subscription))
                .is_some()
        {
            let _ = self.drain();
        }
    }
}

#[test]
fn what_two_threads_send_is_delivered_once_in_one_order_for_all() {
    explore(PREEMPTIONS, || {
        let inline = Arc::new(Inline::new(10));
        for name in 0..2 {
            inline.hub.subscribe(b"ann", name, Does::Return);
        }
        let other = inline.clone();
        let sender = thread::spawn(move || other.send_each(&[11, 12]));
        inline.send_each(&[21, 22]);
        sender.join().unwrap();
        inline.hub.check_quiet();
        check_merged(&inline.hub.got(0), [&[11, 12], &[21, 22]]);
        assert_eq!(inline.hub.got(0), inline.hub.got(1));
    });
}

#[test]
fn who_joins_or_leaves_while_others_send_gets_what_was_sent_in_between() {
    explore(PREEMPTIONS, || {
        let inline = Arc::new(Inline::new(10));
        let leaver = inline.hub.subscribe(b"ann", 0, Does::Return);
        inline.hub.subscribe(b"bob", 1, Does::Return);
        let other = inline.clone();
        let sender = thread::spawn(move || other.send_each(&[11, 12]));
        inline.hub.cancel(&leaver);
        inline.send(21);
        inline.hub.subscribe(b"cid", 2, Does::Return);
        inline.send(22);
        sender.join().unwrap();
        inline.hub.check_quiet();
        let all = inline.hub.got(1);
        check_merged(&all, [&[11, 12], &[21, 22]]);
        assert!(
            all.starts_with(&inline.hub.got(0)),
            "and nothing after it left"
        );
        let joined = inline.hub.got(2);
        assert!(all.ends_with(&joined) && joined.contains(&22));
        assert!(!joined.contains(&21), "sent before it joined");
    });
}

#[test]
fn nothing_is_delivered_to_a_session_that_was_unsubscribed() {
    explore(PREEMPTIONS, || {
        let inline = Arc::new(Inline::new(10));
        inline.hub.subscribe(b"ann", 0, Does::GoOn);
        let (sender, finisher) = (inline.clone(), inline.clone());
        let sender = thread::spawn(move || sender.send_each(&[1, 2]));
        let finisher = thread::spawn(move || finisher.finish());
        inline.hub.unsubscribe(b"ann");
        sender.join().unwrap();
        finisher.join().unwrap();
        inline.finish();
        inline.hub.check_quiet();
        assert!([1, 2].starts_with(&inline.hub.got(0)));
    });
}

#[test]
fn what_waits_for_an_awaitable_is_delivered_in_order_when_it_is_done() {
    explore(PREEMPTIONS, || {
        let inline = Arc::new(Inline::new(10));
        inline.hub.subscribe(b"ann", 0, Does::GoOn);
        inline.send(1);
        let other = inline.clone();
        let event_loop = thread::spawn(move || other.finish());
        inline.send_each(&[2, 3]);
        event_loop.join().unwrap();
        inline.hub.check_quiet();
        assert_eq!(inline.hub.got(0), [1, 2, 3]);
    });
}

#[test]
fn what_ctrl_c_interrupts_is_gone_on_with_in_order_by_the_next_send() {
    explore(PREEMPTIONS, || {
        let mut inline = Inline::new(10);
        inline.hub.may_sleep = true;
        let inline = Arc::new(inline);
        inline.hub.subscribe(b"ann", 0, Does::Quit);
        inline.hub.subscribe(b"bob", 1, Does::Return);
        let other = inline.clone();
        let sender = thread::spawn(move || other.send(2));
        inline.send(1);
        sender.join().unwrap();
        inline.send(3);
        inline.hub.check_quiet();
        let got = inline.hub.got(0);
        check_merged(&got, [&[1, 3], &[2]]);
        assert_eq!(inline.hub.got(1), got);
    });
}
