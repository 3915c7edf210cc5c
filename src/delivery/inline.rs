//! Delivery by the sender: sync handlers of a hub without an executor.
//!
//! The thread that finds the log idle drains it. What is sent meanwhile, by a handler or by
//! another thread, is appended and delivered by the thread that drains: one order for all, no
//! recursion, no waiting.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use triomphe::Arc;

use super::context::Contexts;
use super::delivering::Delivering;
use super::handler::is_quit;
use super::{Envelope, Fanout, Router, Subscription, Trash, call, finish, waits};
use crate::fork::Process;
use crate::hub::{PubSubHub, SYNC};
use crate::report;
use crate::timing::Sampler;

/// What the sender finds to do.
enum Work {
    /// A message and those who get it.
    Message(Fanout),
    /// A handler whose awaitable is done.
    Resumed(Arc<Subscription>),
}

/// Delivers until the log is empty. Fails only with what is meant for the process
/// (`KeyboardInterrupt`, `SystemExit`); what is left is then delivered with the next send.
pub fn drain(hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let (py, own) = (hub.py(), hub.get());
    let _delivering = Delivering::begin(own);
    let process = Process::this();
    let mut sampler = Sampler::new(own);
    let mut result = Ok(());
    while result.is_ok()
        && process.is_this()
        && let Some(work) = next(hub)
    {
        result = match work {
            Work::Resumed(subscription) => {
                let result = resume(hub, &process, &subscription, &mut sampler);
                if result.is_err() && process.is_this() {
                    drop(own.change(py, |router, _| router.interrupt_resumed(SYNC, subscription)));
                }
                result
            }
            Work::Message(fanout) => {
                let result = deliver(hub, &process, &fanout, &mut sampler);
                if result.is_err() && process.is_this() {
                    drop(own.change(py, |router, _| router.interrupt(SYNC, Some(fanout))));
                }
                result
            }
        };
    }
    own.counters.add_delivered(sampler.made());
    if let Some(lane) = own.event_loop() {
        lane.nudge_from_thread(py);
    }
    result
}

fn next(hub: &Bound<'_, PubSubHub>) -> Option<Work> {
    let own = hub.get();
    PubSubHub::change_and_report(hub, |router, trash| {
        if let Some(subscription) = router.next_resumed(SYNC) {
            return Some(Work::Resumed(subscription));
        }
        let fanout = router.next_fanout(SYNC, trash)?;
        own.passed.store(fanout.passed(), Ordering::Relaxed);
        Some(Work::Message(fanout))
    })
}

/// Goes on with the messages that waited for a handler's awaitable.
fn resume(
    hub: &Bound<'_, PubSubHub>,
    process: &Process,
    subscription: &Arc<Subscription>,
    sampler: &mut Sampler<'_>,
) -> PyResult<()> {
    let mut last: Option<Arc<Envelope>> = None;
    while process.is_this() {
        let unpark = |router: &mut Router, trash: &mut Trash| {
            router.unpark(subscription, last.as_ref(), trash)
        };
        let Some(envelope) = PubSubHub::change_and_report(hub, unpark) else {
            return Ok(());
        };
        last = Some(envelope.clone());
        sampler.pass();
        if make(hub, &mut Contexts::new(hub.py()), subscription, &envelope)? {
            hub.get()
                .change(hub.py(), |router, _| router.leave(subscription));
            return Ok(());
        }
    }
    Ok(())
}

/// Calls those who get a message. A handler can fork: the rest of the walk is then the parent's,
/// not that of the child too.
fn deliver(
    hub: &Bound<'_, PubSubHub>,
    process: &Process,
    fanout: &Fanout,
    sampler: &mut Sampler<'_>,
) -> PyResult<()> {
    let mut contexts = Contexts::new(hub.py());
    sampler.take_up(fanout);
    while process.is_this()
        && let Some(subscription) = fanout.take_next()
    {
        if subscription.is_busy() {
            contexts.leave();
            if waits(hub, subscription, &fanout.envelope) {
                continue;
            }
        }
        hub.get()
            .passed
            .store(subscription.serial, Ordering::Relaxed);
        if sampler.picks() {
            make_timed(hub, &mut contexts, sampler, subscription, &fanout.envelope)?;
        } else {
            make(hub, &mut contexts, subscription, &fanout.envelope)?;
        }
    }
    Ok(())
}

#[cold]
fn make_timed<'py>(
    hub: &Bound<'py, PubSubHub>,
    contexts: &mut Contexts<'py>,
    sampler: &mut Sampler<'_>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
) -> PyResult<()> {
    let timed = sampler.begin(subscription, envelope);
    make(hub, contexts, subscription, envelope)?;
    contexts.leave();
    sampler.end(hub.py(), timed, &subscription.handler);
    Ok(())
}

/// Calls a handler; tells whether its awaitable goes on elsewhere.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "it is called from two places, one of them hot"
)]
fn make<'py>(
    hub: &Bound<'py, PubSubHub>,
    contexts: &mut Contexts<'py>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
) -> PyResult<bool> {
    let result = call::call(contexts, hub.py(), subscription, envelope);
    if let Ok(value) = &result
        && value.as_ref().is_none_or(PyAnyMethods::is_none)
    {
        return Ok(false);
    }
    let result = result.map_err(|raised| raised.fetch(hub.py()));
    contexts.leave();
    settle(hub, subscription, envelope, result)
}

/// What is left to do where a handler did not just return.
#[cold]
fn settle<'py>(
    hub: &Bound<'py, PubSubHub>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
    result: PyResult<Option<Bound<'py, PyAny>>>,
) -> PyResult<bool> {
    match result {
        Ok(None) => Ok(false),
        Ok(Some(value)) => finish::on_loop(hub, subscription, envelope, &value),
        Err(error) if is_quit(hub.py(), &error) => Err(error),
        Err(error) => {
            report::failure(hub, subscription, envelope, error);
            Ok(false)
        }
    }
}
