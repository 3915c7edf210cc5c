//! Awaiting what a sync handler returned: a lambda that makes a coroutine, say.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use triomphe::Arc;

use super::drain::Phase;
use super::event_loop::{self, LoopLane};
use super::handler::is_quit;
use super::serving::Serving;
use super::signature::is_awaitable;
use super::{Envelope, Subscription};
use crate::fork::Shared;
use crate::hub::PubSubHub;
use crate::once::intern;
use crate::report;

/// Awaits on a loop what a handler returned, if that can be awaited. Until it is done, the
/// handler is busy. Tells whether there is anything to wait for. Fails only with what is meant for
/// the process.
pub fn on_loop(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
    value: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    try_on_loop(hub, subscription, envelope, value).or_else(|error| {
        if is_quit(hub.py(), &error) {
            return Err(error);
        }
        report::failure(hub, subscription, envelope, error);
        Ok(false)
    })
}

fn try_on_loop(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Arc<Subscription>,
    envelope: &Arc<Envelope>,
    value: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    if !is_awaitable(value)? {
        return Ok(false);
    }
    let py = hub.py();
    let lane = match open_lane(hub, subscription) {
        Ok(lane) => lane,
        Err(error) => {
            // Nobody will await it; a coroutine that nobody closes complains on top.
            let _ = value.call_method0(intern!(py, "close"));
            return Err(error);
        }
    };
    let (hub, context) = (hub.clone().unbind(), subscription.handler.context.copy(py)?);
    let returned = (value.clone().unbind(), context.unbind());
    let mut serving = Serving::returned(hub, lane.clone(), (subscription, envelope), returned);
    serving.enter(py);
    match lane.start(py, Phase::Serving(serving)) {
        // Ctrl-C came in the middle: the loop has it all the same, and the program gets to know.
        Err(error) if is_quit(py, &error) => report::contained(py, Err(error), None),
        result => result?,
    }
    Ok(true)
}

fn open_lane(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
) -> PyResult<Shared<LoopLane>> {
    let lane = lane_for(hub, subscription)?.ok_or_else(|| {
        PyRuntimeError::new_err(
            "the handler returned an awaitable, and there is no event loop to await it on: \
             create the hub with PubSubHub(loop=...)",
        )
    })?;
    lane.check_open(hub.py()).map(|()| lane)
}

/// The hub's loop, else the one that ran at `subscribe`, else the one that runs here.
fn lane_for(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
) -> PyResult<Option<Shared<LoopLane>>> {
    let py = hub.py();
    if let Some(lane) = hub.get().event_loop() {
        return Ok(Some(lane.clone()));
    }
    let home = subscription
        .handler
        .home(py)
        .map(|home| home.to_owned().unbind());
    let event_loop = home.map_or_else(|| event_loop::running(py), |home| Ok(Some(home)))?;
    event_loop
        .map(|found| LoopLane::new(found.bind(py), false).map(Shared::new))
        .transpose()
}
