//! How long deliveries take: one call of many is timed, because a look at the clock costs as much as
//! a short call.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::core::clock;
use crate::core::counters::{COUNTS, Share};
use crate::delivery::handler::Handler;
use crate::delivery::{Envelope, Fanout, Subscription};
use crate::hub::PubSubHub;
use crate::ranking::{Ranked, Ranking};
use crate::report;

/// Calls between two that are timed, about; a power of two.
const GAP: u64 = 256;
/// How many calls in a row are timed once one was slow, to find out which are.
const CURIOSITY: u64 = 256;
/// A call that takes so long is remembered with its handler.
const SLOW: Duration = Duration::from_micros(100);
/// A call that takes so long makes curious about those that follow.
const SUSPICIOUS: Duration = Duration::from_millis(1);
/// What was measured is forgotten after this time to twice this time.
const WINDOW: u64 = 60_000_000_000;
/// No latency is told to be longer than an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// What a hub knows of the time that its deliveries take.
#[derive(Default)]
pub struct Timing {
    latencies: Mutex<Latencies>,
    slow: Mutex<Ranking<Calls>>,
}

/// Latencies of the last one to two minutes, in nanoseconds.
#[derive(Default)]
struct Latencies {
    current: Option<Histogram<u64>>,
    previous: Option<Histogram<u64>>,
    /// When the current ones began.
    since: u64,
}

/// Calls of one handler that took long.
#[derive(Clone, Copy, Default)]
pub struct Calls {
    /// How many were timed.
    pub count: u64,
    /// How long they took together.
    pub total: Duration,
    /// How long the longest took.
    pub max: Duration,
}

impl Ranked for Calls {
    type Rank = Duration;

    fn rank(&self) -> Duration {
        self.max
    }
}

/// Quantiles of the latencies, in seconds.
#[derive(Default)]
pub struct Quantiles {
    /// Half of the calls began earlier after their send.
    pub p50: f64,
    /// 99 of 100 calls did.
    pub p99: f64,
    /// All did.
    pub max: f64,
}

impl Timing {
    /// The latencies of the last one to two minutes.
    pub fn quantiles(&self) -> Quantiles {
        let all = self.latencies.lock().all(clock::now());
        let Some(all) = all.filter(|all| !all.is_empty()) else {
            return Quantiles::default();
        };
        let at = |quantile| seconds(all.value_at_quantile(quantile));
        Quantiles {
            p50: at(0.5),
            p99: at(0.99),
            max: seconds(all.max()),
        }
    }

    /// The handlers that took longest, the slowest first.
    pub fn slowest(&self, most: usize) -> Vec<(String, Calls)> {
        let slow = self.slow.lock().clone();
        slow.into_first(most)
    }

    #[cold]
    fn note(&self, sent_at: u64) {
        self.record_latency(sent_at, clock::now());
    }

    fn record_latency(&self, sent_at: u64, now: u64) {
        self.latencies
            .lock()
            .record(now.saturating_sub(sent_at), now);
    }

    fn record_slow(&self, handler: String, took: Duration) {
        let mut slow = self.slow.lock();
        let calls = slow.entry(handler).or_default();
        calls.count += 1;
        calls.total += took;
        calls.max = calls.max.max(took);
    }
}

impl Latencies {
    fn record(&mut self, latency: u64, now: u64) {
        self.turn(now);
        if self.current.is_none() {
            self.current = Histogram::new(2).ok();
        }
        if let Some(current) = &mut self.current {
            // It grows to what it is given; without the memory for that, the value is left out.
            let _ = current.record(latency.min(LONGEST));
        }
    }

    fn turn(&mut self, now: u64) {
        let age = now.saturating_sub(self.since);
        if age >= WINDOW {
            self.previous = self.current.take().filter(|_| age < 2 * WINDOW);
            self.since = now;
        }
    }

    fn all(&mut self, now: u64) -> Option<Histogram<u64>> {
        self.turn(now);
        let mut all = self.current.clone();
        match (&mut all, &self.previous) {
            (Some(all), Some(previous)) => all.add(previous).ok()?,
            (None, previous) => all.clone_from(previous),
            (Some(_), None) => {}
        }
        all
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// A deliverer's choice of the calls that it times.
pub struct Sampler<'a> {
    timing: &'a Timing,
    /// Where its thread's next deliverer finds how to go on: calls until one is timed, and, in the
    /// upper half, how many calls in a row are timed from then on.
    share: &'a Share,
    /// Calls until one is timed, with that one.
    left: u64,
    /// Calls that this deliverer will have made then.
    until: u64,
    curious: u64,
}

/// A call that is being timed.
#[derive(Clone, Copy)]
pub struct Timed {
    began: u64,
}

impl<'a> Sampler<'a> {
    /// Goes on where the thread's last deliverer stopped.
    pub fn new(hub: &'a PubSubHub) -> Self {
        let share = hub.counters.own();
        let state = share.sample.load(Ordering::Relaxed);
        let left = (state & u64::from(u32::MAX)).max(1);
        Self {
            timing: &hub.timing,
            share,
            left,
            until: left,
            curious: state >> 32,
        }
    }

    /// Notes how long a message took until its first call, if the time of its send was noted. What is
    /// replayed was sent long ago, before the subscription was there.
    #[inline]
    pub fn take_up(&self, fanout: &Fanout) {
        if COUNTS && fanout.envelope.sent_at != 0 && fanout.is_untouched() && !fanout.is_replay() {
            self.timing.note(fanout.envelope.sent_at);
        }
    }

    /// Counts a call; tells whether it is to be timed.
    #[inline]
    pub fn picks(&mut self) -> bool {
        // One number, which goes down: this is for every call.
        COUNTS && {
            self.left -= 1;
            self.left == 0
        }
    }

    /// Counts a call that is not timed.
    pub fn pass(&mut self) {
        self.until += 1;
    }

    /// Calls that this deliverer has made.
    pub fn made(&self) -> u64 {
        self.until - self.left
    }

    /// Begins to time a call that was picked.
    #[cold]
    pub fn begin(&mut self, subscription: &Subscription, envelope: &Envelope) -> Timed {
        let now = clock::now();
        // What is replayed was sent long ago, before the subscription was there.
        if envelope.sent_at != 0 && envelope.sequence > subscription.serial {
            self.timing.record_latency(envelope.sent_at, now);
        }
        let gap = self.gap(now);
        self.go_on_for(gap);
        Timed { began: now }
    }

    /// Ends the timing of a call that has returned.
    #[cold]
    pub fn end(&mut self, py: Python<'_>, timed: Timed, handler: &Handler) {
        if timed.took() >= SUSPICIOUS {
            self.be_curious();
        }
        timed.end(py, self.timing, handler);
    }

    /// A call was slow, and nobody knows which: times the next ones.
    #[cold]
    pub fn suspect(&mut self, took: Duration) {
        if took >= SUSPICIOUS && self.curious == 0 {
            self.be_curious();
        }
    }

    fn gap(&mut self, now: u64) -> u64 {
        if self.curious > 0 {
            self.curious -= 1;
            return 1;
        }
        // Not always the same, or it could always hit the same handlers of many.
        GAP / 2 + now % GAP
    }

    fn be_curious(&mut self) {
        self.go_on_for(1);
        self.curious = CURIOSITY;
    }

    /// So many calls from now on, one is timed.
    fn go_on_for(&mut self, calls: u64) {
        self.until = self.made() + calls;
        self.left = calls;
    }
}

impl Timed {
    fn took(self) -> Duration {
        Duration::from_nanos(clock::now().saturating_sub(self.began))
    }

    /// Ends the timing of a call, perhaps long after it suspended.
    pub fn end(self, py: Python<'_>, timing: &Timing, handler: &Handler) {
        let took = self.took();
        if took >= SLOW {
            timing.record_slow(report::describe(&handler.callable(py)), took);
        }
    }
}

impl Drop for Sampler<'_> {
    fn drop(&mut self) {
        let state = self.curious << 32 | self.left & u64::from(u32::MAX);
        self.share.sample.store(state, Ordering::Relaxed);
    }
}
