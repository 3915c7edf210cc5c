//! What the hub tells its owner: failed calls and dropped messages, on the logger `pagebus` and
//! to the hub's hooks. Nothing that goes wrong in here reaches a sender or a handler.

use pyo3::exceptions::{PyBaseException, PyKeyboardInterrupt};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::core::LaneKey;
use crate::core::backlog::OverflowPolicy;
use crate::delivery::delivering::Delivering;
use crate::delivery::{Envelope, Loss, Subscription};
use crate::fork::Process;
use crate::hub::{PubSubHub, SYNC};
use crate::name;
use crate::once::{Imported, Once, intern};
use crate::python;
use crate::stream;

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

/// Characters of a traceback that are kept.
const LONGEST_TRACEBACK: usize = 8_000;

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
    let topic = envelope.message.topic(py)?;
    let exception = error.into_value(py);
    let name = describe(&callable);
    let text = format!(
        "handler {name} of {} failed",
        place(&session_id, topic.as_ref())
    );
    log(py, Level::Error, &text, Some(exception.bind(py).as_any()))?;
    let traceback = traceback_of(exception.bind(py))?;
    hub.get().failures.record(name, traceback);
    let Some(hook) = hub.get().on_error() else {
        return Ok(());
    };
    let record = HandlerFailure {
        exception: exception.into_any(),
        session_id: session_id.unbind(),
        topic,
        handler: callable.to_owned().unbind(),
        message: envelope.message.body(py)?.clone().unbind(),
    };
    call_hook(
        hook.bind(py),
        "on_error",
        [Bound::new(py, record)?.as_any()],
    )
}

/// The traceback of an exception as Python would show it, or the end of a long one. Fails only with
/// what is meant for the process.
fn traceback_of(exception: &Bound<'_, PyBaseException>) -> PyResult<String> {
    static CELL: Imported = Imported::new("traceback", "format_exception");
    let lines = CELL
        .get(exception.py())
        .and_then(|format| python::call(format, [exception.as_any()]))
        .and_then(|lines| lines.extract::<Vec<String>>());
    let text = match lines {
        Ok(lines) => lines.concat(),
        Err(error) if is_interrupt(exception.py(), &error) => return Err(error),
        Err(_) => "(no traceback)".to_owned(),
    };
    Ok(match text.char_indices().nth_back(LONGEST_TRACEBACK) {
        Some((at, _)) => format!("...{}", &text[at..]),
        None => text,
    })
}

/// Whether an exception is `asyncio.CancelledError`.
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    static CELL: Imported = Imported::new("asyncio", "CancelledError");
    let cancelled = CELL.get(py);
    cancelled.is_ok_and(|cancelled| error.matches(py, cancelled).unwrap_or(false))
}

// ---- dropped messages -----------------------------------------------------------------------

/// Reports the losses that the hub's router has noted, in the order in which they happened, and
/// those that come meanwhile. For the thread that `Router::begin_reports` says so to.
#[cold]
pub fn losses(hub: &Bound<'_, PubSubHub>) {
    let (py, own) = (hub.py(), hub.get());
    // A hook may close the hub, and must not wait for itself.
    let _delivering = Delivering::begin(own);
    // A hook can fork: what is noted in the child is not for the copy of this thread to report.
    let process = Process::this();
    while process.is_this()
        && let Some(loss) = own.change(py, |router, _| router.next_report())
    {
        let told = tell(hub, &loss);
        contain(hub, told);
    }
    own.forget_losers(py);
}

fn tell(hub: &Bound<'_, PubSubHub>, loss: &Loss) -> PyResult<()> {
    match loss {
        Loss::Dropped((subscription, envelope)) => {
            let words = falls_behind(hub);
            overflow(hub, subscription, Some(envelope), 1, &words)
        }
        Loss::Expelled((subscription, envelope), count) => {
            let words = unsubscribed(*count);
            overflow(hub, subscription, Some(envelope), *count, &words)
        }
        Loss::Recovered(subscription, envelope, count) => {
            let words = caught_up(*count);
            overflow(hub, subscription, envelope.as_deref(), *count, &words)
        }
        Loss::FellBehind(lane, envelope) => {
            let words = falls_behind(hub);
            lane_overflow(hub, *lane, envelope, 1, &words)
        }
        Loss::CaughtUp(lane, envelope, count) => {
            let words = caught_up(*count);
            lane_overflow(hub, *lane, envelope, *count, &words)
        }
        Loss::Beyond => reader_overflow(hub),
    }
}

fn reader_overflow(hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
    let Some(reader) = hub.get().next_loser(hub.py()) else {
        return Ok(());
    };
    let reader = reader.bind(hub.py());
    let Some((loser, lost)) = stream::inbox_of(reader).and_then(|inbox| inbox.next_loss(reader))
    else {
        return Ok(());
    };
    let (count, words) = match lost {
        Lost::Message => (1, falls_behind(hub)),
        Lost::Subscription(count) => (count, unsubscribed(count)),
        Lost::Burst(count) => (count, caught_up(count)),
    };
    overflow_of(hub, loser, count, &words)
}

fn overflow(
    hub: &Bound<'_, PubSubHub>,
    subscription: &Subscription,
    envelope: Option<&Envelope>,
    count: u32,
    line: &Line,
) -> PyResult<()> {
    let py = hub.py();
    let session_id = name::text(py, subscription.owner.id())?;
    let topic = if let Some(envelope) = envelope {
        envelope.message.topic(py)?
    } else {
        let topic = hub.get().topic_of(py, subscription);
        let topic = topic.map(|topic| name::text(py, &topic)).transpose()?;
        topic.map(Bound::unbind)
    };
    let handler = subscription.handler.callable(py).to_owned();
    let loser = Loser {
        handler,
        session_id,
        topic,
    };
    overflow_of(hub, loser, count, line)
}

/// Who does not keep up.
pub struct Loser<'py> {
    /// The handler, or the reader.
    pub handler: Bound<'py, PyAny>,
    /// Its session.
    pub session_id: Bound<'py, PyString>,
    /// Its topic, if it has one.
    pub topic: Option<Py<PyString>>,
}

/// What a reader has lost.
pub enum Lost {
    /// The first message of a burst.
    Message,
    /// Its subscription, and so many messages with it.
    Subscription(u32),
    /// So many messages in a burst that is over.
    Burst(u32),
}

fn overflow_of(
    hub: &Bound<'_, PubSubHub>,
    loser: Loser<'_>,
    count: u32,
    Line(level, what): &Line,
) -> PyResult<()> {
    let place = place(&loser.session_id, loser.topic.as_ref());
    let text = format!("handler {} of {place} {what}", describe(&loser.handler));
    log(hub.py(), *level, &text, None)?;
    let record = Overflow {
        session_id: Some(loser.session_id.unbind()),
        topic: loser.topic,
        handler: Some(loser.handler.unbind()),
        dropped: count as usize,
    };
    call_overflow_hook(hub, record)
}

fn lane_overflow(
    hub: &Bound<'_, PubSubHub>,
    lane: LaneKey,
    envelope: &Envelope,
    count: u32,
    Line(level, what): &Line,
) -> PyResult<()> {
    let py = hub.py();
    let topic = envelope.message.topic(py)?;
    let place = topic
        .as_ref()
        .map_or_else(String::new, |t| format!(" on topic {}", quoted(t.bind(py))));
    let text = format!("{} {what}{place}", deliverer(hub, lane));
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
        [Bound::new(py, record)?.as_any()],
    )
}

fn deliverer(hub: &Bound<'_, PubSubHub>, lane: LaneKey) -> &'static str {
    match hub.get().executor() {
        _ if lane != SYNC => "the event loop",
        Some(_) => "the executor",
        None => "the thread that delivers",
    }
}

/// Reports that a full outbox begins to lose messages.
pub fn outbox_overflow(hub: &Bound<'_, PubSubHub>, count: usize) {
    let text = "messages will not reach other processes: the outbox is full";
    let told = outbox_burst(hub, Level::Error, text, count);
    contain(hub, told);
}

/// Reports that an outbox has emptied after it lost so many.
pub fn outbox_caught_up(hub: &Bound<'_, PubSubHub>, burst: u64) {
    let burst = usize::try_from(burst).unwrap_or(usize::MAX);
    let lost = messages(burst);
    let text = format!("what is sent reaches other processes again; {lost} did not");
    let told = outbox_burst(hub, Level::Warning, &text, burst);
    contain(hub, told);
}

fn outbox_burst(
    hub: &Bound<'_, PubSubHub>,
    level: Level,
    text: &str,
    dropped: usize,
) -> PyResult<()> {
    log(hub.py(), level, text, None)?;
    // They were sent to whomever.
    let record = Overflow {
        session_id: None,
        topic: None,
        handler: None,
        dropped,
    };
    call_overflow_hook(hub, record)
}

/// Reports messages that were not published when the process ended.
pub fn left_behind(py: Python<'_>, count: usize) -> PyResult<()> {
    if count == 0 {
        return Ok(());
    }
    let text = format!(
        "{} may not reach other processes: this one ends",
        messages(count)
    );
    log(py, Level::Error, &text, None)
}

/// Reports messages that will not be published, for a reason that is not the hub's.
pub fn unpublished(hub: &Bound<'_, PubSubHub>, count: u64, reason: &str) {
    let lost = messages(usize::try_from(count).unwrap_or(usize::MAX));
    let text = format!("{lost} will not reach other processes: {reason}");
    let result = log(hub.py(), Level::Error, &text, None);
    contain(hub, result);
}

/// Reports messages that nobody will deliver any more.
pub fn undeliverable(hub: &Bound<'_, PubSubHub>, count: usize, why: &str) {
    if count > 0 {
        let text = format!("{} could not be delivered: {why}", messages(count));
        let result = log(hub.py(), Level::Error, &text, None);
        contain(hub, result);
    }
}

/// Reports what a hub that closes leaves undone.
pub fn given_up(hub: &Bound<'_, PubSubHub>, deliveries: usize, calls: usize) {
    let made = counted(deliveries, "delivery was made", "deliveries were made");
    let done = counted(calls, "handler was done", "handlers were done");
    let undone = match (deliveries, calls) {
        (0, 0) => None,
        (0, _) => Some(done),
        (_, 0) => Some(made),
        _ => Some(format!("{made} and {done}")),
    };
    if let Some(undone) = undone {
        let text = format!("the hub closed before {undone}");
        let result = log(hub.py(), Level::Error, &text, None);
        contain(hub, result);
    }
}

// ---- words ----------------------------------------------------------------------------------

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

fn messages(count: usize) -> String {
    counted(count, "message", "messages")
}

/// "session 'ann' on topic 'news'".
pub fn place(session_id: &Bound<'_, PyString>, topic: Option<&Py<PyString>>) -> String {
    let session = format!("session {}", quoted(session_id));
    match topic {
        Some(topic) => format!("{session} on topic {}", quoted(topic.bind(session_id.py()))),
        None => session,
    }
}

/// How much of a name the log shows: it may be as long as a book.
const SHOWN: usize = 200;

/// A name as the log shows it.
pub fn quoted(text: &Bound<'_, PyString>) -> String {
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

/// How loud a line of the log is.
#[derive(Clone, Copy)]
pub enum Level {
    /// Somebody who looks closer wants to know it.
    Info,
    /// Something is lost, or late.
    Warning,
    /// Somebody has to do something.
    Error,
}

/// How loud a line of the log is, and what it says of a handler.
struct Line(Level, String);

/// A burst is logged once, when it begins; its end matters to those who look closer.
fn caught_up(count: u32) -> Line {
    Line(
        Level::Info,
        format!("has caught up; dropped {}", messages(count as usize)),
    )
}

fn unsubscribed(count: u32) -> Line {
    let lost = messages(count as usize);
    let what = format!("does not keep up; unsubscribed it and dropped {lost}");
    Line(Level::Warning, what)
}

fn falls_behind(hub: &Bound<'_, PubSubHub>) -> Line {
    let given_way = match hub.get().overflow() {
        OverflowPolicy::DropNewest => "newest",
        OverflowPolicy::DropOldest | OverflowPolicy::Unsubscribe => "oldest",
    };
    let what = format!("does not keep up; dropping its {given_way} messages");
    Line(Level::Warning, what)
}

/// Writes a line on the logger `pagebus`.
pub fn log(
    py: Python<'_>,
    level: Level,
    text: &str,
    exception: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    static GET_LOGGER: Imported = Imported::new("logging", "getLogger");
    static LOGGER: Once<Py<PyAny>> = Once::new();
    let logger = LOGGER.get_or_try_init(|| {
        let name = intern!(py, "pagebus");
        python::call(GET_LOGGER.get(py)?, [name.as_any()]).map(Bound::unbind)
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

/// Calls a hook of the hub's user; that it fails is logged.
pub fn call_hook<const N: usize>(
    hook: &Bound<'_, PyAny>,
    which: &str,
    args: [&Bound<'_, PyAny>; N],
) -> PyResult<()> {
    let py = hook.py();
    python::call(hook, args).map(drop).or_else(|error| {
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
