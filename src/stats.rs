//! What a hub has done and holds.

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::core::Name;
use crate::core::router::Sizes;
use crate::hub::PubSubHub;
use crate::link;
use crate::name;
use crate::ranking::{Ranked, Ranking};
use crate::record::{self, record};
use crate::report::quoted;

/// What fails: handlers, by name.
#[derive(Default)]
pub struct Failures(Mutex<Failed>);

#[derive(Default)]
struct Failed {
    /// How many calls.
    count: u64,
    handlers: Ranking<Failing>,
}

#[derive(Clone, Default)]
struct Failing {
    count: u64,
    traceback: String,
    /// The number of its last failure among those of all handlers.
    last: u64,
}

impl Ranked for Failing {
    type Rank = u64;

    fn rank(&self) -> u64 {
        self.last
    }
}

/// Entries of each kind in a record, at the most.
const MOST_TOLD: usize = 20;

impl Failures {
    /// Counts a failure of a handler and keeps its traceback: as text, because the exception itself
    /// holds the frames, and with them the page, of a session that may leave.
    pub fn record(&self, handler: String, traceback: String) {
        let mut all = self.0.lock();
        all.count += 1;
        let last = all.count;
        let failing = all.handlers.entry(handler).or_default();
        failing.count += 1;
        (failing.traceback, failing.last) = (traceback, last);
    }

    /// The handlers that failed, the latest first.
    fn latest(&self) -> Vec<(String, Failing)> {
        let handlers = self.0.lock().handlers.clone();
        handlers.into_first(MOST_TOLD)
    }
}

/// A handler that took long.
#[pyclass(frozen, module = "pagebus", get_all)]
pub struct SlowHandler {
    handler: String,
    calls: u64,
    mean: f64,
    max: f64,
}

record!(
    SlowHandler {
        handler,
        calls,
        mean,
        max
    },
    |slf| {
        let Self { handler, max, .. } = slf.get();
        Ok(format!("<SlowHandler {handler} max={max:.6}>"))
    }
);

/// A handler that raised.
#[pyclass(frozen, module = "pagebus", get_all)]
pub struct FailingHandler {
    handler: String,
    failures: u64,
    traceback: String,
}

// Without the traceback, which has many lines.
record!(
    FailingHandler {
        handler,
        failures,
        traceback
    },
    |slf| {
        let Self {
            handler, failures, ..
        } = slf.get();
        Ok(format!("<FailingHandler {handler} failures={failures}>"))
    }
);

/// A topic that much is sent on.
#[pyclass(frozen, module = "pagebus", get_all)]
pub struct BusyTopic {
    topic: Py<PyString>,
    published: u64,
    sessions: u32,
}

record!(
    BusyTopic {
        topic,
        published,
        sessions
    },
    |slf| {
        let topic = quoted(slf.get().topic.bind(slf.py()));
        Ok(format!(
            "<BusyTopic {topic} published={}>",
            slf.get().published
        ))
    }
);

/// A hub's counters, sizes and times at one moment.
#[pyclass(frozen, module = "pagebus", get_all)]
pub struct Stats {
    published: u64,
    delivered: u64,
    failed: u64,
    dropped: u64,
    pending: usize,
    sessions: usize,
    topics: usize,
    subscriptions: usize,
    latency_p50: f64,
    latency_p99: f64,
    latency_max: f64,
    slowest: Py<PyTuple>,
    failing: Py<PyTuple>,
    busiest: Py<PyTuple>,
    outbox: usize,
    unpublished: u64,
    unreadable: u64,
    gaps: u64,
    reconnects: u64,
}

impl Stats {
    /// Everything put together.
    pub fn new(
        py: Python<'_>,
        hub: &PubSubHub,
        sizes: &Sizes,
        busiest: Vec<(Name, u64, u32)>,
        link: &link::Counts,
    ) -> PyResult<Self> {
        let (counters, latency) = (&hub.counters, hub.timing.quantiles());
        Ok(Self {
            published: sizes.published,
            delivered: counters.delivered(),
            failed: counters.failed(),
            dropped: counters.dropped() + sizes.dropped as u64,
            pending: sizes.pending,
            sessions: sizes.sessions,
            topics: sizes.topics,
            subscriptions: sizes.subscriptions,
            latency_p50: latency.p50,
            latency_p99: latency.p99,
            latency_max: latency.max,
            slowest: slowest(py, hub)?.unbind(),
            failing: failing(py, hub)?.unbind(),
            busiest: busiest_topics(py, busiest)?.unbind(),
            outbox: link.outbox,
            unpublished: link.unpublished,
            unreadable: link.unreadable,
            gaps: link.gaps,
            reconnects: link.reconnects,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is an average")]
fn slowest<'py>(py: Python<'py>, hub: &PubSubHub) -> PyResult<Bound<'py, PyTuple>> {
    let slowest = hub.timing.slowest(MOST_TOLD).into_iter();
    let told = slowest.map(|(handler, calls)| SlowHandler {
        handler,
        calls: calls.count,
        mean: calls.total.as_secs_f64() / calls.count as f64,
        max: calls.max.as_secs_f64(),
    });
    PyTuple::new(py, told.collect::<Vec<_>>())
}

fn failing<'py>(py: Python<'py>, hub: &PubSubHub) -> PyResult<Bound<'py, PyTuple>> {
    let latest = hub.failures.latest().into_iter();
    let told = latest.map(|(handler, failing)| FailingHandler {
        handler,
        failures: failing.count,
        traceback: failing.traceback,
    });
    PyTuple::new(py, told.collect::<Vec<_>>())
}

fn busiest_topics(
    py: Python<'_>,
    mut busiest: Vec<(Name, u64, u32)>,
) -> PyResult<Bound<'_, PyTuple>> {
    busiest.sort_by_key(|(_, published, _)| std::cmp::Reverse(*published));
    let told = busiest
        .iter()
        .take(MOST_TOLD)
        .map(|(topic, published, sessions)| {
            Ok(BusyTopic {
                topic: name::text(py, topic)?.unbind(),
                published: *published,
                sessions: *sessions,
            })
        });
    PyTuple::new(py, told.collect::<PyResult<Vec<_>>>()?)
}

record!(
    Stats {
        published,
        delivered,
        failed,
        dropped,
        pending,
        sessions,
        topics,
        subscriptions,
        latency_p50,
        latency_p99,
        latency_max,
        slowest,
        failing,
        busiest,
        outbox,
        unpublished,
        unreadable,
        gaps,
        reconnects,
    },
    |slf| record::shown(slf, &Self::FIELDS)
);
