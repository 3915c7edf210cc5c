//! How far a node is in a channel: which entries come next, which it has had, which are missing.
//!
//! Entries are numbered without holes, so a hole is a push that got lost on the way: the node reads
//! the log from where it was. It has a look at what it has had, too, to see that this still stands
//! there: a broker that fell over to a replica may have forgotten the last of it.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use super::wire::Publisher;

/// The place of an entry in its channel's log. Places rise; in one epoch they have no holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// When the broker began the log, in milliseconds since 1970.
    pub epoch: u64,
    /// Entries in it up to this one.
    pub number: u64,
}

impl Id {
    /// Before everything: where a node is in a channel on which nothing was published yet.
    const START: Self = Self {
        epoch: 0,
        number: 0,
    };
}

/// What stands at a place: no two entries have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Who published it.
    pub publisher: Publisher,
    /// The number of its last message.
    pub sequence: u64,
}

/// An entry with its place; `E` is what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<E> {
    /// Where it stands.
    pub id: Id,
    /// By what it is recognised; entries that cannot be read have none.
    pub mark: Option<Mark>,
    /// What is in it.
    pub entry: E,
}

/// Entries that a node has missed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// So many: the log was trimmed past them.
    Entries(u64),
    /// Nobody knows how many: the broker has lost what it had taken.
    Unknown,
}

/// What a node gets of a channel, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<E> {
    /// What was there before the node came, in order: as much as it asked for. Comes first, and once.
    Past(Vec<E>),
    /// The next entry.
    Entry(E),
    /// What comes after it is not the next.
    Gap(Gap),
    /// A push that the log knows nothing of.
    Stray,
}

/// An answer to a read of the log.
#[derive(Clone, Debug)]
pub struct Answer<E> {
    /// The last place in the log, if there is one.
    pub top: Option<Id>,
    /// Entries from the place that was asked for, in order.
    pub entries: Vec<Placed<E>>,
    /// Whether there are more.
    pub more: bool,
}

/// What to read of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The last entries, at least one: where the log ends. The answer need not have more than their
    /// marks, unless they are wanted.
    Last {
        /// So many.
        count: usize,
        /// Whether they are to be handed on.
        are_wanted: bool,
    },
    /// From a place on. Up to another one it is known what should stand there: of these entries the
    /// answer need not have more than their marks.
    From {
        /// The first.
        first: Id,
        /// The last that is known.
        known: Id,
    },
}

/// So many entries that were handed on are remembered.
pub const REMEMBERED: usize = 32;
/// So many pushes are held while the log is read; later ones are in the log as well.
const HELD: usize = 1024;

/// A node's position in one channel.
pub struct Position<E> {
    /// So many entries are wanted of what was there before.
    past: usize,
    /// The last entries that were handed on, in order.
    recent: VecDeque<(Id, Option<Mark>)>,
    /// Some that were handed on, and which the broker has lost: whoever was not told that they are
    /// published publishes them again.
    undone: VecDeque<Mark>,
    /// Pushes that wait for the answer to a read.
    held: VecDeque<Placed<E>>,
    reading: Option<Read>,
    /// Those of them that came before the read: what is not in the log then, is nowhere.
    doubtful: usize,
    /// Pushes were let go of while the log was read.
    has_let_go: bool,
}

/// How a place stands to the last one.
enum Order {
    Next,
    Had,
    Later,
}

impl<E> Position<E> {
    /// That of a node which is about to subscribe, and wants so many of the entries that are there.
    pub fn new(past: usize) -> Self {
        Self {
            past,
            recent: VecDeque::new(),
            undone: VecDeque::new(),
            held: VecDeque::new(),
            reading: None,
            doubtful: 0,
            has_let_go: false,
        }
    }

    /// The place of the last entry that was handed on.
    pub fn last(&self) -> Option<Id> {
        self.recent.back().map(|(id, _)| *id)
    }

    /// The broker has confirmed the subscription, for the first time or anew: pushes come from now
    /// on, if not before, and answers to earlier reads do not come any more.
    pub fn subscribed(&mut self) -> Read {
        // What was pushed before the first read is where this begins. Later, all of it is read again.
        if !self.recent.is_empty() {
            self.held.clear();
        }
        self.read()
    }

    /// Takes a push; tells what to read, if entries before it are missing.
    pub fn push(&mut self, placed: Placed<E>, output: &mut impl FnMut(Output<E>)) -> Option<Read> {
        if self.recent.is_empty() || matches!(self.reading, Some(Read::From { .. })) {
            self.hold(placed);
            return None;
        }
        match self.order(placed.id) {
            Order::Next => self.hand_on(placed, output),
            Order::Had => {}
            Order::Later => {
                self.hold(placed);
                if self.reading.is_none() {
                    return Some(self.read());
                }
            }
        }
        None
    }

    /// Lets a push go, which is to be read later; tells what to read then.
    pub fn skip(&mut self) -> Option<Read> {
        if self.reading.is_some() {
            self.has_let_go = true;
            return None;
        }
        Some(self.read())
    }

    /// What was to be read is read only now: what was pushed since then stands in the log.
    pub fn read_now(&mut self) -> Option<Read> {
        let first = match self.reading? {
            Read::From { first, .. } => Some(first),
            Read::Last { .. } => None,
        };
        let has_let_go = self.has_let_go;
        let read = self.read_from(first);
        // What follows what was held is not handed on with the end of the log.
        self.has_let_go = has_let_go;
        Some(read)
    }

    /// Takes the answer to a read; tells what to read next, if that was not all.
    pub fn answer(
        &mut self,
        answer: Answer<E>,
        output: &mut impl FnMut(Output<E>),
    ) -> Option<Read> {
        let read = self.reading.take()?;
        let more = answer.more;
        match read {
            Read::Last { .. } => self.begin_at(answer, output),
            Read::From { .. } if !self.go_through(answer, output) => return Some(self.read()),
            // On this connection, what stood there before stands there still.
            Read::From { .. } if more => return Some(self.read_from(self.last())),
            Read::From { .. } => {}
        }
        self.release(output)
    }

    fn read(&mut self) -> Read {
        self.read_from(self.recent.front().map(|(id, _)| *id))
    }

    fn read_from(&mut self, first: Option<Id>) -> Read {
        self.has_let_go = false;
        self.doubtful = self.held.len();
        let read = match first.zip(self.last()) {
            Some((first, known)) => Read::From { first, known },
            // What was pushed already is none of the past.
            None => Read::Last {
                count: self.past.max(1).saturating_add(self.held.len()),
                are_wanted: self.past > 0,
            },
        };
        self.reading = Some(read);
        read
    }

    fn hold(&mut self, placed: Placed<E>) {
        if self.held.len() < HELD {
            self.held.push_back(placed);
        } else {
            self.has_let_go = true;
        }
    }

    /// Goes on with what was held.
    fn release(&mut self, output: &mut impl FnMut(Output<E>)) -> Option<Read> {
        while let Some(placed) = self.held.pop_front() {
            let is_doubtful = self.doubtful > 0;
            self.doubtful = self.doubtful.saturating_sub(1);
            match self.order(placed.id) {
                Order::Next => self.hand_on(placed, output),
                Order::Had => {}
                Order::Later if is_doubtful => output(Output::Stray),
                Order::Later => {
                    self.held.push_front(placed);
                    return Some(self.read());
                }
            }
        }
        self.has_let_go.then(|| self.read())
    }

    fn order(&self, id: Id) -> Order {
        match self.last() {
            None => Order::Next,
            Some(last) if id <= last => Order::Had,
            Some(last) if is_next(last, id) => Order::Next,
            Some(_) => Order::Later,
        }
    }

    fn hand_on(&mut self, placed: Placed<E>, output: &mut impl FnMut(Output<E>)) {
        self.remember(placed.id, placed.mark);
        let undone = |undone: &Mark| Some(*undone) == placed.mark;
        match self.undone.iter().position(undone) {
            Some(again) => drop(self.undone.remove(again)),
            None => output(Output::Entry(placed.entry)),
        }
    }

    /// What was handed on from that one on does not stand in the log.
    fn undo(&mut self, from: usize) {
        let undone = self.recent.drain(from..);
        self.undone.extend(undone.filter_map(|(_, mark)| mark));
        let too_many = self.undone.len().saturating_sub(REMEMBERED);
        self.undone.drain(..too_many);
    }

    fn remember(&mut self, id: Id, mark: Option<Mark>) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((id, mark));
    }

    /// What stands in the log when a node comes is its past, up to what was pushed since then.
    fn begin_at(&mut self, answer: Answer<E>, output: &mut impl FnMut(Output<E>)) {
        let (top, mut entries) = (answer.top.unwrap_or(Id::START), answer.entries);
        self.forget_strays(top, output);
        if let Some(pushed) = self.held.front() {
            entries.retain(|placed| placed.id < pushed.id);
        }
        match entries.last() {
            Some(last) => self.remember(last.id, last.mark),
            None if self.held.is_empty() => self.remember(top, None),
            None => {}
        }
        let past = entries.len().saturating_sub(self.past);
        let entries = entries.drain(past..).map(|placed| placed.entry);
        output(Output::Past(entries.collect()));
    }

    /// What was pushed before the log was read, and cannot be in it, is nowhere.
    fn forget_strays(&mut self, top: Id, output: &mut impl FnMut(Output<E>)) {
        let doubtful = self.doubtful.min(self.held.len());
        let later = self.held.split_off(doubtful);
        let before = self.held.len();
        self.held
            .retain(|placed| placed.id.epoch == top.epoch && placed.id <= top);
        self.doubtful = self.held.len();
        for _ in self.held.len()..before {
            output(Output::Stray);
        }
        self.held.extend(later);
    }

    /// Hands on what the log has and the node has not had; or tells that it has to be read from another
    /// place, since what the node has had stands there no more.
    fn go_through(&mut self, answer: Answer<E>, output: &mut impl FnMut(Output<E>)) -> bool {
        let mut entries = answer.entries.into_iter().peekable();
        let Some(first) = entries.peek().map(|first| first.id) else {
            self.end_at(answer.top, output);
            return true;
        };
        let known = self.recent.iter().position(|(id, _)| *id >= first);
        let known = known.unwrap_or(self.recent.len());
        let agreeing = self.recent.iter().skip(known).take_while(|(id, mark)| {
            let is_there = |there: &Placed<E>| there.id == *id && is_same(there.mark, *mark);
            entries.next_if(is_there).is_some()
        });
        let agreed = known + agreeing.count();
        if agreed < self.recent.len() {
            if agreed > known {
                self.undo(agreed);
            } else {
                self.undo(0);
                self.remember(before(first), None);
            }
            output(Output::Gap(Gap::Unknown));
            return false;
        }
        if known == agreed {
            // All that the node has had is trimmed.
            self.tell_missing(first, output);
        }
        for placed in entries {
            self.hand_on(placed, output);
        }
        true
    }

    /// Nothing that the node has had stands in the log, nor anything else.
    fn end_at(&mut self, top: Option<Id>, output: &mut impl FnMut(Output<E>)) {
        let top = top.unwrap_or(Id::START);
        match self.last() {
            Some(last) if last == top => return,
            Some(last) if last.epoch == top.epoch && last < top => {
                output(Output::Gap(Gap::Entries(top.number - last.number)));
            }
            _ => output(Output::Gap(Gap::Unknown)),
        }
        self.undo(0);
        self.remember(top, None);
    }

    fn tell_missing(&mut self, next: Id, output: &mut impl FnMut(Output<E>)) {
        match self.last() {
            Some(last) if is_next(last, next) => {}
            Some(last) if last.epoch == next.epoch || last == Id::START => {
                output(Output::Gap(Gap::Entries(
                    next.number.saturating_sub(last.number + 1),
                )));
            }
            _ => output(Output::Gap(Gap::Unknown)),
        }
        self.undo(0);
    }
}

fn before(id: Id) -> Id {
    let number = id.number.saturating_sub(1);
    Id { number, ..id }
}

fn is_next(last: Id, next: Id) -> bool {
    let is_same_log = last.epoch == next.epoch || last == Id::START;
    is_same_log && last.number.checked_add(1) == Some(next.number)
}

fn is_same(one: Option<Mark>, other: Option<Mark>) -> bool {
    one.is_none() || other.is_none() || one == other
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.number)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, number) = text.split_once('-').ok_or(())?;
        Ok(Self {
            epoch: epoch.parse().map_err(|_| ())?,
            number: number.parse().map_err(|_| ())?,
        })
    }
}
