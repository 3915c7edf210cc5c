//! A drain task's walk over the handlers that get one message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::prelude::*;
use triomphe::Arc;

use super::call::{self, Outcome};
use super::context::Contexts;
use super::duty::Duty;
use super::handler::is_quit;
use super::pace::Pace;
use super::serving::Serving;
use super::watch::Watch;
use super::{Envelope, Fanout, Subscription, waits};
use crate::report;
use crate::timing::{Sampler, Timed};

/// How long a drain task keeps the loop before other callbacks get their turn.
pub const SLICE: Duration = Duration::from_millis(1);
/// Deliveries between two looks at the clock, at the most.
pub const STRIDE: u32 = 8;

/// Why a walk stops before the log is empty.
pub enum Stop {
    /// Other callbacks of the loop get their turn.
    Turn,
    /// A handler suspended: the task is its own now.
    Suspended(Box<Serving>, Py<PyAny>),
    /// A handler is interested in the task: it is its own now.
    Owned,
    /// An exception meant for the process.
    Quit(PyErr),
}

/// A turn of a drain task.
pub struct Walk<'a, 'py> {
    duty: &'a Duty,
    watch: Watch<'a, 'py>,
    contexts: Contexts<'py>,
    pace: Pace,
    sampler: Sampler<'a>,
}

impl<'a, 'py> Walk<'a, 'py> {
    /// A part of the duty's turn.
    pub fn new(py: Python<'py>, duty: &'a Duty, watch: Watch<'a, 'py>) -> Self {
        Self {
            duty,
            watch,
            contexts: Contexts::new(py),
            pace: duty.pace.lock().unwrap_or_else(|| Pace::new(STRIDE)),
            sampler: Sampler::new(duty.hub.get()),
        }
    }

    /// Calls the handlers that get one message; `None` when all were called.
    pub fn run(&mut self, py: Python<'py>, fanout: &Fanout) -> Option<Stop> {
        let stop = self.deliver_all(py, fanout);
        self.contexts.leave();
        stop
    }

    fn deliver_all(&mut self, py: Python<'py>, fanout: &Fanout) -> Option<Stop> {
        let envelope = &fanout.envelope;
        self.sampler.take_up(fanout);
        // A handler can fork: the rest of the walk is then the parent's.
        while self.duty.process.is_this()
            && let Some(subscription) = fanout.take_next()
        {
            self.duty
                .lane
                .passed
                .store(subscription.serial, Ordering::Relaxed);
            let stop = self.deliver(py, subscription, envelope);
            if stop.is_some() {
                self.pace.count();
                return stop;
            }
            if self.pace.count() {
                self.sampler.suspect(self.pace.lap());
                if self.pace.elapsed() >= SLICE {
                    return Some(Stop::Turn);
                }
            }
        }
        None
    }

    #[inline]
    fn deliver(
        &mut self,
        py: Python<'py>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
    ) -> Option<Stop> {
        if subscription.is_busy() {
            self.contexts.leave();
            if waits(self.duty.hub.bind(py), subscription, envelope) {
                return None;
            }
        }
        if self.sampler.picks() {
            return self.deliver_timed(py, subscription, envelope);
        }
        let outcome = call::start(&mut self.contexts, py, subscription, envelope);
        self.settle(py, subscription, envelope, outcome, None)
    }

    #[cold]
    fn deliver_timed(
        &mut self,
        py: Python<'py>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
    ) -> Option<Stop> {
        let timed = self.sampler.begin(subscription, envelope);
        let outcome = call::start(&mut self.contexts, py, subscription, envelope);
        if !matches!(outcome, Outcome::Suspended(_)) {
            self.contexts.leave();
            self.sampler.end(py, timed, &subscription.handler);
        }
        self.settle(py, subscription, envelope, outcome, Some(timed))
    }

    /// Does what a call's outcome leaves to do.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it is called from two places, one of them hot"
    )]
    fn settle(
        &mut self,
        py: Python<'py>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
        outcome: Outcome,
        timed: Option<Timed>,
    ) -> Option<Stop> {
        match outcome {
            Outcome::Done => {}
            Outcome::Suspended(suspended) => {
                let (hub, lane) = (self.duty.hub.clone_ref(py), self.duty.lane.clone());
                let call = (subscription, envelope);
                let (mut serving, yielded) = Serving::suspended(hub, lane, call, suspended);
                serving.timed = timed;
                serving.enter(py);
                return Some(Stop::Suspended(Box::new(serving), yielded));
            }
            Outcome::Failed(error) if is_quit(py, &error) => return Some(Stop::Quit(error)),
            Outcome::Failed(error) => {
                self.contexts.leave();
                report::failure(self.duty.hub.bind(py), subscription, envelope, error);
            }
        }
        self.watch.is_owned().then_some(Stop::Owned)
    }
}

impl Drop for Walk<'_, '_> {
    fn drop(&mut self) {
        *self.duty.pace.lock() = Some(self.pace);
        let counters = &self.duty.hub.get().counters;
        counters.add_delivered(self.sampler.made());
    }
}
