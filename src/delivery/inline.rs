//! Delivery by the sender: sync handlers of a hub without an executor.
//!
//! The thread that finds the log idle drains it. What is sent meanwhile, by a handler or by
//! another thread, is appended and delivered by the thread that drains: one order for all, no
//! recursion, no waiting.

use std::sync::Arc;

use pyo3::prelude::*;

use super::handler::is_quit;
use super::{Fanout, Subscription, drain};
use crate::core::router::Parked;
use crate::hub::{PubSubHub, SYNC};
use crate::report;

/// Delivers until the log is empty. Fails only with what is meant for the process
/// (`KeyboardInterrupt`, `SystemExit`); what is left is then delivered with the next send.
pub fn drain(hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let (py, own) = (hub.py(), hub.get());
    let mut delivered = 0;
    let mut result = Ok(());
    while let Some(mut fanout) = own.change(py, |router, trash| router.next_fanout(SYNC, trash)) {
        report::topic_recovered(hub, &fanout);
        result = deliver(hub, &mut fanout, &mut delivered);
        if result.is_err() {
            own.change(py, |router, _| router.interrupt(SYNC, Some(fanout)));
            break;
        }
    }
    own.counters.add_delivered(delivered);
    if let Some(lane) = own.event_loop() {
        lane.nudge_from_thread(py);
    }
    result
}

fn deliver(hub: &Bound<'_, PubSubHub>, fanout: &mut Fanout, delivered: &mut u64) -> PyResult<()> {
    while fanout.seek()
        && let Some(subscription) = fanout.current()
    {
        if subscription.is_busy() && waits(hub, subscription, fanout) {
            fanout.advance();
            continue;
        }
        *delivered += 1;
        let result = call(hub, subscription, fanout);
        fanout.advance();
        result?;
    }
    Ok(())
}

/// Leaves the message for a handler whose awaitable still runs.
fn waits(hub: &Bound<'_, PubSubHub>, subscription: &Arc<Subscription>, fanout: &Fanout) -> bool {
    let parked = hub.get().change(hub.py(), |router, trash| {
        router.park(subscription, &fanout.envelope, trash)
    });
    report::parked(hub, subscription, &parked);
    !matches!(parked, Parked::Free)
}

fn call(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Arc<Subscription>,
    fanout: &Fanout,
) -> PyResult<()> {
    match subscription
        .handler
        .call(hub.py(), &fanout.envelope.message)
    {
        Ok(value) if value.is_none() => Ok(()),
        Ok(value) => {
            drain::finish_on_loop(hub, subscription, &fanout.envelope, &value);
            Ok(())
        }
        Err(error) if is_quit(hub.py(), &error) => Err(error),
        Err(error) => {
            report::failure(hub, subscription, &fanout.envelope, error);
            Ok(())
        }
    }
}
