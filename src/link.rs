//! A hub's link to the hubs of other processes: what is sent goes out, and what comes back from the
//! broker is delivered here, to the sender's own sessions as to everybody else's.

pub mod exit;
mod presence;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use foldhash::fast::RandomState;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyWeakrefMethods, PyWeakrefReference};

use crate::close::Timeout;
use crate::cluster::Channel;
use crate::cluster::broker::Broker;
use crate::cluster::node::{Handle, Listener, News, Offered, Outgoing, State, Visit, Wish};
use crate::cluster::outbox::Limits;
use crate::cluster::position::Gap;
use crate::cluster::wire;
use crate::cluster::wire::members::Read as Told;
use crate::codec::{self, MessagePack};
use crate::core::fanout::Audience;
use crate::core::history::Past;
use crate::delivery::delivering::Delivering;
use crate::delivery::event_loop;
use crate::delivery::handler::Message;
use crate::fork::{Inherited, Process};
use crate::hub::{HubClosed, PubSubHub};
use crate::lock::lock;
use crate::name;
use crate::once::Imported;
use crate::python::{self, Held};
use crate::report::{self, Level};

pyo3::create_exception!(pagebus, OutboxFull, PyRuntimeError);

/// What a linked hub was given.
pub struct Settings {
    /// Where the broker is.
    pub url: String,
    /// What keeps apps apart on one broker.
    pub namespace: String,
    /// Larger messages are refused.
    pub max_message_bytes: usize,
    /// What may wait while the broker is away.
    pub limits: Limits,
    /// Whether hubs tell each other who is on which topic.
    pub presence: bool,
}

/// The link of a hub.
pub struct Link {
    settings: Settings,
    codec: Codec,
    on_gap: Option<Py<PyAny>>,
    on_link_state: Option<Py<PyAny>>,
    /// How long a send waits for room in the outbox, if it does not take that of others.
    patience: OnceCell<Timeout>,
    running: Inherited<Running>,
}

/// What makes bytes of messages, and messages of bytes.
enum Codec {
    /// The package's own.
    MessagePack,
    /// Methods of what a hub was given.
    Given {
        encode: Py<PyAny>,
        decode: Py<PyAny>,
    },
}

impl Codec {
    fn new(codec: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Some(codec) = codec.filter(|codec| !codec.is_exact_instance_of::<MessagePack>()) else {
            return Ok(Self::MessagePack);
        };
        let method = |name: &str| match codec.getattr_opt(name)? {
            Some(method) if method.is_callable() => Ok(method.unbind()),
            _ => Err(name::must_be(
                "codec",
                "an object with encode() and decode()",
                codec,
            )),
        };
        Ok(Self::Given {
            encode: method("encode")?,
            decode: method("decode")?,
        })
    }

    fn encode(&self, message: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let Self::Given { encode, .. } = self else {
            return codec::encode(message);
        };
        let encoded = python::call(encode.bind(message.py()), [message])?;
        let bytes = encoded.cast::<PyBytes>();
        let bytes =
            bytes.map_err(|_| name::must_be("what codec.encode returns", "bytes", &encoded))?;
        Ok(bytes.as_bytes().to_vec())
    }

    fn decode(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<Held> {
        let decoded = match self {
            Self::MessagePack => codec::decode(py, bytes),
            Self::Given { decode, .. } => {
                python::call(decode.bind(py), [PyBytes::new(py, bytes).as_any()])
            }
        };
        decoded.map(|decoded| Held::new(&decoded))
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::MessagePack => Ok(()),
            Self::Given { encode, decode } => {
                visit.call(encode)?;
                visit.call(decode)
            }
        }
    }
}

/// What a link has done and holds.
#[derive(Default)]
pub struct Counts {
    /// Messages that wait to be published.
    pub outbox: usize,
    /// Messages that never will be.
    pub unpublished: u64,
    /// What came from the broker and cannot be read.
    pub unreadable: u64,
    /// How often entries were lost at the broker.
    pub gaps: u64,
    /// How often the connection came back.
    pub reconnects: u64,
}

/// What of it belongs to one process.
struct Running {
    process: Process,
    /// What the node is made with; kept here until it is.
    engine: Mutex<Option<Broker>>,
    has_courier: AtomicBool,
    handle: Arc<Handle>,
    wanted: Arc<Wanted>,
    news: Receiver<News>,
    /// `None` before the first attempt to connect.
    state: Mutex<Option<State>>,
    gaps: AtomicU64,
    reconnects: AtomicU64,
    /// Who waits until nothing is missed on a channel.
    waiting: Mutex<Vec<Waiter>>,
}

/// Somebody who waits until nothing is missed on a channel.
struct Waiter {
    channel: Channel,
    /// The visit, if there was one.
    visit: Option<u64>,
    callback: Py<PyAny>,
}

/// The channels that a hub has subscribers on, for its node, and the way back.
struct Wanted {
    channels: Mutex<HashMap<Channel, Wish, RandomState>>,
    /// How often subscribers came to a channel.
    visits: AtomicU64,
    news: Sender<News>,
    /// Bytes of entries that wait for the hub.
    waiting: AtomicUsize,
    /// What came from the broker and cannot be read.
    unreadable: AtomicU64,
}

/// The time between two looks at whether Ctrl-C was pressed, by those who wait.
const GLANCE: Duration = Duration::from_millis(50);

/// So many bytes of entries wait for the hub; more stay at the broker.
const FULL: usize = 16 << 20;

impl Listener for Wanted {
    fn wants(&self, channel: &Channel) -> Option<Wish> {
        self.channels.lock().get(channel).copied()
    }

    fn take(&self, news: News) {
        // The first is told: of the others there may be any number.
        if matches!(news, News::Garbage) && self.unreadable.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        if matches!(news, News::Unreadable(..)) {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        self.waiting.fetch_add(size(&news), Ordering::Relaxed);
        // Nobody may be there any more: then the hub is gone.
        let _ = self.news.send(news);
    }

    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > FULL
    }
}

impl Waiter {
    /// Whether what is true for a visit is true for this one: it is of that one, or of one that is over.
    fn is_of(&self, visit: &Visit) -> bool {
        self.channel == visit.channel && self.visit.is_none_or(|number| number <= visit.number)
    }
}

impl Wanted {
    fn enter(&self, channel: Channel, past: usize) {
        let visit = self.visits.fetch_add(1, Ordering::Relaxed);
        self.channels.lock().insert(channel, Wish { visit, past });
    }

    /// Whether a visit goes on: no other one has begun since.
    fn goes_on(&self, visit: &Visit) -> bool {
        let wish = self.wants(&visit.channel);
        wish.is_some_and(|wish| wish.visit == visit.number)
    }
}

impl Running {
    fn new(settings: &Settings, channels: Vec<(Channel, usize)>) -> Result<Self, String> {
        let mut publisher = wire::Publisher::default();
        getrandom::fill(&mut publisher).map_err(|error| error.to_string())?;
        let (sender, news) = unbounded();
        let wanted = Wanted {
            channels: Mutex::default(),
            visits: AtomicU64::new(0),
            news: sender,
            waiting: AtomicUsize::new(0),
            unreadable: AtomicU64::new(0),
        };
        for (channel, past) in channels {
            wanted.enter(channel, past);
        }
        let handle = Handle::new(publisher, settings.limits);
        if settings.presence {
            handle.share_presence();
        }
        Ok(Self {
            process: Process::this(),
            engine: Mutex::new(Some(settings.engine(&publisher)?)),
            has_courier: AtomicBool::new(false),
            handle: Arc::new(handle),
            wanted: Arc::new(wanted),
            news,
            state: Mutex::new(None),
            gaps: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Starts the threads, the first time.
    fn start(&self, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
        let Some(engine) = self.engine.lock().take() else {
            return Ok(());
        };
        let engine = Arc::new(Mutex::new(Some(engine)));
        let courier = self.start_courier(hub);
        let started = courier.and_then(|()| self.start_node(engine.clone()));
        if started.is_err() {
            // There may be room for threads later.
            *self.engine.lock() = engine.lock().take();
        }
        started
    }

    fn start_courier(&self, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
        if self.has_courier.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let started = Courier::start(hub, self.news.clone());
        self.has_courier.store(started.is_ok(), Ordering::Relaxed);
        started
    }

    fn start_node(&self, engine: Arc<Mutex<Option<Broker>>>) -> PyResult<()> {
        for channel in self.wanted.channels.lock().keys() {
            self.handle.changed(channel.clone());
        }
        let (wanted, handle) = (self.wanted.clone(), self.handle.clone());
        let thread = std::thread::Builder::new().name("pagebus-node".to_owned());
        let started = thread.spawn(move || {
            let engine = engine.lock().take();
            if let Some(engine) = engine {
                engine.serve(wanted, handle);
            }
        });
        started.map_err(|error| {
            PyRuntimeError::new_err(format!("can't start a thread for the link: {error}"))
        })?;
        exit::remember(&self.handle);
        Ok(())
    }
}

impl Settings {
    fn engine(&self, publisher: &wire::Publisher) -> Result<Broker, String> {
        Broker::new(&self.url, &self.namespace, publisher)
    }
}

impl Link {
    /// A link that nobody has used yet.
    pub fn new(
        settings: Settings,
        codec: Option<&Bound<'_, PyAny>>,
        on_gap: Option<Py<PyAny>>,
        on_link_state: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let codec = Codec::new(codec)?;
        let running = Running::new(&settings, Vec::new());
        let running = running
            .map_err(|reason| PyValueError::new_err(format!("link cannot be used: {reason}")))?;
        Ok(Self {
            settings,
            codec,
            on_gap,
            on_link_state,
            patience: OnceCell::new(),
            running: Inherited::new(running),
        })
    }

    /// Begins anew in a child process, with the channels that its hub has subscribers on, and how much
    /// is kept of each.
    pub fn begin_anew(&self, channels: Vec<(Channel, usize)>) {
        if let Ok(running) = Running::new(&self.settings, channels) {
            self.running.replace(running);
        }
    }

    /// Connects, if that was not begun yet.
    pub fn start(&self, hub: &Bound<'_, PubSubHub>) -> PyResult<()> {
        self.running.get().start(hub)
    }

    /// Takes note of a channel to which subscribers came, and of which so much is kept, or from which
    /// they went. May be called with the router's lock held.
    pub fn note(&self, channel: Channel, kept: Option<usize>) {
        let running = self.running.get();
        match kept {
            Some(past) => running.wanted.enter(channel.clone(), past),
            None => drop(running.wanted.channels.lock().remove(&channel)),
        }
        running.handle.changed(channel);
    }

    /// Publishes a message.
    pub fn publish(
        &self,
        hub: &Bound<'_, PubSubHub>,
        topic: Option<&[u8]>,
        audience: Audience<&[u8]>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let payload = self.encode(message)?;
        let channel = match (topic, audience) {
            (_, Audience::Only(session)) => Channel::Session(session.into()),
            (Some(topic), _) => Channel::Topic(topic.into()),
            (None, _) => Channel::All,
        };
        let except = match audience {
            Audience::Others(session) => Some(session),
            Audience::Everyone | Audience::Only(_) => None,
        };
        let running = self.running.get();
        running.start(hub)?;
        let outgoing = Outgoing {
            channel,
            except,
            payload,
        };
        let is_taken = match self.patience.get() {
            None => running.handle.publish(outgoing, &*running.wanted),
            Some(patience) => self.offer(hub.py(), outgoing, patience)?,
        };
        if !is_taken {
            let is_closed = hub.get().change(hub.py(), |router, _| router.is_closed());
            let what = if is_closed {
                "the hub is closed"
            } else {
                "the hub's link has ended"
            };
            return Err(HubClosed::new_err(what));
        }
        Ok(())
    }

    /// From now on a send waits so long for room in the outbox: nothing gives way to it.
    pub fn wait_for_room(&self, patience: Timeout) {
        let _ = self.patience.set(patience);
    }

    /// Publishes a message when there is room for it; returns false if the node has ended.
    fn offer(
        &self,
        py: Python<'_>,
        outgoing: Outgoing<'_>,
        Timeout(seconds): &Timeout,
    ) -> PyResult<bool> {
        let (handle, begin) = (&self.running.get().handle, Instant::now());
        let patience = seconds.map_or(Duration::MAX, Duration::from_secs_f64);
        let mut offered = handle.offer(outgoing, Duration::ZERO);
        while let Offered::Left(outgoing) = offered {
            let left = patience.saturating_sub(begin.elapsed());
            if event_loop::running(py)?.is_some() {
                return Err(OutboxFull::new_err(
                    "the outbox is full, and to wait for room would stop the event loop: send less \
                     at a time, give it a larger max_outbox, or send from a thread, as with \
                     asyncio.to_thread",
                ));
            }
            if left.is_zero() {
                let (time, state) = (seconds.unwrap_or_default(), self.state(py));
                return Err(OutboxFull::new_err(format!(
                    "there was no room in the outbox for {time} seconds; the link is {state}"
                )));
            }
            offered = Offered::Closed;
            python::detached(py, || offered = handle.offer(outgoing, left.min(GLANCE)));
            py.check_signals()?;
        }
        Ok(matches!(offered, Offered::Taken))
    }

    fn encode(&self, message: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let bytes = self.codec.encode(message)?;
        let (size, limit) = (bytes.len(), self.settings.max_message_bytes);
        if size > limit {
            return Err(PyValueError::new_err(format!(
                "message must not have more than {limit} bytes (max_message_bytes), and has {size}"
            )));
        }
        Ok(bytes)
    }

    /// Lets `callback` be called when nothing is missed on a channel any more.
    pub fn when_ready(
        &self,
        hub: &Bound<'_, PubSubHub>,
        channel: Channel,
        callback: Py<PyAny>,
    ) -> PyResult<()> {
        let running = self.running.get();
        let waiter = Waiter {
            channel: channel.clone(),
            visit: running.wanted.wants(&channel).map(|wish| wish.visit),
            callback,
        };
        lock(hub.py(), &running.waiting).push(waiter);
        running.start(hub)?;
        // The node tells it again, if there is one.
        running.handle.changed(channel);
        if self.is_over(hub.py()) {
            self.tell_ready(hub, |_| true);
        }
        Ok(())
    }

    /// `callback` is not to be called any more.
    pub fn forget_ready(&self, py: Python<'_>, callback: &Bound<'_, PyAny>) {
        drop(self.take_waiters(py, |waiter| waiter.callback.is(callback)));
    }

    /// Those who are not to wait any more: let go of without the lock.
    fn take_waiters(&self, py: Python<'_>, which: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let mut waiting = lock(py, &self.running.get().waiting);
        waiting.extract_if(.., |waiter| which(waiter)).collect()
    }

    /// In a word.
    pub fn state(&self, py: Python<'_>) -> &'static str {
        match &*lock(py, &self.running.get().state) {
            None => "connecting",
            Some(state) => word(state),
        }
    }

    /// What it has done and holds.
    pub fn counts(&self) -> Counts {
        let running = self.running.get();
        let (outbox, unpublished) = running.handle.unpublished();
        Counts {
            outbox,
            unpublished,
            unreadable: running.wanted.unreadable.load(Ordering::Relaxed),
            gaps: running.gaps.load(Ordering::Relaxed),
            reconnects: running.reconnects.load(Ordering::Relaxed),
        }
    }

    /// Ends it once everything is published: somebody waits for that.
    pub fn close(&self) {
        self.running.get().handle.close();
    }

    /// Nobody waits for its end any more.
    pub fn leave_alone(&self) {
        let running = self.running.get();
        // The threads may be a parent's, and may have held a lock when it forked.
        if running.process.is_this() {
            running.handle.leave_alone();
        }
    }

    /// Ends it, whatever is left.
    pub fn give_up(&self) {
        self.running.get().handle.give_up();
    }

    /// Ends it: nobody is there any more to deliver what comes.
    fn fail(&self, hub: &Bound<'_, PubSubHub>) {
        let running = self.running.get();
        running.handle.give_up();
        let left = running.handle.end();
        if left > 0 {
            report::unpublished(hub, left, "a fault of its own");
        }
        self.tell_state(hub, State::Disconnected("a fault of its own".to_owned()));
        self.tell_state(hub, State::Closed);
    }

    /// Whether it has ended, or never began.
    pub fn is_over(&self, py: Python<'_>) -> bool {
        let running = self.running.get();
        running.engine.lock().is_some() || *lock(py, &running.state) == Some(State::Closed)
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.codec.traverse(visit)?;
        visit.call(&self.on_gap)?;
        visit.call(&self.on_link_state)?;
        let running = self.running.get();
        if let Some(waiting) = running.waiting.try_lock() {
            for waiter in waiting.iter() {
                visit.call(&waiter.callback)?;
            }
        }
        Ok(())
    }

    // ---- what comes from the broker ---------------------------------------------------------

    fn take(&self, hub: &Bound<'_, PubSubHub>, news: News) {
        let (running, size) = (self.running.get(), size(&news));
        let before = running.wanted.waiting.fetch_sub(size, Ordering::Relaxed);
        if before > FULL && before - size <= FULL {
            running.handle.wake();
        }
        match news {
            // Those who are there now have come since: what they get follows.
            News::Past(visit, _)
            | News::Entry(visit, _)
            | News::Gap(visit, _)
            | News::Ready(visit)
                if !running.wanted.goes_on(&visit) => {}
            News::Past(visit, entries) => {
                self.recall(hub, &visit, &entries);
                self.tell_ready(hub, |waiter| waiter.is_of(&visit));
            }
            News::Entry(visit, bytes) => self.deliver(hub, &visit.channel, &bytes),
            News::Gap(visit, gap) => self.tell_gap(hub, &visit.channel, gap),
            News::Ready(visit) => self.tell_ready(hub, |waiter| waiter.is_of(&visit)),
            News::Unwanted(channel) => {
                // Those who wait for a subscription that has ended; others may have come meanwhile.
                let wanted = &running.wanted;
                let visit = || wanted.wants(&channel).map(|wish| wish.visit);
                self.tell_ready(hub, |waiter| {
                    waiter.channel == channel && (waiter.visit.is_none() || waiter.visit != visit())
                });
            }
            News::State(state) => self.tell_state(hub, state),
            News::Overflowed(lost) => report::outbox_overflow(hub, lost),
            News::CaughtUp(burst) => report::outbox_caught_up(hub, burst),
            News::Unpublished(lost, reason) => report::unpublished(hub, lost, &reason),
            News::Garbage => say_unreadable(hub, "it is no entry", None),
            News::Unreadable(channel, reason) => {
                let text = format!(
                    "{} cannot be read at the broker: {reason}",
                    describe(&channel)
                );
                say(hub, Level::Warning, &text);
            }
            News::Hindered(reason) => {
                let text = format!("the broker takes no messages, which wait: {reason}");
                say(hub, Level::Warning, &text);
            }
            News::Unhindered => say(hub, Level::Warning, "the broker takes messages again"),
            News::Everybody(topic, all) => self.take_everybody(hub, &topic, all),
            News::Members(topic, some) => self.take_members(hub, &topic, some),
            News::Died(host) => self.take_death(hub, host),
            News::Untold(reason) => self.tell_untold(hub, &reason),
        }
    }

    /// Takes what was sent on a channel before this hub followed it; those who wait for it get it.
    fn recall(&self, hub: &Bound<'_, PubSubHub>, visit: &Visit, entries: &[Vec<u8>]) {
        let recalled = self.past(hub, &visit.channel, entries).and_then(|past| {
            let wanted = &self.running.get().wanted;
            let goes_on = || wanted.goes_on(visit);
            PubSubHub::recall(hub, &visit.channel, past, goes_on)
        });
        report::contained(hub.py(), recalled, Some(hub));
    }

    fn past(
        &self,
        hub: &Bound<'_, PubSubHub>,
        channel: &Channel,
        entries: &[Vec<u8>],
    ) -> PyResult<Vec<Past<Message>>> {
        let (topic, now) = (topic_of(hub.py(), channel)?, wire::now());
        let mut past = Vec::new();
        for entry in entries.iter().filter_map(|bytes| self.read(hub, bytes)) {
            let age = Duration::from_millis(now.saturating_sub(entry.time));
            for message in &entry.messages {
                let decoded = self.decode(hub, message).map(|body| {
                    let body = body?;
                    let made = Message::new(topic.as_ref(), body.bind(hub.py()));
                    Some(Past::new(made, message.except, age))
                });
                match decoded {
                    Ok(made) => past.extend(made),
                    // The others are not to suffer for it.
                    Err(error) => report::contained(hub.py(), Err(error), Some(hub)),
                }
            }
        }
        Ok(past)
    }

    fn read<'a>(&self, hub: &Bound<'_, PubSubHub>, bytes: &'a [u8]) -> Option<wire::Entry<'a>> {
        match wire::read(bytes) {
            Ok(entry) => return Some(entry),
            Err(wire::Unreadable::Newer(version)) => {
                let reason = format!("it is of the newer version {version}");
                self.unreadable(hub, &reason, None);
            }
            Err(wire::Unreadable::Malformed) => self.unreadable(hub, "it is no entry", None),
        }
        None
    }

    fn deliver(&self, hub: &Bound<'_, PubSubHub>, channel: &Channel, bytes: &[u8]) {
        let Some(entry) = self.read(hub, bytes) else {
            return;
        };
        for message in &entry.messages {
            let done = self.deliver_one(hub, channel, message);
            match done.map_err(|error| python::settled(hub.py(), error)) {
                // Nobody listens any more.
                Err(error) if error.is_instance_of::<HubClosed>(hub.py()) => {}
                result => report::contained(hub.py(), result, Some(hub)),
            }
        }
    }

    fn deliver_one(
        &self,
        hub: &Bound<'_, PubSubHub>,
        channel: &Channel,
        message: &wire::Message<'_>,
    ) -> PyResult<()> {
        let py = hub.py();
        let Some(decoded) = self.decode(hub, message)? else {
            return Ok(());
        };
        let topic = topic_of(py, channel)?;
        let audience = match (channel, message.except) {
            (Channel::Session(session), _) => Audience::Only(&**session),
            (_, Some(session)) => Audience::Others(session),
            (_, None) => Audience::Everyone,
        };
        PubSubHub::deliver(hub, topic.as_ref(), audience, decoded.bind(py))
    }

    /// What was sent; `None`, which is counted and said, if that cannot be known.
    fn decode(
        &self,
        hub: &Bound<'_, PubSubHub>,
        message: &wire::Message<'_>,
    ) -> PyResult<Option<Held>> {
        let decoded = self.codec.decode(hub.py(), message.payload);
        match decoded.map_err(|error| python::settled(hub.py(), error)) {
            Ok(decoded) => Ok(Some(decoded)),
            Err(error) if error.is_instance_of::<PyException>(hub.py()) => {
                self.unreadable(hub, "its message cannot be decoded", Some(&error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn tell_gap(&self, hub: &Bound<'_, PubSubHub>, channel: &Channel, gap: Gap) {
        let (py, count) = (hub.py(), missing(gap));
        self.running.get().gaps.fetch_add(1, Ordering::Relaxed);
        let how_many = count.map_or("an unknown number of".to_owned(), |c| c.to_string());
        let text = format!(
            "{how_many} entries of {} are lost at the broker",
            describe(channel)
        );
        say(hub, Level::Warning, &text);
        if let Some(hook) = &self.on_gap {
            let told = topic_of(py, channel).and_then(|topic| {
                let (topic, count) = (topic.into_pyobject(py)?, count.into_pyobject(py)?);
                report::call_hook(hook.bind(py), "on_gap", [&topic, &count])
            });
            report::contained(py, told, Some(hub));
        }
    }

    fn tell_ready(&self, hub: &Bound<'_, PubSubHub>, which: impl Fn(&Waiter) -> bool) {
        let py = hub.py();
        for waiter in self.take_waiters(py, which) {
            let told = python::call(waiter.callback.bind(py), []).map(drop);
            report::contained(py, told, Some(hub));
        }
    }

    fn tell_state(&self, hub: &Bound<'_, PubSubHub>, state: State) {
        let py = hub.py();
        let before = lock(py, &self.running.get().state).replace(state.clone());
        if before.as_ref().map(word) == Some(word(&state)) {
            return;
        }
        match &state {
            State::Connected if before.is_some() => {
                self.running
                    .get()
                    .reconnects
                    .fetch_add(1, Ordering::Relaxed);
                say(hub, Level::Info, "the link is back");
            }
            State::Disconnected(reason) => {
                say(hub, Level::Warning, &format!("the link is lost: {reason}"));
            }
            State::Connected | State::Closed => {}
        }
        if let Some(hook) = &self.on_link_state {
            let word = PyString::new(py, word(&state));
            let told = report::call_hook(hook.bind(py), "on_link_state", [word.as_any()]);
            report::contained(py, told, Some(hub));
        }
        if state == State::Closed {
            self.tell_ready(hub, |_| true);
            hub.get().link_is_over(py);
        }
    }

    fn unreadable(&self, hub: &Bound<'_, PubSubHub>, reason: &str, error: Option<&PyErr>) {
        let unreadable = &self.running.get().wanted.unreadable;
        if unreadable.fetch_add(1, Ordering::Relaxed) == 0 {
            say_unreadable(hub, reason, error);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.leave_alone();
    }
}

fn size(news: &News) -> usize {
    match news {
        News::Past(_, entries) => entries.iter().map(Vec::len).sum(),
        News::Entry(_, bytes) => bytes.len(),
        News::Everybody(_, told) | News::Members(_, told) => told.iter().map(Told::size).sum(),
        _ => 0,
    }
}

fn word(state: &State) -> &'static str {
    match state {
        State::Connected => "connected",
        State::Disconnected(_) => "disconnected",
        State::Closed => "closed",
    }
}

fn missing(gap: Gap) -> Option<u64> {
    match gap {
        Gap::Entries(count) => Some(count),
        Gap::Unknown => None,
    }
}

fn describe(channel: &Channel) -> String {
    match channel {
        Channel::All => "what is sent to all".to_owned(),
        Channel::Topic(name) => format!("the topic '{}'", String::from_utf8_lossy(name)),
        Channel::Session(id) => format!("what is sent to '{}'", String::from_utf8_lossy(id)),
        Channel::Presence(name) => format!("who is on '{}'", String::from_utf8_lossy(name)),
    }
}

fn topic_of<'py>(py: Python<'py>, channel: &Channel) -> PyResult<Option<Bound<'py, PyString>>> {
    match channel {
        Channel::Topic(name) | Channel::Presence(name) => name::text(py, name).map(Some),
        Channel::All | Channel::Session(_) => Ok(None),
    }
}

fn say_unreadable(hub: &Bound<'_, PubSubHub>, reason: &str, error: Option<&PyErr>) {
    let py = hub.py();
    let text = format!("something from the broker cannot be read, and is skipped: {reason}");
    let error = error.map(|error| error.value(py).as_any());
    let said = report::log(py, Level::Warning, &text, error);
    report::contained(py, said, Some(hub));
}

fn say(hub: &Bound<'_, PubSubHub>, level: Level, text: &str) {
    let said = report::log(hub.py(), level, text, None);
    report::contained(hub.py(), said, Some(hub));
}

/// What a thread does that delivers what comes from the broker.
#[pyclass(frozen, module = "pagebus._core")]
pub struct Courier {
    hub: Py<PyWeakrefReference>,
    news: Receiver<News>,
}

/// So much news is taken before the hub may go.
const AT_ONCE: usize = 256;

impl Courier {
    fn start(hub: &Bound<'_, PubSubHub>, news: Receiver<News>) -> PyResult<()> {
        static THREAD: Imported = Imported::new("threading", "Thread");
        let py = hub.py();
        let hub = PyWeakrefReference::new(hub)?.unbind();
        let keywords = PyDict::new(py);
        keywords.set_item("target", Bound::new(py, Self { hub, news })?)?;
        keywords.set_item("name", "pagebus-link")?;
        keywords.set_item("daemon", true)?;
        let thread = THREAD.get(py)?;
        thread.call((), Some(&keywords))?.call_method0("start")?;
        Ok(())
    }
}

#[pymethods]
impl Courier {
    fn __call__(&self, py: Python<'_>) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve(py))) {
            self.tell_fault(py);
            resume_unwind(panic);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)
    }
}

impl Courier {
    fn serve(&self, py: Python<'_>) {
        loop {
            let mut first = None;
            python::detached(py, || first = self.news.recv().ok());
            let Some(first) = first else {
                return;
            };
            let Some(hub) = self.hub.bind(py).upgrade().map(|hub| Held::new(&hub)) else {
                return;
            };
            let Some((hub, link)) = linked(hub.bind(py)) else {
                return;
            };
            // A hook may close the hub, and must not wait for itself.
            let _delivering = Delivering::begin(hub.get());
            let more = self.news.try_iter().take(AT_ONCE);
            for news in std::iter::once(first).chain(more) {
                link.take(hub, news);
            }
        }
    }

    /// A link of which nothing is heard must not seem to be there.
    fn tell_fault(&self, py: Python<'_>) {
        if let Some(hub) = self.hub.bind(py).upgrade()
            && let Some((hub, link)) = linked(&hub)
        {
            link.fail(hub);
        }
    }
}

fn linked<'a, 'py>(hub: &'a Bound<'py, PyAny>) -> Option<(&'a Bound<'py, PubSubHub>, &'a Link)> {
    let hub = hub.cast::<PubSubHub>().ok()?;
    Some((hub, hub.get().link()?))
}
