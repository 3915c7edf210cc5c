//! A node: keeps a connection to the broker, publishes what its hub sends, follows the channels
//! that its hub has subscribers on, and hands on what comes from them, in order.

mod held;
mod hindrance;
mod lanes;
pub mod presence;
mod requests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use futures_util::StreamExt;
use once_cell::sync::OnceCell;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, interval_at, timeout_at};

use super::Channel;
use super::engine::{Engine, Failure, Page, Push};
use super::members::{self, Memberships};
use super::outbox::{Limits, Outbox};
use super::position::{Answer, Gap, Output, Placed, Position};
use super::wire::members::Read as Told;
use super::wire::{self, Publisher};
use crate::core::Name;
use crate::core::elsewhere::{Host, Membership};
use held::Held;
use hindrance::{Hindered, Hindrance};
use lanes::Lanes;
use presence::{ATTEND, Presence};
use requests::{Done, Place, Requests, after, beat, publish};

/// The time between two heart beats.
const BEAT: Duration = Duration::from_secs(1);
/// The shortest and the longest time until the next attempt to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The time until the broker is asked again for what it could not do. For what it still cannot do it
/// is asked later and later.
const LATER: Duration = Duration::from_millis(100);
/// The time until what should not be there at the broker is looked at again.
const MUCH_LATER: Duration = Duration::from_secs(2);
/// The time that a node has for what is left when nobody waits for it.
const LAST: Duration = Duration::from_secs(5);
/// Batches that are under way at once.
const UNDER_WAY: usize = 128;
/// Pushes that are taken before anything else is looked at.
const IN_A_ROW: usize = 256;

/// What a node tells its hub. It may be called while a lock is held, and must not wait.
pub trait Listener: Send + Sync {
    /// What the hub wants of a channel: nothing, if it has no subscribers there.
    fn wants(&self, channel: &Channel) -> Option<Wish>;

    /// Takes what is new.
    fn take(&self, news: News);

    /// Whether so much of that waits that more should stay at the broker for now. When that is over,
    /// the hub calls [`Handle::wake`].
    fn is_full(&self) -> bool;
}

/// What a hub wants of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The number of the visit.
    pub visit: u64,
    /// So many of the entries that are there already.
    pub past: usize,
}

/// A channel, in one of the times that a hub has subscribers there. What comes in a later one has nothing
/// to do with what came in this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The channel.
    pub channel: Channel,
    /// Which of the times.
    pub number: u64,
}

/// What is new for a hub.
#[derive(Debug)]
pub enum News {
    /// The bytes of the entries that a channel had when the node came to follow it. Comes first.
    Past(Visit, Vec<Vec<u8>>),
    /// The bytes of the next entry of a channel.
    Entry(Visit, Vec<u8>),
    /// What comes next on the channel is not what came next there.
    Gap(Visit, Gap),
    /// Said again: since the past was told, nothing that is published on the channel is missed.
    Ready(Visit),
    /// Nobody wanted the channel when the node looked.
    Unwanted(Channel),
    /// The connection is there, or gone for a reason.
    State(State),
    /// So many messages gave way to others, which begins a burst: the outbox is full.
    Overflowed(usize),
    /// The outbox is empty again, after a burst that cost so many messages.
    CaughtUp(u64),
    /// So many messages will not be published, for a reason. What the broker refuses is told once for
    /// each connection.
    Unpublished(u64, String),
    /// A push that cannot be understood.
    Garbage,
    /// The log of a channel cannot be read, for a reason; it is tried again from time to time.
    Unreadable(Channel, String),
    /// Messages wait although there is a connection, for a reason.
    Hindered(String),
    /// That is over.
    Unhindered,
    /// Everybody who is on a topic on other hubs.
    Everybody(Name, Vec<Told>),
    /// How it is now with some of them.
    Members(Name, Vec<Told>),
    /// What was told by a connection of another hub holds no longer.
    Died(Host),
    /// Other hubs are not told who is here, for a reason.
    Untold(String),
}

/// How a node stands to its broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a connection.
    Connected,
    /// It has none, for a reason, and tries to get one.
    Disconnected(String),
    /// It is closed.
    Closed,
}

/// The hub's side of a node.
pub struct Handle {
    desk: Mutex<Desk>,
    /// Told when there is room in the outbox.
    room: Condvar,
    /// The node's name.
    publisher: Publisher,
    wake: Notify,
    is_closing: AtomicBool,
    /// Since when nobody waits for its end.
    left_alone: OnceCell<Instant>,
    given_up: AtomicBool,
}

/// What lies between a hub's threads and its node.
struct Desk {
    outbox: Outbox,
    /// Who is on which topic, if other hubs are told that.
    members: Option<Memberships>,
    /// Channels on which subscribers came or went.
    changed: HashSet<Channel, RandomState>,
    /// Messages that were given up.
    lost: u64,
    /// Those of them that gave way to others since the outbox was empty.
    burst: u64,
    /// The node has ended: nobody comes for anything.
    is_closed: bool,
}

/// A message that is to be published.
pub struct Outgoing<'a> {
    /// Where.
    pub channel: Channel,
    /// The session that does not get it.
    pub except: Option<&'a [u8]>,
    /// What the codec made of it.
    pub payload: Vec<u8>,
}

/// What became of a message that was to give way to those that wait.
pub enum Offered<'a> {
    /// It is in the outbox.
    Taken,
    /// There was no room for it.
    Left(Outgoing<'a>),
    /// The node has ended.
    Closed,
}

impl Desk {
    fn has_room(&self, outgoing: &Outgoing<'_>) -> bool {
        let Outgoing {
            channel,
            except,
            payload,
        } = outgoing;
        self.outbox.has_room(channel, *except, payload)
    }

    fn send(&mut self, outgoing: Outgoing<'_>) -> usize {
        let Outgoing {
            channel,
            except,
            payload,
        } = outgoing;
        self.outbox.send(&channel, except, payload)
    }

    /// So many messages gave way; tells whether they are the first of a burst.
    fn give_way(&mut self, count: usize) -> bool {
        let is_first = count > 0 && self.burst == 0;
        self.lost += count as u64;
        self.burst += count as u64;
        is_first
    }

    /// The size of a burst that is over, if one is.
    fn caught_up(&mut self) -> Option<u64> {
        let is_over = self.outbox.is_empty() && self.burst > 0;
        is_over.then(|| std::mem::take(&mut self.burst))
    }

    /// Whether a node that is to end has nothing left to do.
    fn is_done(&mut self) -> bool {
        let members_are_done = self.members.as_mut().is_none_or(|members| {
            members.leave();
            members.is_done()
        });
        self.outbox.is_empty() && members_are_done
    }
}

impl Handle {
    /// For a node with that name.
    pub fn new(publisher: Publisher, limits: Limits) -> Self {
        Self {
            desk: Mutex::new(Desk {
                outbox: Outbox::new(publisher, limits),
                members: None,
                changed: HashSet::default(),
                lost: 0,
                burst: 0,
                is_closed: false,
            }),
            room: Condvar::new(),
            publisher,
            wake: Notify::new(),
            is_closing: AtomicBool::new(false),
            left_alone: OnceCell::new(),
            given_up: AtomicBool::new(false),
        }
    }

    /// Publishes a message, as soon as that is possible, unless the node has ended: then it returns
    /// false. If others gave way to it, and begin a burst, the listener is told.
    pub fn publish(&self, outgoing: Outgoing<'_>, listener: &impl Listener) -> bool {
        {
            let mut desk = self.desk.lock();
            if desk.is_closed {
                return false;
            }
            let lost = desk.send(outgoing);
            if desk.give_way(lost) {
                // With the lock held: or the end of the burst could be told before its beginning.
                listener.take(News::Overflowed(lost));
            }
        }
        self.wake.notify_one();
        true
    }

    /// Publishes a message when there is room for it, and waits so long for that.
    pub fn offer<'a>(&self, outgoing: Outgoing<'a>, patience: Duration) -> Offered<'a> {
        let limit = std::time::Instant::now() + patience;
        {
            let mut desk = self.desk.lock();
            while !desk.is_closed && !desk.has_room(&outgoing) {
                if self.room.wait_until(&mut desk, limit).timed_out() {
                    return Offered::Left(outgoing);
                }
            }
            if desk.is_closed {
                return Offered::Closed;
            }
            desk.send(outgoing);
        }
        self.wake.notify_one();
        Offered::Taken
    }

    /// Waits until everything is published, or given up, but no longer than so long; tells whether
    /// that is so.
    pub fn wait_until_empty(&self, patience: Duration) -> bool {
        let limit = std::time::Instant::now() + patience;
        let mut desk = self.desk.lock();
        while !desk.outbox.is_empty() {
            if self.room.wait_until(&mut desk, limit).timed_out() {
                return false;
            }
        }
        true
    }

    /// A batch is published, or refused; returns how many messages it had.
    fn done(&self, channel: &Channel, is_refused: bool, listener: &impl Listener) -> u64 {
        let mut desk = self.desk.lock();
        let messages = desk.outbox.done(channel) as u64;
        if is_refused {
            desk.lost += messages;
        }
        if let Some(burst) = desk.caught_up() {
            listener.take(News::CaughtUp(burst));
        }
        self.room.notify_all();
        messages
    }

    /// Has other hubs told who is on which topic. Must come before the node is made.
    pub fn share_presence(&self) {
        self.desk.lock().members = Some(Memberships::default());
    }

    /// Says how it is with sessions now.
    pub fn note_members(&self, memberships: Vec<Membership>) {
        if let Some(members) = &mut self.desk.lock().members {
            for membership in memberships {
                members.note(membership);
            }
        }
        self.wake.notify_one();
    }

    fn next_members(&self) -> Option<members::Batch> {
        self.desk.lock().members.as_mut()?.next_batch()
    }

    /// Says that the first subscriber came to a channel, or the last one went.
    pub fn changed(&self, channel: Channel) {
        self.desk.lock().changed.insert(channel);
        self.wake.notify_one();
    }

    /// Has the node look at what there is to do.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Messages that are not published yet, and that never will be.
    pub fn unpublished(&self) -> (usize, u64) {
        let desk = self.desk.lock();
        (desk.outbox.len(), desk.lost)
    }

    /// Ends the node once everything is published: somebody waits for that.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends the node once everything is published, or in [`LAST`]: nobody waits for it any more.
    pub fn leave_alone(&self) {
        self.left_alone.get_or_init(Instant::now);
        self.close();
    }

    /// Enters that there is no node; returns how many messages it leaves, with those that gave way
    /// in a burst that goes on.
    pub fn end(&self) -> u64 {
        let mut desk = self.desk.lock();
        desk.is_closed = true;
        let left = desk.outbox.clear() as u64;
        desk.lost += left;
        self.room.notify_all();
        left + std::mem::take(&mut desk.burst)
    }

    /// Ends the node, whatever is left.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.close();
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        let is_too_late = |since: &Instant| since.elapsed() > LAST;
        self.is_closing()
            && (self.given_up.load(Ordering::Acquire)
                || self.left_alone.get().is_some_and(is_too_late)
                || self.desk.lock().is_done())
    }
}

/// How far a node is with a channel.
enum Stage {
    Subscribing,
    /// The subscription has ended before it was confirmed: then it is made again.
    Ended,
    Following,
    Leaving,
}

struct Followed {
    stage: Stage,
    position: Position<Vec<u8>>,
    /// The past was told.
    is_ready: bool,
    /// It was told that the log cannot be read.
    is_unreadable: bool,
    /// It is to be read when it is its turn.
    is_waiting: bool,
    /// Which of the times is this that the channel is subscribed to.
    turn: u64,
    /// The hub's visit.
    visit: u64,
}

impl Followed {
    fn visit_of(&self, channel: &Channel) -> Visit {
        Visit {
            channel: channel.clone(),
            number: self.visit,
        }
    }
}

/// A node of linked hubs.
pub struct Node<E, L> {
    engine: E,
    listener: Arc<L>,
    handle: Arc<Handle>,
    followed: HashMap<Channel, Followed, RandomState>,
    lanes: Lanes,
    held: Held,
    turns: u64,
    hindrance: Hindrance,
    /// It was told that the broker refuses messages.
    has_told_refusal: bool,
    /// Who is on other hubs, if they tell each other.
    presence: Option<Presence>,
}

/// Why a node no longer serves a connection.
enum End {
    Closed,
    Lost(String),
}

impl<E: Engine, L: Listener> Node<E, L> {
    /// A node that is not connected yet.
    pub fn new(engine: E, listener: Arc<L>, handle: Arc<Handle>) -> Self {
        let shares_presence = handle.desk.lock().members.is_some();
        let presence = shares_presence.then(|| Presence::new(handle.publisher));
        Self {
            engine,
            listener,
            handle,
            followed: HashMap::default(),
            lanes: Lanes::default(),
            held: Held::default(),
            turns: 0,
            hindrance: Hindrance::default(),
            has_told_refusal: false,
            presence,
        }
    }

    /// Connects, again and again, until the hub is closed.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        while !self.handle.is_over() {
            let (pushes, received) = unbounded_channel();
            let since = Instant::now();
            let end = match self.connect(pushes).await {
                Ok(connection) => self.serve(&connection, received).await,
                Err(failure) => End::Lost(failure.reason().to_owned()),
            };
            self.absent();
            self.forget_unwanted();
            match end {
                End::Closed => break,
                End::Lost(reason) => self.tell(News::State(State::Disconnected(reason))),
            }
            backoff.wait(&self.handle, since.elapsed()).await;
        }
        let left = self.handle.end();
        if left > 0 {
            self.tell(News::Unpublished(left, "the hub is closed".to_owned()));
        }
        self.tell(News::State(State::Closed));
    }

    /// Lets go of channels to which subscribers came, and from which they went again, while there was no
    /// connection: there may be any number.
    fn forget_unwanted(&self) {
        let changed = std::mem::take(&mut self.handle.desk.lock().changed);
        let is_needed = |channel: &Channel| {
            self.followed.contains_key(channel) || self.listener.wants(channel).is_some()
        };
        let (kept, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(is_needed);
        self.handle.desk.lock().changed.extend(kept);
        for channel in gone {
            self.tell(News::Unwanted(channel));
        }
    }

    /// Ends it before it began.
    pub fn fail(&self, reason: &str) {
        self.handle.end();
        self.tell(News::State(State::Disconnected(reason.to_owned())));
        self.tell(News::State(State::Closed));
    }

    async fn connect(
        &self,
        pushes: tokio::sync::mpsc::UnboundedSender<Push>,
    ) -> Result<E::Connection, Failure> {
        let limit = Instant::now() + BACKOFF.1;
        let connection = timeout_at(limit, self.engine.connect(pushes)).await;
        connection.unwrap_or_else(|_| Err(Failure::Disconnected("no answer".to_owned())))
    }

    fn tell(&self, news: News) {
        self.listener.take(news);
    }

    /// Does what there is to do on a connection.
    async fn serve(
        &mut self,
        connection: &E::Connection,
        mut pushes: UnboundedReceiver<Push>,
    ) -> End {
        let mut requests = Requests::new();
        let mut under_way = 0;
        self.attend_anew(connection, &mut requests);
        self.begin_again(connection);
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut attend = interval_at(Instant::now() + ATTEND, ATTEND);
        attend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut received = Vec::new();
        self.tell(News::State(State::Connected));
        loop {
            self.look_at_changes(connection);
            self.take_turns(connection, &mut requests);
            while under_way < UNDER_WAY
                && let Some(batch) = self.next_batch()
            {
                under_way += 1;
                requests.push(publish(connection, batch));
            }
            if self.handle.is_over() {
                return End::Closed;
            }
            self.put_members(connection, &mut requests);
            // Pushes first: those that came before an answer are here before it.
            tokio::select! {
                biased;
                count = pushes.recv_many(&mut received, IN_A_ROW) => {
                    let mut is_lost = count == 0;
                    for push in received.drain(..) {
                        match push {
                            Push::Lost => is_lost = true,
                            Push::Garbage => self.tell(News::Garbage),
                            Push::Ended(channel) => self.ended(channel, connection),
                            Push::Entry(Channel::Presence(topic), id, changes) => {
                                self.pushed_members(&topic, id, &changes, connection);
                            }
                            Push::Entry(channel, id, entry) => {
                                self.pushed(channel, wire::place(id, entry), connection);
                            }
                        }
                    }
                    if is_lost {
                        return End::Lost("the connection was closed".to_owned());
                    }
                }
                Some(done) = requests.next() => {
                    if let Done::Published(..) = done {
                        under_way -= 1;
                    }
                    if let Err(reason) = self.done(done, connection, &mut requests) {
                        return End::Lost(reason);
                    }
                }
                () = self.handle.wake.notified() => {}
                _ = beats.tick() => requests.push(beat(connection)),
                _ = attend.tick(), if self.presence.is_some() => {
                    self.attend(connection, &mut requests, None);
                }
            }
        }
    }

    /// Tries again what was under way on another connection, and follows what it followed.
    fn begin_again(&mut self, connection: &E::Connection) {
        self.handle.desk.lock().outbox.all_again();
        self.has_told_refusal = false;
        self.held = Held::default();
        self.lanes = Lanes::default();
        self.hindrance.begin_again();
        let is_left =
            |_: &Channel, followed: &mut Followed| matches!(followed.stage, Stage::Leaving);
        let left: Vec<_> = self.followed.extract_if(is_left).collect();
        for (channel, followed) in &mut self.followed {
            followed.stage = Stage::Subscribing;
            followed.is_waiting = false;
            self.lanes.subscribe(connection, channel.clone());
        }
        for (channel, _) in left {
            // Somebody may have come back meanwhile.
            self.follow_or_leave(channel, connection);
        }
    }

    fn look_at_changes(&mut self, connection: &E::Connection) {
        let changed = std::mem::take(&mut self.handle.desk.lock().changed);
        for channel in changed {
            self.follow_or_leave(channel, connection);
        }
    }

    fn follow_or_leave(&mut self, channel: Channel, connection: &E::Connection) {
        self.held.let_out(&channel);
        let Some(wish) = self.listener.wants(&channel) else {
            return self.leave(channel, connection);
        };
        let Some(followed) = self.followed.get_mut(&channel) else {
            return self.follow(channel, wish, connection);
        };
        let (is_new, is_ready) = (followed.visit != wish.visit, followed.is_ready);
        match followed.stage {
            Stage::Subscribing | Stage::Ended if is_new => self.begin_visit(&channel, wish),
            Stage::Following if is_new => {
                self.begin_visit(&channel, wish);
                self.read_on(channel, connection);
            }
            Stage::Following if is_ready => {
                let number = wish.visit;
                self.tell(News::Ready(Visit { channel, number }));
            }
            // That comes to an end first.
            Stage::Leaving | Stage::Following | Stage::Subscribing | Stage::Ended => {}
        }
    }

    fn follow(&mut self, channel: Channel, wish: Wish, connection: &E::Connection) {
        self.turns += 1;
        let followed = Followed {
            stage: Stage::Subscribing,
            position: Position::new(wish.past),
            is_ready: false,
            is_unreadable: false,
            is_waiting: false,
            turn: self.turns,
            visit: wish.visit,
        };
        self.followed.insert(channel.clone(), followed);
        self.lanes.subscribe(connection, channel);
    }

    /// The hub's subscribers have gone and others have come, before the node left the channel.
    fn begin_visit(&mut self, channel: &Channel, wish: Wish) {
        self.turns += 1;
        if let Some(followed) = self.followed.get_mut(channel) {
            if !matches!(channel, Channel::Presence(_)) {
                // The answer to an earlier read is not one for this visit.
                followed.turn = self.turns;
                followed.is_waiting = false;
            }
            followed.position = Position::new(wish.past);
            followed.is_ready = false;
            followed.visit = wish.visit;
        }
    }

    /// Reads a channel's log from where the node is, or from its end if that is nowhere.
    fn read_on(&mut self, channel: Channel, connection: &E::Connection) {
        if let Channel::Presence(topic) = &channel {
            return self.read_members(topic, connection);
        }
        self.turns += 1;
        if let Some(followed) = self.followed.get_mut(&channel) {
            // What has the log read already, must not get the answer to a later read.
            followed.turn = self.turns;
            let read = followed.position.subscribed();
            let place = (channel, followed.turn);
            self.read(place, read, connection);
        }
    }

    fn leave(&mut self, channel: Channel, connection: &E::Connection) {
        if let Some(followed) = self.followed.get_mut(&channel)
            && matches!(followed.stage, Stage::Following)
        {
            followed.stage = Stage::Leaving;
            self.lanes.unsubscribe(connection, channel.clone());
        }
        self.tell(News::Unwanted(channel));
    }

    /// Subscribes again to what the broker does not push any more.
    fn ended(&mut self, channel: Channel, connection: &E::Connection) {
        let Some(followed) = self.followed.get_mut(&channel) else {
            return;
        };
        match followed.stage {
            Stage::Following => {
                followed.stage = Stage::Subscribing;
                self.lanes.subscribe(connection, channel);
            }
            // The answer may be from before.
            Stage::Subscribing => followed.stage = Stage::Ended,
            Stage::Ended | Stage::Leaving => {}
        }
    }

    fn pushed(&mut self, channel: Channel, placed: Placed<Vec<u8>>, connection: &E::Connection) {
        let Some(followed) = self.followed.get_mut(&channel) else {
            return;
        };
        if followed.reads_it_later() {
            return;
        }
        let listener = &self.listener;
        let read = if listener.is_full() {
            followed.position.skip()
        } else {
            let visit = followed.visit_of(&channel);
            let mut output = |output| listener.take(news(visit.clone(), output));
            followed.position.push(placed, &mut output)
        };
        if let Some(read) = read {
            let place = (channel, followed.turn);
            self.read(place, read, connection);
        }
    }

    fn done<'a>(
        &mut self,
        done: Done,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) -> Result<(), String> {
        match done {
            Done::Published(channel, result) => {
                return self.published(channel, result, requests);
            }
            Done::Subscribed(channel, Ok(())) => {
                if let Some(followed) = self.followed.get_mut(&channel) {
                    if matches!(followed.stage, Stage::Ended) {
                        followed.stage = Stage::Subscribing;
                        self.lanes.subscribe(connection, channel);
                        return Ok(());
                    }
                    followed.stage = Stage::Following;
                }
                self.follow_members(&channel);
                self.read_on(channel.clone(), connection);
                self.follow_or_leave(channel, connection);
            }
            Done::Unsubscribed(channel, Ok(())) => {
                self.not_hindered(&Hindered::Read(channel.clone()));
                self.followed.remove(&channel);
                self.forget_members(&channel);
                self.follow_or_leave(channel, connection);
            }
            Done::Presence(answer) => {
                return self.answered_members(answer, connection, requests);
            }
            Done::Read(place, Ok(answer)) => {
                self.answered(place, answer, connection);
            }
            Done::Beaten(Ok(())) => {}
            Done::Later(done) => self.try_again(*done, connection, requests),
            Done::Read(place, Err(Failure::NotNow(reason))) => {
                let later = self.hindered(Hindered::Read(place.0.clone()), &reason);
                requests.push(after(
                    later,
                    Done::Read(place, Err(Failure::NotNow(reason))),
                ));
            }
            Done::Read(place, Err(Failure::Refused(reason))) => {
                self.unreadable(&place, &reason);
                requests.push(after(
                    MUCH_LATER,
                    Done::Read(place, Err(Failure::Refused(reason))),
                ));
            }
            Done::Subscribed(channel, Err(Failure::Refused(reason))) => {
                self.refused(&channel, &reason);
                let done = Done::Subscribed(channel, Err(Failure::Refused(reason)));
                requests.push(after(MUCH_LATER, done));
            }
            Done::Subscribed(_, Err(ref failure))
            | Done::Unsubscribed(_, Err(ref failure))
            | Done::Read(_, Err(ref failure))
            | Done::Beaten(Err(ref failure)) => match failure {
                Failure::NotNow(_) => requests.push(after(LATER, done)),
                Failure::Disconnected(reason) | Failure::Refused(reason) => {
                    return Err(reason.clone());
                }
            },
        }
        Ok(())
    }

    fn published(
        &mut self,
        channel: Channel,
        result: Result<(), Failure>,
        requests: &mut Requests<'_>,
    ) -> Result<(), String> {
        match result {
            Ok(()) => {
                self.handle.done(&channel, false, &*self.listener);
                self.not_hindered(&Hindered::Publish(channel));
            }
            Err(Failure::Refused(reason)) => {
                let lost = self.handle.done(&channel, true, &*self.listener);
                self.not_hindered(&Hindered::Publish(channel));
                // Once: somebody may send there all the time.
                if !std::mem::replace(&mut self.has_told_refusal, true) {
                    self.tell(News::Unpublished(lost, reason));
                }
            }
            Err(failure @ Failure::NotNow(_)) => {
                let what = Hindered::Publish(channel.clone());
                let later = self.hindered(what, failure.reason());
                requests.push(after(later, Done::Published(channel, Err(failure))));
            }
            Err(Failure::Disconnected(reason)) => return Err(reason),
        }
        Ok(())
    }

    fn unreadable(&mut self, place: &Place, reason: &str) {
        if self.followed_at(place).is_some() {
            self.refused(&place.0, reason);
        }
    }

    /// It concerns that channel alone.
    fn refused(&mut self, channel: &Channel, reason: &str) {
        self.held.let_out(channel);
        let followed = self.followed.get_mut(channel);
        if followed.is_some_and(|followed| !std::mem::replace(&mut followed.is_unreadable, true)) {
            self.tell(News::Unreadable(channel.clone(), reason.to_owned()));
        }
    }

    fn try_again<'a>(
        &mut self,
        done: Done,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        match done {
            Done::Published(channel, _) => self.handle.desk.lock().outbox.again(&channel),
            Done::Subscribed(channel, Err(Failure::Refused(_)))
                if self.listener.wants(&channel).is_none() =>
            {
                self.followed.remove(&channel);
            }
            Done::Subscribed(channel, _) => self.lanes.subscribe(connection, channel),
            Done::Unsubscribed(channel, _) => {
                if let Some(followed) = self.followed.get_mut(&channel) {
                    followed.stage = Stage::Following;
                }
                self.follow_or_leave(channel, connection);
            }
            Done::Read(place, _) => {
                if self.followed_at(&place).is_some() {
                    self.read_on(place.0, connection);
                }
            }
            Done::Presence(answer) => self.members_again(answer, connection, requests),
            Done::Beaten(_) | Done::Later(_) => {}
        }
    }

    /// What is followed there, unless that was another time.
    fn followed_at(&mut self, (channel, turn): &Place) -> Option<&mut Followed> {
        let followed = self.followed.get_mut(channel);
        followed.filter(|followed| followed.turn == *turn)
    }

    fn answered(&mut self, place: Place, answer: Answer<Vec<u8>>, connection: &E::Connection) {
        let listener = self.listener.clone();
        self.not_hindered(&Hindered::Read(place.0.clone()));
        self.held.let_out(&place.0);
        let Some(followed) = self.followed_at(&place) else {
            return;
        };
        (followed.is_ready, followed.is_unreadable) = (true, false);
        let visit = followed.visit_of(&place.0);
        let mut output = |output| listener.take(news(visit.clone(), output));
        let page = if answer.more {
            Page::Large
        } else {
            Page::Small
        };
        if followed.position.answer(answer, &mut output).is_some() {
            self.read_page(place, page, connection);
        }
    }
}

fn news(visit: Visit, output: Output<Vec<u8>>) -> News {
    match output {
        Output::Past(entries) => News::Past(visit, entries),
        Output::Entry(entry) => News::Entry(visit, entry),
        Output::Gap(gap) => News::Gap(visit, gap),
        Output::Stray => News::Garbage,
    }
}

/// The time between attempts to connect: longer and longer, and not the same for all nodes.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: BACKOFF.0 }
    }

    async fn wait(&mut self, handle: &Handle, connected: Duration) {
        if connected > BACKOFF.1 {
            self.next = BACKOFF.0;
        }
        let until = Instant::now() + self.next.mul_f64(0.5 + 0.5 * random());
        self.next = (self.next * 2).min(BACKOFF.1);
        while !handle.is_over() {
            // What is sent meanwhile wakes the node as well; there is nothing to be done for it.
            if timeout_at(until, handle.wake.notified()).await.is_err() {
                break;
            }
        }
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let number = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(number) / f64::from(u32::MAX)
}
