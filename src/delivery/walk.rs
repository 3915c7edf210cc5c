//! A drain task's walk over the handlers that get one message.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::call::{self, Outcome};
use super::duty::Duty;
use super::handler::is_quit;
use super::serving::Serving;
use super::watch::Watch;
use super::{Fanout, waits};
use crate::report;

/// How long a drain task keeps the loop before other callbacks get their turn.
const SLICE: Duration = Duration::from_millis(1);
/// Deliveries between two looks at the clock, at the most: a look costs as much as a short
/// delivery, and a handler that turns out to be slow is noticed within this many.
const STRIDE: u32 = 4;

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
    slice: Slice,
    delivered: u64,
}

impl<'a, 'py> Walk<'a, 'py> {
    /// A part of the duty's turn.
    pub fn new(duty: &'a Duty, watch: Watch<'a, 'py>) -> Self {
        Self {
            duty,
            watch,
            slice: duty.slice.lock().unwrap_or_else(Slice::new),
            delivered: 0,
        }
    }

    /// Calls the handlers that get one message; `None` when all were called.
    pub fn run(&mut self, py: Python<'_>, fanout: &mut Fanout) -> Option<Stop> {
        while fanout.seek() {
            let stop = self.deliver(py, fanout);
            fanout.advance();
            if stop.is_some() {
                return stop;
            }
            if self.slice.is_over() {
                return Some(Stop::Turn);
            }
        }
        None
    }

    #[inline]
    fn deliver(&mut self, py: Python<'_>, fanout: &Fanout) -> Option<Stop> {
        let (subscription, envelope) = (fanout.current()?, &fanout.envelope);
        if subscription.is_busy() && waits(self.duty.hub.bind(py), subscription, envelope) {
            return None;
        }
        self.delivered += 1;
        match call::start(py, subscription, envelope) {
            Outcome::Done => {}
            Outcome::Suspended(suspended) => {
                let (hub, lane) = (self.duty.hub.clone_ref(py), self.duty.lane.clone());
                let call = (subscription, envelope);
                let (mut serving, yielded) = Serving::suspended(hub, lane, call, suspended);
                serving.enter(py);
                return Some(Stop::Suspended(Box::new(serving), yielded));
            }
            Outcome::Failed(error) if is_quit(py, &error) => return Some(Stop::Quit(error)),
            Outcome::Failed(error) => {
                report::failure(self.duty.hub.bind(py), subscription, envelope, error);
            }
        }
        self.watch.is_owned().then_some(Stop::Owned)
    }
}

impl Drop for Walk<'_, '_> {
    fn drop(&mut self) {
        *self.duty.slice.lock() = Some(self.slice);
        self.duty.hub.get().counters.add_delivered(self.delivered);
    }
}

/// A turn's time. Looks at the clock the more often the slower the handlers are.
#[derive(Clone, Copy)]
pub struct Slice {
    started: Instant,
    calls: u32,
    unchecked: u32,
}

impl Slice {
    /// A turn that begins now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            calls: 0,
            unchecked: 1,
        }
    }

    /// Whether the turn's time is up.
    pub fn is_spent(&self) -> bool {
        self.started.elapsed() >= SLICE
    }

    /// Counts a delivery; tells whether it was the turn's last.
    #[inline]
    pub fn is_over(&mut self) -> bool {
        self.calls += 1;
        self.unchecked -= 1;
        self.unchecked == 0 && self.look()
    }

    fn look(&mut self) -> bool {
        let elapsed = self.started.elapsed();
        let each = (elapsed / self.calls).max(Duration::from_nanos(1));
        let left = SLICE.saturating_sub(elapsed).as_nanos() / each.as_nanos();
        self.unchecked = u32::try_from(left).unwrap_or(STRIDE).clamp(1, STRIDE);
        elapsed >= SLICE
    }
}
