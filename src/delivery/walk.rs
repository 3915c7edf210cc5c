//! A drain task's walk over the handlers that get one message.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::call::{self, Outcome};
use super::context::Contexts;
use super::duty::Duty;
use super::handler::is_quit;
use super::serving::Serving;
use super::watch::Watch;
use super::{Fanout, waits};
use crate::report;

/// How long a drain task keeps the loop before other callbacks get their turn.
const SLICE: Duration = Duration::from_millis(1);
/// Deliveries between two looks at the clock, at the most: a look costs as much as a short
/// delivery, and handlers that turn out to be slow are noticed within this many.
const STRIDE: u32 = 16;

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
    slice: Slice,
    delivered: u64,
}

impl<'a, 'py> Walk<'a, 'py> {
    /// A part of the duty's turn.
    pub fn new(py: Python<'py>, duty: &'a Duty, watch: Watch<'a, 'py>) -> Self {
        Self {
            duty,
            watch,
            contexts: Contexts::new(py),
            slice: duty.slice.lock().unwrap_or_else(Slice::new),
            delivered: 0,
        }
    }

    /// Calls the handlers that get one message; `None` when all were called.
    pub fn run(&mut self, py: Python<'py>, fanout: &mut Fanout) -> Option<Stop> {
        let stop = self.deliver_all(py, fanout);
        self.contexts.leave();
        stop
    }

    fn deliver_all(&mut self, py: Python<'py>, fanout: &mut Fanout) -> Option<Stop> {
        while fanout.seek() {
            let stop = self.deliver(py, fanout);
            fanout.advance();
            if stop.is_some() {
                self.slice.count();
                return stop;
            }
            if self.slice.is_over() {
                return Some(Stop::Turn);
            }
        }
        None
    }

    #[inline]
    fn deliver(&mut self, py: Python<'py>, fanout: &Fanout) -> Option<Stop> {
        let (subscription, envelope) = (fanout.current()?, &fanout.envelope);
        if subscription.is_busy() {
            self.contexts.leave();
            if waits(self.duty.hub.bind(py), subscription, envelope) {
                return None;
            }
        }
        self.delivered += 1;
        match call::start(&mut self.contexts, py, subscription, envelope) {
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
                self.contexts.leave();
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
    stride: u32,
    unchecked: u32,
}

impl Slice {
    /// A turn that begins now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            calls: 0,
            stride: 1,
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
        self.count();
        self.unchecked == 0 && self.look()
    }

    /// Counts a delivery.
    #[inline]
    fn count(&mut self) {
        self.calls += 1;
        self.unchecked = self.unchecked.saturating_sub(1);
    }

    /// For how many more deliveries there is time, if they are like those before.
    pub fn room(&self) -> usize {
        room(self.started.elapsed(), self.calls)
    }

    fn look(&mut self) -> bool {
        let elapsed = self.started.elapsed();
        let stride = (self.stride * 2).min(STRIDE);
        let left = u32::try_from(room(elapsed, self.calls)).unwrap_or(stride);
        self.stride = left.clamp(1, stride);
        self.unchecked = self.stride;
        elapsed >= SLICE
    }
}

fn room(elapsed: Duration, calls: u32) -> usize {
    let each = (elapsed / calls.max(1)).as_nanos().max(1);
    let left = SLICE.saturating_sub(elapsed).as_nanos() / each;
    usize::try_from(left).unwrap_or(usize::MAX)
}
