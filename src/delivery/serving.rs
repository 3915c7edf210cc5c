//! One handler that has a task of its own: its message, and those that wait behind it.

use std::sync::atomic::Ordering;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use triomphe::Arc;

use super::call::{self, Outcome, Suspended};
use super::context::Contexts;
use super::drain::{self, Phase};
use super::event_loop::LoopLane;
use super::handler::{Kind, is_quit};
use super::{Envelope, Router, Subscription, Trash};
use crate::fork::{Process, Shared};
use crate::hub::{PubSubHub, SYNC};
use crate::once::intern;
use crate::python;
use crate::report;
use crate::timing::Timed;

/// How far a handler is with its message.
enum Stage {
    /// It takes the next message that waits, when its task begins.
    Next,
    /// It was called; what it returned is to be awaited, in a context.
    Returned(Py<PyAny>, Py<PyAny>),
    /// It awaits something, in a context.
    Suspended(Py<PyAny>, Py<PyAny>),
    /// It is being driven.
    Running,
}

/// A handler and the message that it is busy with.
pub struct Serving {
    /// The hub.
    pub hub: Py<PubSubHub>,
    lane: Shared<LoopLane>,
    /// The handler's subscription.
    pub subscription: Arc<Subscription>,
    kind: Kind,
    /// The message.
    pub envelope: Option<Arc<Envelope>>,
    stage: Stage,
    /// The process whose call it is. In the copies that its children have, nothing waits for its
    /// end.
    process: Process,
    /// The call was entered as under way, and has to be entered as over.
    entered: bool,
    /// The call is timed.
    pub timed: Option<Timed>,
}

impl Serving {
    /// An async handler that suspended in its call; also gives what it yielded.
    pub fn suspended(
        hub: Py<PubSubHub>,
        lane: Shared<LoopLane>,
        call: (&Arc<Subscription>, &Arc<Envelope>),
        suspended: Suspended,
    ) -> (Self, Py<PyAny>) {
        let stage = Stage::Suspended(suspended.awaitable, suspended.context);
        let serving = Self::at(stage, Kind::Async, hub, lane, call);
        (serving, suspended.yielded)
    }

    /// A sync handler that returned something to await, in a context.
    pub fn returned(
        hub: Py<PubSubHub>,
        lane: Shared<LoopLane>,
        call: (&Arc<Subscription>, &Arc<Envelope>),
        (value, context): (Py<PyAny>, Py<PyAny>),
    ) -> Self {
        Self::at(Stage::Returned(value, context), Kind::Sync, hub, lane, call)
    }

    fn at(
        stage: Stage,
        kind: Kind,
        hub: Py<PubSubHub>,
        lane: Shared<LoopLane>,
        (subscription, envelope): (&Arc<Subscription>, &Arc<Envelope>),
    ) -> Self {
        Self {
            hub,
            lane,
            subscription: subscription.clone(),
            kind,
            envelope: Some(envelope.clone()),
            stage,
            process: Process::this(),
            entered: false,
            timed: None,
        }
    }

    /// Keeps what the handler awaits; returns what it yielded.
    pub fn suspend(&mut self, suspended: Suspended) -> Py<PyAny> {
        self.stage = Stage::Suspended(suspended.awaitable, suspended.context);
        suspended.yielded
    }

    /// Enters the call as under way.
    pub fn enter(&mut self, py: Python<'_>) {
        self.entered = true;
        let hub = self.hub.get();
        hub.change(py, |router, _| router.enter(&self.subscription));
        if !self.lane.has_suspended.swap(true, Ordering::Relaxed) {
            hub.add_loop(py, &self.lane);
        }
    }

    /// Takes the entry of a call of `hub` that nobody goes on with; the caller has to enter that.
    pub fn forsake(&mut self, hub: &Bound<'_, PubSubHub>) -> Option<Arc<Subscription>> {
        let is_its = self.hub.is(hub) && self.process.is_this();
        (is_its && std::mem::take(&mut self.entered)).then(|| self.subscription.clone())
    }

    /// Whether the handler was called.
    pub fn is_begun(&self) -> bool {
        !matches!(self.stage, Stage::Next)
    }

    /// Calls the handler with the message that waits, or drives it on.
    pub fn step(&mut self, py: Python<'_>, thrown: Option<PyErr>) -> Outcome {
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Next => self.call_next(py).unwrap_or_else(Outcome::Failed),
            Stage::Running => Outcome::Done,
            Stage::Suspended(awaitable, context) => call::resume(py, &awaitable, &context, thrown),
            Stage::Returned(value, context) => match thrown {
                None => call::begin(py, &value, &context),
                Some(error) => {
                    // As with a task that is cancelled before it begins.
                    let _ = value.bind(py).call_method0(intern!(py, "close"));
                    Outcome::Failed(error)
                }
            },
        }
    }

    fn call_next(&mut self, py: Python<'_>) -> PyResult<Outcome> {
        if !self.advance(py)? {
            return Ok(Outcome::Done);
        }
        Ok(self.call_again(py))
    }

    /// Calls the handler with the message that [`Self::advance`] took.
    pub fn call_again(&self, py: Python<'_>) -> Outcome {
        let Some(envelope) = &self.envelope else {
            return Outcome::Done;
        };
        self.hub.get().counters.add_delivered(1);
        call::start(&mut Contexts::new(py), py, &self.subscription, envelope)
    }

    /// Reports what the handler raised.
    pub fn report(&self, py: Python<'_>, error: PyErr) {
        if let Some(envelope) = &self.envelope {
            report::failure(self.hub.bind(py), &self.subscription, envelope, error);
        }
    }

    /// Takes the message that waits for the handler, if any; else the call is over.
    pub fn advance(&mut self, py: Python<'_>) -> PyResult<bool> {
        self.envelope = self.after_call(py, Router::unpark)?;
        self.entered = self.envelope.is_some();
        Ok(self.entered)
    }

    /// Ends the call, if it was entered, as `next` does with what waits for the handler. What
    /// waits for a sync handler is not for this task.
    fn after_call<T: Default>(
        &mut self,
        py: Python<'_>,
        next: impl FnOnce(&mut Router, &Arc<Subscription>, Option<&Arc<Envelope>>, &mut Trash) -> T,
    ) -> PyResult<T> {
        if let Some(timed) = self.timed.take() {
            let timing = &self.hub.get().timing;
            timed.end(py, timing, &self.subscription.handler);
        }
        if !std::mem::take(&mut self.entered) || !self.process.is_this() {
            return Ok(T::default());
        }
        if self.kind == Kind::Sync {
            return self.give_back(py).map(|()| T::default());
        }
        let next = PubSubHub::change_and_report(self.hub.bind(py), |router, trash| {
            next(router, &self.subscription, self.envelope.as_ref(), trash)
        });
        Ok(next)
    }

    /// Gives a sync handler's waiting messages back to the workers, or delivers them here. Fails
    /// only with what is meant for the process.
    fn give_back(&self, py: Python<'_>) -> PyResult<()> {
        let hub = self.hub.bind(py);
        let wake = hub
            .get()
            .change(py, |router, trash| match hub.get().executor() {
                Some(executor) => {
                    let ready = |work| executor.ready(work);
                    router.requeue(SYNC, &self.subscription, ready, trash)
                }
                None => router.resume(SYNC, self.subscription.clone()),
            });
        match wake.map_or(Ok(()), |deliverer| deliverer.wake(hub)) {
            // An executor that takes no more work: what is lost by that has been reported.
            Err(error) if !is_quit(py, &error) => Ok(()),
            result => result,
        }
    }

    /// Goes on with the messages that wait, if any, in a task of its own. The task takes the first
    /// one when it begins: until then, the message keeps its place before those that come.
    pub fn pass_on(mut self, py: Python<'_>) -> PyResult<()> {
        if self.has_mail(py)? {
            self.stage = Stage::Next;
            let lane = self.lane.clone();
            drain::respawn(py, &lane, Phase::Serving(self));
        }
        Ok(())
    }

    fn has_mail(&mut self, py: Python<'_>) -> PyResult<bool> {
        self.entered = self.after_call(py, Router::has_mail)?;
        Ok(self.entered)
    }

    /// Closes what the handler awaits, as the end of its task does.
    pub fn close(mut self, py: Python<'_>) -> PyResult<()> {
        let closed = match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Returned(value, _) | Stage::Suspended(value, _) => {
                value.bind(py).call_method0(intern!(py, "close")).map(drop)
            }
            Stage::Next | Stage::Running => Ok(()),
        };
        closed.and(self.pass_on(py))
    }

    /// Shows the garbage collector what it holds. A subscription that is still in the hub's
    /// tables is shown by the hub; where several tasks share a subscription that has left, or a
    /// message, none of them shows it, and it is freed when they end.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)?;
        if let Stage::Returned(value, context) | Stage::Suspended(value, context) = &self.stage {
            visit.call(value)?;
            visit.call(context)?;
        }
        if Arc::strong_count(&self.subscription) == 1 {
            self.subscription.handler.traverse(visit)?;
        }
        match &self.envelope {
            Some(envelope) if Arc::strong_count(envelope) == 1 => envelope.message.traverse(visit),
            _ => Ok(()),
        }
    }

    /// Lets the waiting messages go: the loop that they wait for is closed.
    fn give_up(&self, py: Python<'_>) {
        let hub = self.hub.bind(py);
        let forsake =
            |router: &mut Router, trash: &mut Trash| router.forsake(&self.subscription, trash);
        let count = hub.get().change(py, forsake);
        report::undeliverable(hub, count, self.lane.why_closed());
    }

    fn abandoned(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.lane.is_closed(py) {
            self.give_up(py);
            return Ok(());
        }
        self.entered = true;
        if !self.has_mail(py)? {
            return Ok(());
        }
        let next = Self {
            hub: self.hub.clone_ref(py),
            lane: self.lane.clone(),
            subscription: self.subscription.clone(),
            kind: self.kind,
            envelope: None,
            stage: Stage::Next,
            process: Process::this(),
            entered: std::mem::take(&mut self.entered),
            timed: None,
        };
        self.lane.start(py, Phase::Serving(next))
    }
}

impl Drop for Serving {
    /// A task was destroyed while its handler waited: the handler's other messages go on.
    fn drop(&mut self) {
        if std::mem::take(&mut self.entered) && self.process.is_this() {
            python::in_drop(|py| {
                let passed_on = self.abandoned(py);
                report::contained(py, passed_on, None);
            });
        }
    }
}
