//! One handler that has a task of its own: its message, and those that wait behind it.

use std::sync::Arc;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;

use super::call::{self, Outcome, Suspended};
use super::drain::{self, Phase};
use super::event_loop::LoopLane;
use super::handler::{Kind, is_quit};
use super::{Envelope, Subscription};
use crate::hub::{PubSubHub, SYNC};
use crate::report;

/// A handler and the message that it is busy with.
pub struct Serving {
    /// The hub.
    pub hub: Py<PubSubHub>,
    lane: Arc<LoopLane>,
    /// The handler's subscription.
    pub subscription: Arc<Subscription>,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// What it awaits, and in which context; `None` before the handler is called.
    awaited: Option<(Py<PyAny>, Py<PyAny>)>,
    /// The handler was called with the message.
    begun: bool,
    /// The call was entered as under way, and has to be entered as over.
    entered: bool,
}

impl Serving {
    /// A handler that has not been called yet.
    pub fn new(
        hub: Py<PubSubHub>,
        lane: Arc<LoopLane>,
        subscription: &Arc<Subscription>,
        envelope: &Arc<Envelope>,
    ) -> Self {
        let (subscription, envelope) = (subscription.clone(), envelope.clone());
        Self {
            hub,
            lane,
            subscription,
            envelope,
            awaited: None,
            begun: false,
            entered: false,
        }
    }

    /// Keeps what the handler awaits; returns what it yielded.
    pub fn suspend(&mut self, suspended: Suspended) -> Py<PyAny> {
        self.begun = true;
        self.awaited = Some((suspended.awaitable, suspended.context));
        suspended.yielded
    }

    /// Enters the call as under way.
    pub fn enter(&mut self, py: Python<'_>) {
        self.entered = true;
        self.hub
            .get()
            .change(py, |router, _| router.enter(&self.subscription));
    }

    /// Whether the handler was called and awaits something.
    pub fn is_suspended(&self) -> bool {
        self.awaited.is_some()
    }

    /// Calls the handler, or drives it on.
    pub fn step(&mut self, py: Python<'_>, thrown: Option<PyErr>) -> Outcome {
        if let Some((awaitable, context)) = self.awaited.take() {
            return call::resume(py, &awaitable, &context, thrown);
        }
        self.begun = true;
        if self.subscription.is_cancelled() {
            return Outcome::Done;
        }
        self.hub.get().counters.add_delivered(1);
        call::start(py, &self.subscription, &self.envelope)
    }

    /// Takes the message that waits for the handler, if any; else the handler is free.
    pub fn advance(&mut self, py: Python<'_>) -> PyResult<bool> {
        if !self.entered {
            return Ok(false);
        }
        let next = self.next_envelope(py);
        if next.is_err() {
            self.entered = false;
        }
        match next? {
            Some(envelope) => {
                self.envelope = envelope;
                self.begun = false;
            }
            None => self.entered = false,
        }
        Ok(self.entered)
    }

    fn next_envelope(&self, py: Python<'_>) -> PyResult<Option<Arc<Envelope>>> {
        let hub = self.hub.bind(py);
        if self.subscription.handler.kind == Kind::Sync {
            return self.give_back(py).map(|()| None);
        }
        let (next, burst) = hub
            .get()
            .change(py, |router, _| router.unpark(&self.subscription));
        report::recovered(hub, &self.subscription, burst);
        Ok(next)
    }

    /// Gives a sync handler's waiting messages back to the workers, or delivers them here. Fails
    /// only with what is meant for the process.
    fn give_back(&self, py: Python<'_>) -> PyResult<()> {
        let hub = self.hub.bind(py);
        let wake = hub
            .get()
            .change(py, |router, _| match hub.get().executor() {
                Some(executor) => {
                    router.requeue(SYNC, &self.subscription, |work| executor.ready(work))
                }
                None => router.resume(SYNC, self.subscription.clone()),
            });
        match wake.map_or(Ok(()), |deliverer| deliverer.wake(hub)) {
            Err(error) if !is_quit(py, &error) => {
                error.write_unraisable(py, Some(hub));
                Ok(())
            }
            result => result,
        }
    }

    /// Goes on with the messages that wait, if any, in a task of its own.
    pub fn pass_on(mut self, py: Python<'_>) -> PyResult<()> {
        if self.advance(py)? {
            self.awaited = None;
            let lane = self.lane.clone();
            drain::respawn(py, &lane, Phase::Serving(self));
        }
        Ok(())
    }

    /// Closes what the handler awaits, as the end of its task does.
    pub fn close(mut self, py: Python<'_>) -> PyResult<()> {
        let awaited = self.awaited.take();
        let passed_on = self.pass_on(py);
        let closed = awaited.map_or(Ok(()), |(awaitable, _)| {
            awaitable
                .bind(py)
                .call_method0(intern!(py, "close"))
                .map(drop)
        });
        closed.and(passed_on)
    }

    /// Shows the garbage collector what it holds. A subscription that is still in the hub's
    /// tables, and a message that others wait for too, are not its own to show.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)?;
        if let Some((awaitable, context)) = &self.awaited {
            visit.call(awaitable)?;
            visit.call(context)?;
        }
        if Arc::strong_count(&self.subscription) == 1 {
            self.subscription.handler.traverse(visit)?;
        }
        if Arc::strong_count(&self.envelope) == 1 {
            self.envelope.message.traverse(visit)?;
        }
        Ok(())
    }

    /// Lets the waiting messages go: the loop that they wait for is closed.
    fn give_up(&self, py: Python<'_>) {
        let (hub, mut count) = (self.hub.bind(py), usize::from(!self.begun));
        let unpark = || {
            hub.get()
                .change(py, |router, _| router.unpark(&self.subscription))
                .0
        };
        while unpark().is_some() {
            count += 1;
        }
        hub.get().counters.add_dropped(count);
        report::undeliverable(hub, count, "the event loop is closed");
    }

    fn abandoned(&mut self, py: Python<'_>) {
        if self.lane.check_open(py).is_err() {
            self.give_up(py);
            return;
        }
        let unbegun = (!self.begun).then(|| self.envelope.clone());
        let next = unbegun.map_or_else(|| self.next_envelope(py), |envelope| Ok(Some(envelope)));
        let envelope = match next {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return,
            Err(error) => return error.write_unraisable(py, None),
        };
        let (hub, lane) = (self.hub.clone_ref(py), self.lane.clone());
        let mut next = Self::new(hub, lane, &self.subscription, &envelope);
        next.entered = true;
        if let Err(error) = self.lane.start(py, Phase::Serving(next)) {
            error.write_unraisable(py, None);
        }
    }
}

impl Drop for Serving {
    /// A task was destroyed while its handler waited: the handler's other messages go on.
    fn drop(&mut self) {
        if std::mem::take(&mut self.entered) {
            Python::try_attach(|py| self.abandoned(py));
        }
    }
}
