//! What the models share: a hub with loom's lock around the real router, and handlers that write
//! down what they get.

use _core::core::LaneKey;
use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::Audience;
use _core::core::history::Retention;
use _core::core::registry::Scope;
use _core::core::router::{Loss, Router};
use _core::core::subscription::Listener;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex};
use triomphe::Arc;

pub const LANE: LaneKey = 0;

/// What a handler does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Return,
    /// Goes on elsewhere, with its first message: what it returned is awaited, or it suspended.
    GoOn,
    /// Blocks until that handler got the same message.
    WaitFor(u8),
    /// Ends its thread's work with its first message, as Ctrl-C does.
    Quit,
}

/// A handler: its name, and what it does.
pub struct Handler {
    pub name: u8,
    pub does: Does,
}

pub fn listener(handler: Handler, overlaps: bool) -> Listener<Handler> {
    Listener {
        handler,
        digest: 0,
        overlaps,
    }
}

pub type Hub = Router<Handler, u64, LaneKey>;
pub type Trash = _core::core::Trash<Handler, u64, LaneKey>;
pub type Subscription = Arc<_core::core::subscription::Subscription<Handler>>;

/// What handlers got, in the order in which their calls began.
pub type Delivered = Vec<(u8, u64)>;

/// Somebody who waits for a closed hub to have nothing left to deliver.
#[derive(Default)]
pub struct Watcher {
    told: Mutex<usize>,
    telling: Condvar,
}

impl Watcher {
    fn tell(&self) {
        *self.told.lock().unwrap() += 1;
        self.telling.notify_all();
    }

    /// Waits until it is told.
    pub fn wait(&self) {
        let mut told = self.told.lock().unwrap();
        while *told == 0 {
            told = self.telling.wait(told).unwrap();
        }
    }

    /// How many times it was told.
    pub fn told(&self) -> usize {
        *self.told.lock().unwrap()
    }
}

/// The router and its lock.
pub struct Locked {
    router: Mutex<Hub>,
    delivered: Mutex<Delivered>,
    delivery: Condvar,
    told: Mutex<Vec<u32>>,
    /// Whether the subscription that a model cancels is gone, for all that its owner knows.
    gone: AtomicBool,
    /// Who waits for the hub to close.
    watchers: Mutex<Vec<Arc<Watcher>>>,
    /// Whether a deliverer may have gone to sleep with messages in the log, as Ctrl-C makes it.
    pub may_sleep: bool,
}

impl Locked {
    pub fn new(limit: u32, workers: usize) -> Self {
        let mut router = Router::new(limit, OverflowPolicy::DropOldest);
        router.add_lane(true, workers, |lane| lane);
        Self {
            router: Mutex::new(router),
            delivered: Mutex::new(Vec::new()),
            delivery: Condvar::new(),
            told: Mutex::new(Vec::new()),
            gone: AtomicBool::new(false),
            watchers: Mutex::new(Vec::new()),
            may_sleep: false,
        }
    }

    /// As `PubSubHub::change`; and checks that nobody sleeps while there is work, of which
    /// `has_ready` tells what is not in the log.
    pub fn change_with<T>(
        &self,
        has_ready: impl FnOnce() -> bool,
        change: impl FnOnce(&mut Hub, &mut Trash) -> T,
    ) -> T {
        let mut trash = Trash::default();
        let (result, finished) = {
            let mut router = self.router.lock().unwrap();
            let was_finished = router.is_finished();
            let result = change(&mut router, &mut trash);
            if router.is_asleep(LANE) && !self.may_sleep {
                assert!(!router.has_log(LANE), "asleep, with messages in the log");
                assert!(!has_ready(), "asleep, with work in the run queue");
            }
            let closes = router.is_closed() && !was_finished;
            (result, closes && router.finish(&mut trash))
        };
        trash.discard();
        if finished {
            self.tell_watchers();
        }
        result
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Hub, &mut Trash) -> T) -> T {
        self.change_with(|| false, change)
    }

    /// As `PubSubHub::change_and_report`.
    pub fn change_and_report<T>(&self, change: impl FnOnce(&mut Hub, &mut Trash) -> T) -> T {
        let (result, reports) =
            self.change(|router, trash| (change(router, trash), router.begin_reports()));
        if reports {
            self.report();
        }
        result
    }

    /// As `report::losses`.
    pub fn report(&self) {
        while let Some(loss) = self.change(|router, _| router.next_report()) {
            let is_finished = self.change(|router, _| router.is_finished());
            assert!(!is_finished, "finished, and still reporting");
            let burst = match loss {
                Loss::Dropped(_) | Loss::FellBehind(..) => 0,
                Loss::Recovered(_, _, burst) | Loss::CaughtUp(_, _, burst) => burst,
                Loss::Expelled(..) => panic!("nobody is unsubscribed here"),
                Loss::Beyond => panic!("nobody has a queue of his own here"),
            };
            self.told.lock().unwrap().push(burst);
        }
    }

    /// What was reported: 0 where a burst of losses began, and its size where it ended.
    pub fn told(&self) -> Vec<u32> {
        self.told.lock().unwrap().clone()
    }

    /// As `Closing::when_done`.
    pub fn watch(&self) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher::default());
        self.watchers.lock().unwrap().push(watcher.clone());
        if self.change(|router, _| router.is_finished()) {
            // It may have been too late to be told.
            self.tell_watchers();
        }
        watcher
    }

    fn tell_watchers(&self) {
        let watchers = std::mem::take(&mut *self.watchers.lock().unwrap());
        for watcher in watchers {
            watcher.tell();
        }
    }

    pub fn subscribe(&self, session: &[u8], name: u8, does: Does) -> Subscription {
        let handler = Handler { name, does };
        self.change(|router, _| router.subscribe(session, None, LANE, listener(handler, false)))
    }

    /// Keeps all messages from now on.
    pub fn keep(&self) {
        let all = Retention {
            messages: usize::MAX,
            age: None,
        };
        self.change(|router, _| {
            router.limit_history(usize::MAX);
            router.keep_all(all);
        });
    }

    /// Subscribes, and lets it have what is kept first; tells whether a deliverer has to be woken.
    pub fn subscribe_late(&self, session: &[u8], name: u8) -> bool {
        let does = Does::Return;
        let handler = Handler { name, does };
        self.change(|router, _| {
            let listener = listener(handler, false);
            let subscription = router.subscribe(session, None, LANE, listener);
            router.replay(&subscription, None, usize::MAX).is_some()
        })
    }

    /// Sends; tells whether a deliverer has to be woken.
    pub fn publish(&self, message: u64) -> bool {
        let wake = self.change_and_report(|router, trash| {
            router.publish(None, Audience::Everyone, || message, trash)
        });
        assert!(wake.len() <= 1, "woken once");
        !wake.is_empty()
    }

    pub fn cancel(&self, subscription: &Subscription) {
        self.change(|router, trash| router.cancel(subscription, trash));
        self.gone.store(true, Ordering::Release);
    }

    pub fn unsubscribe(&self, session: &[u8]) {
        self.change(|router, trash| router.unsubscribe(session, &Scope::All, trash));
        self.gone.store(true, Ordering::Release);
    }

    /// Whether `cancel` or `unsubscribe` has returned: no call may begin from now on.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Writes a delivery down.
    pub fn deliver(&self, name: u8, message: u64) {
        self.delivered.lock().unwrap().push((name, message));
        self.delivery.notify_all();
    }

    /// Waits until there were so many deliveries that `enough` is satisfied.
    pub fn wait_until(&self, enough: impl Fn(&Delivered) -> bool) {
        let mut delivered = self.delivered.lock().unwrap();
        while !enough(&delivered) {
            delivered = self.delivery.wait(delivered).unwrap();
        }
    }

    /// What a handler got.
    pub fn got(&self, name: u8) -> Vec<u64> {
        let delivered = self.delivered.lock().unwrap();
        let own = delivered.iter().filter(|(other, _)| *other == name);
        own.map(|(_, message)| *message).collect()
    }

    /// Checks that nothing is left to do.
    pub fn check_quiet(&self) {
        let mut router = self.router.lock().unwrap();
        assert_eq!(router.sizes().pending, 0, "messages are left");
        assert!(router.next_report().is_none(), "reports are left");
        assert!(
            router.is_asleep(LANE),
            "somebody is awake with nothing to do"
        );
    }
}

/// Runs `model` under every interleaving in which threads are switched away from where they could
/// go on `preemptions` times at the most, or as often as `LOOM_MAX_PREEMPTIONS` says.
pub fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Checks that two senders' messages arrived once each, and each sender's in order.
pub fn check_merged(got: &[u64], senders: [&[u64]; 2]) {
    for sent in senders {
        let own: Vec<_> = got.iter().copied().filter(|m| sent.contains(m)).collect();
        assert_eq!(own, sent);
    }
    assert_eq!(got.len(), senders[0].len() + senders[1].len());
}
