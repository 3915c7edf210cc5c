//! Delivery on worker threads: the loop of a worker (`src/core/worker.rs`) on a small executor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use triomphe::Arc;

use _core::core::router::{NextCall, Ready};
use _core::core::worker::{Site, Worker};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::hub::{
    Does, Handler, Hub, LANE, Locked, Subscription, Trash, check_merged, explore, listener,
};

const PREEMPTIONS: usize = 2;

/// What an executor has to do.
#[derive(Default)]
struct Jobs {
    queued: usize,
    shut_down: bool,
}

/// A hub with an executor of two threads.
struct Pool {
    hub: Locked,
    ready: Mutex<VecDeque<Ready>>,
    jobs: Mutex<Jobs>,
    submitted: Condvar,
    /// Handlers whose awaitables go on.
    awaited: Mutex<Vec<Subscription>>,
    /// How long a job lasts, as its clock says.
    lasting: Duration,
    /// How many handlers of each session are being called; loom need not know.
    inside: [AtomicUsize; 2],
}

impl Pool {
    fn new(limit: u32) -> Self {
        Self {
            hub: Locked::new(limit, 2),
            ready: Mutex::new(VecDeque::new()),
            jobs: Mutex::new(Jobs::default()),
            submitted: Condvar::new(),
            awaited: Mutex::new(Vec::new()),
            lasting: Duration::ZERO,
            inside: Default::default(),
        }
    }

    fn has_ready(&self) -> bool {
        !self.ready.lock().unwrap().is_empty()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Hub, &mut Trash) -> T) -> T {
        self.hub.change_with(|| self.has_ready(), change)
    }

    /// Starts a job for a worker that was entered.
    fn submit(&self) {
        self.jobs.lock().unwrap().queued += 1;
        self.submitted.notify_one();
    }

    fn send_each(&self, messages: &[u64]) {
        for &message in messages {
            self.send(message);
        }
    }

    fn send(&self, message: u64) {
        if self.hub.publish(message) {
            self.submit();
        }
    }

    /// A thread of the executor.
    fn run(&self) {
        while self.take_job() {
            Worker::new(Bench(self), LANE).work();
        }
    }

    fn take_job(&self) -> bool {
        let mut jobs = self.jobs.lock().unwrap();
        while jobs.queued == 0 {
            if jobs.shut_down {
                return false;
            }
            jobs = self.submitted.wait(jobs).unwrap();
        }
        jobs.queued -= 1;
        true
    }

    /// What the event loop does when an awaitable is done, as `Serving::give_back` does.
    fn finish(&self) {
        let done = self.awaited.lock().unwrap().pop();
        if let Some(subscription) = done {
            let enter = |ready| self.ready.lock().unwrap().push_back(ready);
            let wake =
                self.change(|router, trash| router.requeue(LANE, &subscription, enter, trash));
            if wake.is_some() {
                self.submit();
            }
        }
    }

    /// Lets the threads end when they have nothing to do.
    fn shut_down(&self) {
        self.jobs.lock().unwrap().shut_down = true;
        self.submitted.notify_all();
    }

    fn call(&self, subscription: &Subscription, message: u64) {
        let was_gone = self.hub.is_gone();
        // As `call::call` looks, once more, right before the handler.
        if subscription.is_cancelled() {
            return;
        }
        let Handler { name, does } = subscription.handler;
        assert!(!(was_gone && name == 0), "called after it was cancelled");
        let inside = &self.inside[subscription.owner.key() as usize];
        let others = inside.fetch_add(1, Ordering::Relaxed);
        assert!(others == 0 || subscription.overlaps(), "called at once");
        self.hub.deliver(name, message);
        match does {
            Does::WaitFor(other) => self
                .hub
                .wait_until(|delivered| delivered.contains(&(other, message))),
            Does::GoOn if message == 1 => {
                self.change(|router, _| router.enter(subscription));
                self.awaited.lock().unwrap().push(subscription.clone());
            }
            _ => {}
        }
        inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a worker of the pool works.
struct Bench<'a>(&'a Pool);

impl Site for Bench<'_> {
    type Handler = Handler;
    type Message = u64;
    type Deliverer = u32;

    fn change<T>(&self, change: impl FnOnce(&mut Hub, &mut Trash) -> T) -> T {
        self.0.change(change)
    }

    fn enter_ready(&self, ready: Ready) {
        self.0.ready.lock().unwrap().push_back(ready);
    }

    fn has_ready(&self) -> bool {
        self.0.has_ready()
    }

    fn take_ready(&self) -> Option<Ready> {
        self.0.ready.lock().unwrap().pop_front()
    }

    fn start_worker(&self) {
        self.0.submit();
    }

    fn submit_successor(&self) -> bool {
        self.0.submit();
        true
    }

    fn call(&mut self, next: &NextCall<Handler, u64>) {
        self.0.call(&next.call.0, next.call.1.message);
    }

    fn must_pause(&mut self) -> bool {
        false
    }

    fn pause(&mut self) {}

    fn report(&self) {
        self.0.hub.report();
    }

    fn elapsed(&self) -> Duration {
        self.0.lasting
    }

    fn begin_turn(&mut self) {}
}

fn start(pool: &Arc<Pool>) -> [thread::JoinHandle<()>; 2] {
    [(); 2].map(|()| {
        let pool = pool.clone();
        thread::spawn(move || pool.run())
    })
}

fn stop(pool: &Pool, threads: [thread::JoinHandle<()>; 2]) {
    pool.shut_down();
    for thread in threads {
        thread.join().unwrap();
    }
    pool.hub.check_quiet();
}

#[test]
fn workers_deliver_what_two_threads_send_once_and_in_order_for_each_session() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.subscribe(b"ann", 0, Does::Return);
        pool.hub.subscribe(b"bob", 1, Does::Return);
        let threads = start(&pool);
        let other = pool.clone();
        let sender = thread::spawn(move || other.send(11));
        pool.send(21);
        pool.hub.wait_until(|delivered| delivered.len() == 4);
        sender.join().unwrap();
        stop(&pool, threads);
        check_merged(&pool.hub.got(0), [&[11], &[21]]);
        assert_eq!(pool.hub.got(0), pool.hub.got(1));
    });
}

#[test]
fn who_comes_late_and_has_messages_replayed_gets_each_once_while_others_send() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.keep();
        pool.hub.subscribe(b"bob", 1, Does::Return);
        let threads = start(&pool);
        let other = pool.clone();
        let sender = thread::spawn(move || other.send_each(&[1, 2]));
        if pool.hub.subscribe_late(b"ann", 0) {
            pool.submit();
        }
        pool.hub.wait_until(|delivered| delivered.len() == 4);
        sender.join().unwrap();
        stop(&pool, threads);
        assert_eq!(pool.hub.got(0), [1, 2]);
        assert_eq!(pool.hub.got(1), [1, 2]);
    });
}

#[test]
fn a_session_that_is_busy_gets_its_queue_in_order_afterwards() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.subscribe(b"ann", 0, Does::Return);
        let threads = start(&pool);
        pool.send_each(&[1, 2, 3]);
        pool.hub.wait_until(|delivered| delivered.len() == 3);
        stop(&pool, threads);
        assert_eq!(pool.hub.got(0), [1, 2, 3]);
    });
}

#[test]
fn a_handler_that_waits_for_another_session_does_not_hold_it_up() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.subscribe(b"ann", 0, Does::WaitFor(1));
        pool.hub.subscribe(b"bob", 1, Does::Return);
        let threads = start(&pool);
        pool.send_each(&[1, 2]);
        pool.hub.wait_until(|delivered| delivered.len() == 4);
        stop(&pool, threads);
        assert_eq!(pool.hub.got(0), [1, 2]);
        assert_eq!(pool.hub.got(1), [1, 2]);
    });
}

#[test]
fn a_session_that_is_unsubscribed_while_workers_are_at_it_is_not_called_again() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.subscribe(b"ann", 0, Does::Return);
        pool.hub.subscribe(b"bob", 1, Does::Return);
        let threads = start(&pool);
        pool.send_each(&[1, 2]);
        pool.hub.unsubscribe(b"ann");
        stop(&pool, threads);
        assert!([1, 2].starts_with(&pool.hub.got(0)));
        assert_eq!(pool.hub.got(1), [1, 2]);
    });
}

#[test]
fn what_waits_for_an_awaitable_goes_back_to_the_workers_in_order() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.subscribe(b"ann", 0, Does::GoOn);
        let threads = start(&pool);
        pool.send_each(&[1, 2, 3]);
        pool.hub.wait_until(|delivered| !delivered.is_empty());
        while pool.awaited.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        pool.finish();
        pool.hub.wait_until(|delivered| delivered.len() == 3);
        stop(&pool, threads);
        assert_eq!(pool.hub.got(0), [1, 2, 3]);
    });
}

#[test]
fn calls_that_may_overlap_are_made_once_each() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        let handler = Handler {
            name: 0,
            does: Does::Return,
        };
        pool.hub
            .change(|router, _| router.subscribe(b"ann", None, LANE, listener(handler, true)));
        let threads = start(&pool);
        pool.send_each(&[1, 2]);
        pool.hub.wait_until(|delivered| delivered.len() == 2);
        stop(&pool, threads);
        let mut got = pool.hub.got(0);
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn a_job_whose_time_is_over_hands_its_place_on_and_nothing_is_lost() {
    explore(PREEMPTIONS, || {
        let mut pool = Pool::new(10);
        pool.lasting = Duration::from_secs(1);
        let pool = Arc::new(pool);
        pool.hub.subscribe(b"ann", 0, Does::Return);
        let threads = start(&pool);
        pool.send_each(&[1, 2]);
        pool.hub.wait_until(|delivered| delivered.len() == 2);
        stop(&pool, threads);
        assert_eq!(pool.hub.got(0), [1, 2]);
    });
}

#[test]
fn a_worker_that_is_lost_with_its_executor_leaves_a_lane_that_can_be_woken() {
    explore(PREEMPTIONS, || {
        let pool = Arc::new(Pool::new(10));
        pool.hub.subscribe(b"ann", 0, Does::Return);
        // As `ExecutorLane::wake` where the executor takes no job.
        let send = |pool: &Pool, message| {
            if pool.hub.publish(message) {
                pool.change(|router, trash| {
                    if router.lose_worker(LANE) {
                        pool.ready.lock().unwrap().clear();
                        router.abandon(LANE, trash);
                        router.abandon_calls(LANE, trash);
                    }
                });
            }
        };
        let other = pool.clone();
        let sender = thread::spawn(move || send(&other, 11));
        send(&pool, 21);
        sender.join().unwrap();
        pool.hub.check_quiet();
        pool.send(3);
        pool.shut_down();
        pool.run();
        pool.hub.check_quiet();
        assert_eq!(pool.hub.got(0), [3]);
    });
}
