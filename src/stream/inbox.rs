//! The queue between a hub and one reader: deliveries put messages in, the reader takes them out.
//!
//! Nobody waits in here. A reader that finds nothing leaves word how it is to be woken, under the
//! same lock under which it looked, so that no message comes unnoticed between the two.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::Stream;
use super::waiter::Waiter;
use crate::core::backlog::OverflowPolicy;
use crate::core::subscription::Address;
use crate::delivery::handler::Kind;
use crate::fork::Process;
use crate::hub::PubSubHub;
use crate::lock::lock;
use crate::name;
use crate::python::Held;
use crate::report::{self, Loser, Lost};
use crate::subscribe::{self, Options, Source};
use crate::subscription::{forget_ready, when_ready};

/// A spike's memory is given back when an empty queue holds more room than this.
const KEPT_CAPACITY: usize = 1024;

/// How often it is tried to wake a reader: what the loop refuses for want of memory, it may take
/// the next time.
const ATTEMPTS: usize = 16;

/// How far a reader is with its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The block has not begun.
    New,
    /// It is subscribed, or about to be.
    Open,
    /// The subscription has ended; what is left in the queue is handed out.
    Ended,
    /// The block has ended.
    Left,
}

/// How a subscription ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Somebody ended it: what is queued is not handed out any more.
    Goodbye,
    /// The hub closed, or cannot deliver any more: what is queued was delivered before that, and is
    /// handed out.
    CutOff,
}

/// A reader that waits, or was woken and has not come back yet. There is one at a time.
pub type Ticket = u64;

/// The word that a reader has left.
struct Word {
    ticket: Ticket,
    /// How it is to be woken.
    waiter: Waiter,
    /// How far it was when somebody set out to wake it.
    phase: Phase,
}

struct State {
    phase: Phase,
    queue: VecDeque<Held>,
    address: Option<Address>,
    /// How the reader is to be woken, unless somebody does that already.
    word: Option<Word>,
    reader: Option<Ticket>,
    last_ticket: Ticket,
    /// Messages lost since the queue was last empty.
    burst: u32,
    /// Messages lost so far.
    dropped: u64,
    /// What is to be told of losses, in the order in which they happened. For each entry the hub has
    /// this reader in its own list, or is about to.
    untold: VecDeque<Lost>,
}

/// What a reader finds.
pub enum Found {
    /// The next message.
    Message(Held),
    /// Nothing yet.
    Nothing,
    /// There will be no more.
    End,
}

/// What entering a message leaves to do without the lock.
struct Entered {
    /// What was lost for it, to be dropped.
    lost: VecDeque<Held>,
    /// There was no room, and the hub unsubscribes who does not keep up.
    is_cut_off: bool,
    /// There is something to tell of losses.
    is_news: bool,
    /// The reader is to be woken.
    word: Option<Word>,
}

/// The queue of one reader, who is subscribed for the length of a block.
pub struct Inbox {
    hub: Py<PubSubHub>,
    /// The session that reads.
    pub session_id: Py<PyString>,
    /// The topic, or everything that is sent to all.
    pub topic: Option<Py<PyString>>,
    options: Options,
    limit: usize,
    process: Process,
    state: Mutex<State>,
}

impl Inbox {
    /// An inbox that is not subscribed yet; the arguments are checked here.
    pub fn new(
        hub: &Bound<'_, PubSubHub>,
        session_id: &Bound<'_, PyString>,
        topic: Option<&Bound<'_, PyAny>>,
        options: Options,
    ) -> PyResult<Self> {
        let topic = name::optional_string(topic, "topic")?;
        let limit = hub.get().change(hub.py(), |router, _| router.limit());
        Ok(Self {
            hub: hub.clone().unbind(),
            session_id: session_id.clone().unbind(),
            topic: topic.map(|topic| topic.clone().unbind()),
            options,
            limit: limit as usize,
            process: Process::this(),
            state: Mutex::new(State {
                phase: Phase::New,
                queue: VecDeque::new(),
                address: None,
                word: None,
                reader: None,
                last_ticket: 0,
                burst: 0,
                dropped: 0,
                untold: VecDeque::new(),
            }),
        })
    }

    fn state(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        if !self.process.is_this() {
            self.begin_anew(py);
        }
        lock(py, &self.state)
    }

    /// Makes a child process's copy its own: what is queued is for the parent's reader, who may be
    /// waiting there.
    #[cold]
    fn begin_anew(&self, py: Python<'_>) {
        self.process.becomes_this();
        let left = {
            let mut state = lock(py, &self.state);
            (state.reader, state.burst) = (None, 0);
            state.untold.clear();
            (std::mem::take(&mut state.queue), state.word.take())
        };
        drop(left);
    }

    // ---- the block ----------------------------------------------------------------------------

    /// Begins to be subscribed; `owner` is the object that it belongs to.
    pub fn enter(&self, owner: &Bound<'_, PyAny>, kind: Kind) -> PyResult<()> {
        let py = owner.py();
        let is_new = {
            let mut state = self.state(py);
            let is_new = state.phase == Phase::New;
            if is_new {
                state.phase = Phase::Open;
            }
            is_new
        };
        if !is_new {
            let kind = owner.get_type().name()?;
            return Err(PyRuntimeError::new_err(format!(
                "a {kind} is entered once: make another one"
            )));
        }
        let (hub, topic) = (self.hub.bind(py), self.topic.as_ref());
        let source = topic.map_or(Source::Everything, |topic| Source::Topic(topic.bind(py)));
        let session_id = self.session_id.bind(py);
        let subscribed =
            subscribe::subscribe_as(hub, session_id, source, owner, kind, &self.options);
        let ended = {
            let mut state = self.state(py);
            state.address = subscribed.as_ref().ok().copied();
            if subscribed.is_err() {
                state.phase = Phase::New;
            }
            state.phase != Phase::Open
        };
        // It may have ended before anybody knew its address.
        if ended && let Ok(address) = &subscribed {
            hub.get().cancel(py, *address);
        }
        subscribed.map(drop)
    }

    /// Ends the subscription, and lets go of what is queued.
    pub fn leave(&self, py: Python<'_>) {
        let (left, address, word) = {
            let mut state = self.state(py);
            if matches!(state.phase, Phase::New | Phase::Left) {
                return;
            }
            state.phase = Phase::Left;
            let left = self.empty(&mut state);
            (left, state.address.take(), state.take_word())
        };
        if let Some(address) = address {
            self.hub.get().cancel(py, address);
        }
        drop(left);
        self.tell_end(py, word);
    }

    /// Enters that the subscription has ended.
    pub fn end(&self, py: Python<'_>, how: End) {
        let (left, word) = {
            let mut state = self.state(py);
            if state.phase != Phase::Open {
                return;
            }
            state.phase = Phase::Ended;
            let left = (how == End::Goodbye).then(|| self.empty(&mut state));
            (left, state.take_word())
        };
        drop(left);
        self.tell_end(py, word);
    }

    /// Wakes a reader where nobody can be told that it cannot be woken.
    fn tell_end(&self, py: Python<'_>, word: Option<Word>) {
        let (lost, woken) = self.wake(py, word);
        if let Some(ticket) = lost {
            self.lose_reader(py, ticket);
        }
        report::contained(py, woken, None);
    }

    /// Takes everything out of the queue, to be dropped without the lock.
    fn empty(&self, state: &mut State) -> VecDeque<Held> {
        state.burst = 0;
        let left = std::mem::take(&mut state.queue);
        self.hub.get().counters.subtract_unread(left.len());
        left
    }

    // ---- messages come ------------------------------------------------------------------------

    /// Takes a message, and wakes the reader. Fails only with what is meant for the process, or if
    /// the reader's loop does not work. Calls `step_out` before anybody is told of a loss.
    pub fn put(
        &self,
        owner: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
        mut step_out: impl FnMut(),
    ) -> PyResult<()> {
        let py = owner.py();
        let message = Held::new(message);
        let entered = {
            let mut state = self.state(py);
            if state.phase != Phase::Open {
                return Ok(());
            }
            self.push(&mut state, message)
        };
        drop(entered.lost);
        if entered.is_cut_off {
            self.cancel(py);
        }
        let (absent, woken) = self.wake(py, entered.word);
        if let Some(ticket) = absent {
            step_out();
            self.lose_reader(py, ticket);
        }
        if entered.is_news {
            step_out();
            PubSubHub::tell_losses_of(self.hub.bind(py), owner);
        }
        woken
    }

    fn push(&self, state: &mut State, message: Held) -> Entered {
        let mut entered = Entered {
            lost: VecDeque::new(),
            is_cut_off: false,
            is_news: false,
            word: None,
        };
        if state.queue.len() < self.limit {
            state.queue.push_back(message);
            self.hub.get().counters.add_unread();
        } else {
            self.make_room(state, message, &mut entered);
        }
        entered.word = state.take_word();
        entered
    }

    /// Loses that message, or others in its place.
    #[cold]
    fn make_room(&self, state: &mut State, message: Held, entered: &mut Entered) {
        let hub = self.hub.get();
        match hub.overflow() {
            OverflowPolicy::DropNewest => entered.lost.push_back(message),
            OverflowPolicy::DropOldest => {
                state.queue.push_back(message);
                entered.lost.extend(state.queue.pop_front());
            }
            OverflowPolicy::Unsubscribe => {
                state.phase = Phase::Ended;
                entered.is_cut_off = true;
                entered.lost = self.empty(state);
                entered.lost.push_back(message);
            }
        }
        hub.counters.add_dropped(entered.lost.len());
        entered.is_news = state.lose(entered.lost.len(), entered.is_cut_off);
    }

    /// Wakes the reader that has left that word. Gives its ticket if its event loop is closed, so
    /// that it will not come, and an error if it could not be woken; whoever comes next tries that again.
    fn wake(&self, py: Python<'_>, word: Option<Word>) -> (Option<Ticket>, PyResult<()>) {
        let (mut word, mut outside) = (word, Ok(()));
        while let Some(next) = word {
            let (woken, interrupted) = next.try_wake(py);
            outside = outside.and(interrupted);
            match woken {
                Ok(true) => return (None, outside),
                Ok(false) => return (Some(next.ticket), outside),
                Err(error) => {
                    word = self.put_back(py, next);
                    if word.is_none() {
                        return (None, outside.and(Err(error)));
                    }
                }
            }
        }
        (None, outside)
    }

    /// Leaves the word of a reader that still waits to whoever comes next. Gives it back if the end has
    /// come meanwhile, which found no word: nobody may come after that.
    #[cold]
    fn put_back(&self, py: Python<'_>, word: Word) -> Option<Word> {
        let (waits, phase) = {
            let mut state = self.state(py);
            let waits = state.reader == Some(word.ticket);
            if waits && state.phase == word.phase {
                state.word = Some(word);
                return None;
            }
            (waits, state.phase)
        };
        waits.then_some(Word { phase, ..word })
    }

    /// Ends the subscription of a reader whose event loop is closed: nobody will come. Unless another
    /// one has come in its place.
    #[cold]
    fn lose_reader(&self, py: Python<'_>, ticket: Ticket) {
        let left = {
            let mut state = self.state(py);
            if state.reader != Some(ticket) {
                return;
            }
            state.reader = None;
            if state.phase != Phase::Open {
                return;
            }
            state.phase = Phase::Ended;
            self.empty(&mut state)
        };
        let hub = self.hub.bind(py);
        hub.get().counters.add_dropped(left.len());
        self.cancel(py);
        report::undeliverable(
            hub,
            left.len(),
            "the event loop of a stream's reader is closed",
        );
        drop(left);
    }

    fn cancel(&self, py: Python<'_>) {
        let address = self.state(py).address;
        if let Some(address) = address {
            self.hub.get().cancel(py, address);
        }
    }

    /// What is to be told next of losses.
    pub fn next_loss<'py>(&self, owner: &Bound<'py, PyAny>) -> Option<(Loser<'py>, Lost)> {
        let py = owner.py();
        let lost = self.state(py).untold.pop_front()?;
        let loser = Loser {
            handler: owner.clone(),
            session_id: self.session_id.bind(py).clone(),
            topic: self.topic.as_ref().map(|topic| topic.clone_ref(py)),
        };
        Some((loser, lost))
    }

    // ---- the reader comes ---------------------------------------------------------------------

    /// Takes the next message, for the reader that waited with `ticket` or for one that did not wait.
    pub fn take(&self, owner: &Bound<'_, PyAny>, ticket: Option<Ticket>) -> PyResult<Found> {
        let py = owner.py();
        let (found, is_news, word) = {
            let mut state = self.state(py);
            let found = self.find(&mut state, ticket);
            let word = found.is_ok().then(|| state.word.take());
            (found, state.catch_up(), word)
        };
        drop(word);
        if is_news {
            PubSubHub::tell_losses_of(self.hub.bind(py), owner);
        }
        found.map_err(|why| why.error(owner))
    }

    fn find(&self, state: &mut State, ticket: Option<Ticket>) -> Result<Found, Why> {
        if state.reader.is_some() && state.reader != ticket {
            return Err(Why::Taken);
        }
        state.reader = None;
        match (state.queue.pop_front(), state.phase) {
            (Some(message), _) => {
                self.hub.get().counters.subtract_unread(1);
                Ok(Found::Message(message))
            }
            (None, Phase::Open) => Ok(Found::Nothing),
            // A loop that was begun inside of the block may be at its message when that ends.
            (None, Phase::Ended | Phase::Left) => Ok(Found::End),
            (None, Phase::New) => Err(Why::Outside),
        }
    }

    /// An error where a loop is begun outside of the block.
    pub fn check_inside(&self, owner: &Bound<'_, PyAny>) -> PyResult<()> {
        let phase = self.state(owner.py()).phase;
        match phase {
            Phase::Open | Phase::Ended => Ok(()),
            Phase::New | Phase::Left => Err(Why::Outside.error(owner)),
        }
    }

    /// As for a subscription: has `callback` called for each channel on which nothing is missed any
    /// more, and returns how many they are. What has ended has nothing to miss.
    pub fn when_ready(&self, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = callback.py();
        let address = self.state(py).address;
        let topic = self.topic.as_ref().map(|topic| topic.bind(py));
        address.map_or(Ok(0), |address| {
            let (hub, session_id) = (self.hub.bind(py), self.session_id.bind(py));
            when_ready(hub, address, session_id, topic, callback)
        })
    }

    /// `callback` is not to be called any more.
    pub fn forget_ready(&self, callback: &Bound<'_, PyAny>) {
        forget_ready(self.hub.get(), callback);
    }

    /// Leaves word how the reader is to be woken, unless there is a reason not to wait.
    pub fn wait(&self, py: Python<'_>, waiter: Waiter) -> Option<Ticket> {
        let waiter = {
            let mut state = self.state(py);
            if state.phase == Phase::Open && state.queue.is_empty() && state.reader.is_none() {
                state.last_ticket += 1;
                state.reader = Some(state.last_ticket);
                state.word = Some(Word {
                    ticket: state.last_ticket,
                    waiter,
                    phase: state.phase,
                });
                return state.reader;
            }
            waiter
        };
        drop(waiter);
        None
    }

    /// Enters that a reader waits no more.
    pub fn give_up(&self, py: Python<'_>, ticket: Ticket) {
        let word = {
            let mut state = self.state(py);
            if state.reader != Some(ticket) {
                return;
            }
            state.reader = None;
            state.word.take()
        };
        drop(word);
    }

    /// Messages lost so far.
    pub fn dropped(&self, py: Python<'_>) -> u64 {
        self.state(py).dropped
    }

    /// "session 'ann' on topic 'news'".
    pub fn place(&self, py: Python<'_>) -> String {
        report::place(self.session_id.bind(py), self.topic.as_ref())
    }

    // ---- the garbage collector ----------------------------------------------------------------

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)?;
        visit.call(&self.options.client)?;
        let Some(state) = self.state.try_lock() else {
            return Ok(());
        };
        state
            .queue
            .iter()
            .try_for_each(|message| visit.call(&**message))?;
        state
            .word
            .as_ref()
            .map_or(Ok(()), |word| word.waiter.traverse(visit))
    }

    /// Lets go of what the garbage collector may have found in a cycle.
    pub fn clear(&self) {
        let left = self.state.try_lock().map(|mut state| {
            let left = self.forget(&mut state);
            (left, state.word.take())
        });
        drop(left);
    }

    fn forget(&self, state: &mut State) -> VecDeque<Held> {
        if self.process.is_this() {
            self.empty(state)
        } else {
            std::mem::take(&mut state.queue)
        }
    }
}

impl State {
    /// Counts losses; tells whether there is something to tell of them.
    fn lose(&mut self, count: usize, is_cut_off: bool) -> bool {
        self.dropped += count as u64;
        if is_cut_off {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.untold.push_back(Lost::Subscription(count));
            return true;
        }
        self.burst = self.burst.saturating_add(1);
        if self.burst == 1 {
            self.untold.push_back(Lost::Message);
        }
        self.burst == 1
    }

    /// Ends a burst of losses if the queue is empty again; tells whether there was one. While a whole
    /// one is still to be told, it goes on: what is to be told is bounded.
    fn catch_up(&mut self) -> bool {
        if !self.queue.is_empty() || self.untold.len() > 1 {
            return false;
        }
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue = VecDeque::new();
        }
        let burst = std::mem::take(&mut self.burst);
        if burst > 0 {
            self.untold.push_back(Lost::Burst(burst));
        }
        burst > 0
    }

    /// Takes the word of the reader, for it to be woken.
    fn take_word(&mut self) -> Option<Word> {
        let phase = self.phase;
        self.word.take().map(|word| Word { phase, ..word })
    }
}

impl Word {
    /// As [`Waiter::wake`].
    fn try_wake(&self, py: Python<'_>) -> (PyResult<bool>, PyResult<()>) {
        let (mut woken, mut outside) = self.waiter.wake(py);
        for _ in 1..ATTEMPTS {
            if woken.is_ok() {
                break;
            }
            let (again, interrupted) = self.waiter.wake(py);
            (woken, outside) = (again, outside.and(interrupted));
        }
        (woken, outside)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if self.process.is_this() {
            let left = self.state.get_mut().queue.len();
            self.hub.get().counters.subtract_unread(left);
        }
    }
}

/// Why a reader gets nothing.
enum Why {
    /// Another one waits.
    Taken,
    /// The block has not begun, or has ended.
    Outside,
}

impl Why {
    #[cold]
    fn error(&self, owner: &Bound<'_, PyAny>) -> PyErr {
        if let Self::Taken = self {
            return PyRuntimeError::new_err("another reader waits for the next message already");
        }
        let block = if owner.is_exact_instance_of::<Stream>() {
            "a Stream is read inside of `async with`"
        } else {
            "a Listener is read inside of `with`"
        };
        PyRuntimeError::new_err(format!("{block}, which begins and ends its subscription"))
    }
}
