//! What the hub tells its owner: failed calls and dropped messages, on the logger `pagebus` and
//! to the hub's hooks. Nothing that goes wrong in here reaches a sender or a handler.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use pyo3::{ffi, intern};

use crate::core::backlog::OverflowPolicy;
use crate::core::router::Parked;
use crate::delivery::{Envelope, Subscription};
use crate::hub::PubSubHub;
use crate::name;
use crate::python;

/// One failed delivery.
#[pyclass(frozen, module = "pagebus", get_all, weakref)]
pub struct HandlerFailure {
    exception: Py<PyAny>,
    session_id: Py<PyString>,
    topic: Option<Py<PyString>>,
    handler: Py<PyAny>,
    message: Py<PyAny>,
}

#[pymethods]
impl HandlerFailure {
    fn __repr__(&self, py: Python<'_>) -> String {
        let handler = describe(self.handler.bind(py));
        let exception = self.exception.bind(py).get_type();
        format!("<HandlerFailure of {handler}: {exception}>")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.exception)?;
        visit.call(&self.handler)?;
        visit.call(&self.message)
    }
}

/// Messages that were dropped.
#[pyclass(frozen, module = "pagebus", get_all, weakref)]
pub struct Overflow {
    session_id: Option<Py<PyString>>,
    topic: Option<Py<PyString>>,
    handler: Option<Py<PyAny>>,
    dropped: usize,
}

#[pymethods]
impl Overflow {
    fn __repr__(&self) -> String {
        format!("<Overflow dropped={}>", self.dropped)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handler)
    }
}

// ---- failures -------------------------------------------------------------------------------

/// Reports what a handler raised. A cancellation is the handler's own affair.
pub fn failure(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: &Envelope,
    error: PyErr,
) {
    let py = hub.py();
    if is_cancellation(py, &error) {
        return;
    }
    hub.get().counters.add_failed();
    let result = try_failure(hub, subscription, envelope, error);
    contain(hub, result);
}

fn try_failure(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: &Envelope,
    error: PyErr,
) -> PyResult<()> {
    let py = hub.py();
    let callable = subscription.handler.callable(py);
    let session_id = name::text(py, subscription.owner.id())?;
    let topic = envelope
        .message
        .topic
        .as_ref()
        .map(|topic| topic.clone_ref(py));
    let exception = error.into_value(py);
    let text = format!(
        "handler {} of {} failed",
        describe(&callable),
        place(&session_id, topic.as_ref())
    );
    log(py, Level::Error, &text, Some(exception.bind(py).as_any()))?;
    let Some(hook) = hub.get().on_error() else {
        return Ok(());
    };
    let record = HandlerFailure {
        exception: exception.into_any(),
        session_id: session_id.unbind(),
        topic,
        handler: callable.to_owned().unbind(),
        message: envelope.message.body.clone_ref(py),
    };
    call_hook(hook.bind(py), "on_error", Bound::new(py, record)?.as_any())
}

/// Whether an exception is `asyncio.CancelledError`.
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let cancelled = CELL.import(py, "asyncio", "CancelledError");
    cancelled.is_ok_and(|cancelled| error.matches(py, cancelled).unwrap_or(false))
}

// ---- dropped messages -----------------------------------------------------------------------

/// Reports what became of a message for a busy handler, if it brought about a loss.
pub fn parked(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: &Envelope,
    parked: &Parked,
) {
    match *parked {
        Parked::Dropped(count) => loss(hub, subscription, envelope, count),
        Parked::CutOff(count) => cut_off(hub, subscription, envelope, count),
        Parked::Free | Parked::Waiting => {}
    }
}

/// Counts a message dropped for one subscription, the `count`-th of a burst, and reports the
/// first.
pub fn loss(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: &Envelope,
    count: u32,
) {
    hub.get().counters.add_dropped(1);
    if count == 1 {
        let what = format!("does not keep up; dropping its {} messages", gives_way(hub));
        let line = Line(Level::Warning, what);
        let result = overflow(hub, subscription, Some(envelope), count, &line);
        contain(hub, result);
    }
}

/// Counts and reports what was lost with a subscription that was ended because its handler did
/// not keep up.
pub fn cut_off(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: &Envelope,
    count: u32,
) {
    hub.get().counters.add_dropped(count as usize);
    let what = format!(
        "does not keep up; unsubscribed it and dropped {}",
        messages(count)
    );
    let line = Line(Level::Warning, what);
    let result = overflow(hub, subscription, Some(envelope), count, &line);
    contain(hub, result);
}

/// Reports the end of a burst of losses, if one ended. `envelope` is any message of the
/// subscription, where there is one at hand.
pub fn recovered(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: Option<&Envelope>,
    burst: Option<u32>,
) {
    if let Some(count) = burst {
        let result = overflow(hub, subscription, envelope, count, &caught_up(count));
        contain(hub, result);
    }
}

fn overflow(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: Option<&Envelope>,
    count: u32,
    Line(level, what): &Line,
) -> PyResult<()> {
    let py = hub.py();
    let callable = subscription.handler.callable(py);
    let session_id = name::text(py, subscription.owner.id())?;
    let topic = if let Some(envelope) = envelope {
        envelope.message.topic.as_ref().map(|t| t.clone_ref(py))
    } else {
        let topic = hub.get().topic_of(py, subscription);
        let topic = topic.map(|topic| name::text(py, &topic)).transpose()?;
        topic.map(Bound::unbind)
    };
    let place = place(&session_id, topic.as_ref());
    let text = format!("handler {} of {place} {what}", describe(&callable));
    log(py, *level, &text, None)?;
    let handler = Some(callable.to_owned().unbind());
    let session_id = Some(session_id.unbind());
    let record = Overflow {
        session_id,
        topic,
        handler,
        dropped: count as usize,
    };
    call_overflow_hook(hub, record)
}

/// Reports that a lane does not keep up with a topic.
pub fn lane_loss(hub: &Bound<'_, PubSubHub>, topic: Option<&Bound<'_, PyString>>) {
    let topic = topic.map(|topic| topic.clone().unbind());
    let what = format!("does not keep up; dropping the {} messages", gives_way(hub));
    let result = lane_overflow(hub, topic, 1, &Line(Level::Warning, what));
    contain(hub, result);
}

/// Reports that a lane has caught up with a topic, if it has.
pub fn topic_recovered(hub: &Bound<'_, PubSubHub>, envelope: &Envelope, burst: Option<u32>) {
    if let Some(count) = burst {
        let topic = envelope
            .message
            .topic
            .as_ref()
            .map(|t| t.clone_ref(hub.py()));
        let result = lane_overflow(hub, topic, count, &caught_up(count));
        contain(hub, result);
    }
}

fn lane_overflow(
    hub: &Bound<'_, PubSubHub>,
    topic: Option<Py<PyString>>,
    count: u32,
    Line(level, what): &Line,
) -> PyResult<()> {
    let py = hub.py();
    let place = topic
        .as_ref()
        .map_or_else(String::new, |t| format!(" on topic {}", quoted(t.bind(py))));
    let text = format!("the event loop or executor {what}{place}");
    log(py, *level, &text, None)?;
    let record = Overflow {
        session_id: None,
        topic,
        handler: None,
        dropped: count as usize,
    };
    call_overflow_hook(hub, record)
}

fn call_overflow_hook(hub: &Bound<'_, PubSubHub>, record: Overflow) -> PyResult<()> {
    let py = hub.py();
    let Some(hook) = hub.get().on_overflow() else {
        return Ok(());
    };
    call_hook(
        hook.bind(py),
        "on_overflow",
        Bound::new(py, record)?.as_any(),
    )
}

/// Reports messages that nobody will deliver any more.
pub fn undeliverable(hub: &Bound<'_, PubSubHub>, count: usize, why: &str) {
    if count > 0 {
        let text = format!("{count} messages could not be delivered: {why}");
        let result = log(hub.py(), Level::Error, &text, None);
        contain(hub, result);
    }
}

/// Reports what a hub that closes leaves undone.
pub fn given_up(hub: &Bound<'_, PubSubHub>, deliveries: usize, calls: usize) {
    if deliveries + calls > 0 {
        let text = format!(
            "the hub closed before {deliveries} deliveries were made and {calls} handlers were done"
        );
        let result = log(hub.py(), Level::Error, &text, None);
        contain(hub, result);
    }
}

// ---- words ----------------------------------------------------------------------------------

fn messages(count: u32) -> String {
    if count == 1 {
        "1 message".to_owned()
    } else {
        format!("{count} messages")
    }
}

fn place(session_id: &Bound<'_, PyString>, topic: Option<&Py<PyString>>) -> String {
    let session = format!("session {}", quoted(session_id));
    match topic {
        Some(topic) => format!("{session} on topic {}", quoted(topic.bind(session_id.py()))),
        None => session,
    }
}

/// How much of a name the log shows: it may be as long as a book.
const SHOWN: usize = 200;

fn quoted(text: &Bound<'_, PyString>) -> String {
    let repr = text.repr().map_or_else(
        |_| "?".to_owned(),
        |repr| repr.to_string_lossy().into_owned(),
    );
    match repr.char_indices().nth(SHOWN) {
        None => repr,
        Some((end, _)) => format!("{}...", &repr[..end]),
    }
}

/// A callable's name, without trusting its `__repr__`.
pub fn describe(callable: &Bound<'_, PyAny>) -> String {
    let py = callable.py();
    let text = |name| {
        callable
            .getattr(name)
            .and_then(|value| value.extract::<String>())
    };
    let Ok(name) = text(intern!(py, "__qualname__")) else {
        return callable.get_type().fully_qualified_name().map_or_else(
            |_| "an object".to_owned(),
            |kind| format!("<{} object>", kind.to_string_lossy()),
        );
    };
    text(intern!(py, "__module__")).map_or(name.clone(), |module| format!("{module}.{name}"))
}

// ---- logger and hooks -----------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Level {
    Info,
    Warning,
    Error,
}

/// How loud a line of the log is, and what it says of a handler.
struct Line(Level, String);

/// A burst is logged once, when it begins; its end matters to those who look closer.
fn caught_up(count: u32) -> Line {
    Line(
        Level::Info,
        format!("has caught up; dropped {}", messages(count)),
    )
}

fn gives_way(hub: &Bound<'_, PubSubHub>) -> &'static str {
    match hub.get().overflow() {
        OverflowPolicy::DropNewest => "newest",
        OverflowPolicy::DropOldest | OverflowPolicy::Unsubscribe => "oldest",
    }
}

fn log(
    py: Python<'_>,
    level: Level,
    text: &str,
    exception: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let logger = LOGGER.get_or_try_init(py, || {
        py.import("logging")?
            .call_method1("getLogger", ("pagebus",))
            .map(Bound::unbind)
    })?;
    let keywords = PyDict::new(py);
    keywords.set_item("exc_info", exception)?;
    let method = match level {
        Level::Info => intern!(py, "info"),
        Level::Warning => intern!(py, "warning"),
        Level::Error => intern!(py, "error"),
    };
    let method = logger.bind(py).getattr(method)?;
    let (format, text) = (intern!(py, "%s"), PyString::new(py, text));
    python::call_with(&method, [format.as_any(), text.as_any()], Some(&keywords)).map(drop)
}

fn call_hook(hook: &Bound<'_, PyAny>, which: &str, record: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = hook.py();
    python::call(hook, [record]).map(drop).or_else(|error| {
        if is_interrupt(py, &error) {
            return Err(error);
        }
        let text = format!("the hub's {which} hook failed");
        log(py, Level::Error, &text, Some(error.value(py).as_any()))
    })
}

fn is_interrupt(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py)
}

fn contain(hub: &Bound<'_, PubSubHub>, result: PyResult<()>) {
    contained(hub.py(), result, Some(hub));
}

/// Where even a report fails, the interpreter's last resort gets it. A Ctrl-C that came while the
/// report was made is given to the main thread again.
pub fn contained(py: Python<'_>, result: PyResult<()>, hub: Option<&Bound<'_, PubSubHub>>) {
    match result {
        Ok(()) => {}
        // SAFETY: attached; it only marks a signal as pending.
        Err(error) if is_interrupt(py, &error) => unsafe { ffi::PyErr_SetInterrupt() },
        Err(error) => error.write_unraisable(py, hub.map(Bound::as_any)),
    }
}
