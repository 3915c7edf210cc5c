//! The duty to empty an event loop's log.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pyo3::prelude::*;
use triomphe::Arc;

use super::drain::Phase;
use super::event_loop::LoopLane;
use super::pace::Pace;
use super::walk::{SLICE, STRIDE};
use super::{Fanout, Router, Trash};
use crate::fork::{Process, Shared};
use crate::hub::PubSubHub;
use crate::python;
use crate::report;

/// Drain tasks to make at once, at the most, when handler after handler suspends.
const SPARES: usize = 64;

/// A duty, from the wake-up of a lane until a drain task finds its log empty. Drain tasks share
/// it. If the last of them goes before that, another one takes what is left, or it is reported:
/// because the loop was closed.
pub struct Duty {
    /// The hub, which stays alive as long as it has something to deliver.
    pub hub: Py<PubSubHub>,
    /// The loop.
    pub lane: Shared<LoopLane>,
    /// The message that the drain tasks are in the middle of.
    pub current: Mutex<Option<Fanout>>,
    /// The drain tasks' turn of the loop, which they share.
    pub pace: Mutex<Option<Pace>>,
    /// A drain task is inside a handler. Another one only gets to run meanwhile where a handler
    /// runs the loop itself, as `nest_asyncio` allows.
    pub walking: AtomicBool,
    /// One drain task ended the turn: the others wait for the next one too.
    pub resting: AtomicBool,
    /// The process whose duty it is: the copies that its children have are nobody's.
    pub process: Process,
    done: AtomicBool,
    spares: AtomicUsize,
    /// It was taken over from one that was lost before it began.
    was_passed_on: bool,
}

impl Duty {
    /// The duty of a lane that was just woken, and may be in the middle of a message.
    pub fn new(hub: Py<PubSubHub>, lane: Shared<LoopLane>, current: Option<Fanout>) -> Self {
        Self {
            hub,
            lane,
            current: Mutex::new(current),
            pace: Mutex::new(None),
            walking: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            process: Process::this(),
            done: AtomicBool::new(false),
            spares: AtomicUsize::new(1),
            was_passed_on: false,
        }
    }

    /// Whether the log was found empty, or is another process's.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) || !self.process.is_this()
    }

    /// Begins a turn.
    pub fn begin_turn(&self) {
        *self.pace.lock() = Some(Pace::new(STRIDE));
        self.resting.store(false, Ordering::Release);
    }

    /// How many tasks to make for `left` deliveries: twice as many each time, because where one
    /// handler suspended, the next ones probably do too, but no more than this turn has time for.
    pub fn spares_for(&self, left: usize) -> usize {
        let spares = self.spares.load(Ordering::Relaxed);
        self.spares
            .store((spares * 2).min(SPARES), Ordering::Relaxed);
        let room = self.pace.lock().map_or(SPARES, |pace| pace.room(SLICE));
        spares.min(left).min(room).max(1)
    }

    /// The message to go on with: the one that is under way, or the next of the log. Without one,
    /// the duty ends.
    pub fn take_current(&self, py: Python<'_>) -> Option<Fanout> {
        let current = self.current.lock().take();
        if current.as_ref().is_some_and(Fanout::has_next) {
            return current;
        }
        drop(current);
        self.next_fanout(py)
    }

    /// The next message of the log, if there is one; else the duty ends.
    pub fn next_fanout(&self, py: Python<'_>) -> Option<Fanout> {
        let hub = self.hub.bind(py);
        let change = |router: &mut Router, trash: &mut Trash| {
            let fanout = router.next_fanout(self.lane.key, trash);
            self.done.store(fanout.is_none(), Ordering::Release);
            let passed = fanout.as_ref().map_or(0, Fanout::passed);
            self.lane.passed.store(passed, Ordering::Relaxed);
            fanout
        };
        PubSubHub::change_and_report(hub, change)
    }
}

impl Duty {
    /// Gives up what is left: the loop is closed.
    fn give_up(&self, py: Python<'_>, current: Option<Fanout>) {
        let hub = self.hub.bind(py);
        let left = current.as_ref().map_or(0, Fanout::give_up);
        hub.get().counters.add_dropped(left);
        let key = self.lane.key;
        let abandon = |router: &mut Router, trash: &mut Trash| router.abandon(key, trash);
        let count = hub.get().change(py, abandon) + usize::from(left > 0);
        self.lane.tell_end(hub, count);
    }

    /// Hands the duty on: the loop lost the callback or the task that was to do it, as it does
    /// when the handler of a signal raises in its own code.
    fn pass_on(&self, py: Python<'_>, current: Option<Fanout>) {
        if self.was_passed_on && self.pace.lock().is_none() {
            // The loop does not take it: what is left is for whoever sends next.
            let interrupt =
                |router: &mut Router, _: &mut Trash| router.interrupt(self.lane.key, current);
            drop(self.hub.get().change(py, interrupt));
            return;
        }
        let mut next = Self::new(self.hub.clone_ref(py), self.lane.clone(), current);
        next.was_passed_on = true;
        let started = self.lane.start(py, Phase::Dispatching(Arc::new(next)));
        report::contained(py, started, Some(self.hub.bind(py)));
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.is_done() {
            return;
        }
        let current = self.current.get_mut().take();
        python::in_drop(|py| {
            if self.lane.is_closed(py) {
                self.give_up(py, current);
            } else {
                self.pass_on(py, current);
            }
        });
    }
}
