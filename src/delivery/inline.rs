//! Delivery by the sender: sync handlers of a hub without an executor.
//!
//! The thread that finds the log idle drains it. What is sent meanwhile, by a handler or by
//! another thread, is appended and delivered by the thread that drains: one order for all, no
//! recursion, no waiting.

use pyo3::prelude::*;
use triomphe::Arc;

use super::context::Contexts;
use super::delivering::Delivering;
use super::handler::is_quit;
use super::{Envelope, Fanout, Subscription, call, finish, waits};
use crate::fork::Process;
use crate::hub::{PubSubHub, SYNC};
use crate::report;

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
    let mut delivered = 0;
    let mut result = Ok(());
    while result.is_ok()
        && process.is_this()
        && let Some(work) = next(hub)
    {
        result = match work {
            Work::Resumed(subscription) => {
                let result = resume(hub, &process, &subscription, &mut delivered);
                if result.is_err() && process.is_this() {
                    own.change(py, |router, _| router.interrupt_resumed(SYNC, subscription));
                }
                result
            }
            Work::Message(mut fanout) => {
                report::topic_recovered(hub, &fanout.envelope, fanout.burst.take());
                let result = deliver(hub, &process, &fanout, &mut delivered);
                if result.is_err() && process.is_this() {
                    own.change(py, |router, _| router.interrupt(SYNC, Some(fanout)));
                }
                result
            }
        };
    }
    own.counters.add_delivered(delivered);
    if let Some(lane) = own.event_loop() {
        lane.nudge_from_thread(py);
    }
    result
}

fn next(hub: &Bound<'_, PubSubHub>) -> Option<Work> {
    hub.get().change(hub.py(), |router, trash| {
        let resumed = router.next_resumed(SYNC).map(Work::Resumed);
        resumed.or_else(|| router.next_fanout(SYNC, trash).map(Work::Message))
    })
}

/// Goes on with the messages that waited for a handler's awaitable.
fn resume(
    hub: &Bound<'_, PubSubHub>,
    process: &Process,
    subscription: &Arc<Subscription>,
    delivered: &mut u64,
) -> PyResult<()> {
    let mut last: Option<Arc<Envelope>> = None;
    while process.is_this() {
        let unpark = |router: &mut super::Router, _: &mut super::Trash| router.unpark(subscription);
        let (next, burst) = hub.get().change(hub.py(), unpark);
        report::recovered(hub, subscription, last.as_deref(), burst);
        let Some(envelope) = next else { return Ok(()) };
        last = Some(envelope.clone());
        *delivered += 1;
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
    delivered: &mut u64,
) -> PyResult<()> {
    let mut contexts = Contexts::new(hub.py());
    while process.is_this()
        && let Some(subscription) = fanout.take_next()
    {
        if subscription.is_busy() {
            contexts.leave();
            if waits(hub, subscription, &fanout.envelope) {
                continue;
            }
        }
        *delivered += 1;
        make(hub, &mut contexts, subscription, &fanout.envelope)?;
    }
    Ok(())
}

/// Calls a handler; tells whether its awaitable goes on elsewhere.
#[inline]
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
