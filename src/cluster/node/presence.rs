//! Who is on which topic on other hubs: how a node puts its own there, and follows the others'.
//!
//! What was put holds for as long as the connection that put it is alive: each enters itself every
//! few seconds among those who are. One that was taken for dead meanwhile, or that is new, has
//! another number, and puts everything again. So nothing that comes late from a dead one matters.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use futures_util::future::LocalBoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};

use super::requests::{Done, Place, Requests, after};
use super::{LATER, Listener, News, Node, Stage, random};
use crate::cluster::Channel;
use crate::cluster::engine::{Attendance, Engine, Failure, Page};
use crate::cluster::members::{Batch, Follow, Table};
use crate::cluster::position::Id;
use crate::cluster::wire::Publisher;
use crate::cluster::wire::members::{Read, read_changes, write_field, write_sequence};
use crate::core::Name;
use crate::core::elsewhere::Host;

/// The time between two entries among those who are alive; the broker takes who is missing for five of
/// them for dead.
pub const ATTEND: Duration = Duration::from_secs(3);
/// Nothing is put by a connection that was not entered for so long: it may be dead.
const FRESH: Duration = Duration::from_secs(10);
/// Batches that are under way at once.
const UNDER_WAY: usize = 64;
/// Fields of the dead that are removed at once.
const TIDIED: usize = 1024;
/// How many of the times that it enters itself a node looks at one topic that has fields of the dead.
const TIDIES: f64 = 0.1;

/// What a node knows of others.
pub struct Presence {
    host: Host,
    /// When it was last entered among those who are alive, if it was.
    attended: Option<Instant>,
    /// How often that was asked for.
    asked: u64,
    /// Who is alive, with the number of times that it had been asked for when they were first seen.
    alive: HashMap<Host, u64, RandomState>,
    follows: HashMap<Name, Follow, RandomState>,
    putting: usize,
    was_refused: bool,
}

impl Presence {
    /// For a node with that name.
    pub fn new(node: Publisher) -> Self {
        Self {
            host: Host { node, turn: 0 },
            attended: None,
            asked: 0,
            alive: HashMap::default(),
            follows: HashMap::default(),
            putting: 0,
            was_refused: false,
        }
    }

    fn is_fresh(&self) -> bool {
        self.attended.is_some_and(|at| at.elapsed() < FRESH)
    }
}

/// Why something is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is how things are.
    Change,
    /// To keep the table from expiring.
    Renewal,
    /// To remove what the dead put there.
    Tidying,
}

/// A request that is done.
pub enum Answer {
    /// This node was entered among those who are alive, by that connection.
    Attended {
        /// Which.
        host: Host,
        /// Which of the times that it was asked for, and when.
        asked: (u64, Instant),
        /// A table that is handed on when it is known who is alive.
        table: Option<(Place, Table)>,
        /// Who is alive.
        result: Result<Vec<Host>, Failure>,
    },
    /// The table of a topic was changed, by that connection.
    Put(Name, Host, Why, Result<Option<Id>, Failure>),
    /// The table of a topic was read.
    Read(Place, Result<Table, Failure>),
}

impl Answer {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Attended { result, .. } => result.as_ref().err(),
            Self::Put(_, _, _, result) => result.as_ref().err(),
            Self::Read(_, result) => result.as_ref().err(),
        }
    }
}

impl<E: Engine, L: Listener> Node<E, L> {
    // ---- this node --------------------------------------------------------------------------

    /// There is a new connection.
    pub(super) fn attend_anew<'a>(
        &mut self,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        presence.host.turn += 1;
        presence.attended = None;
        presence.putting = 0;
        presence.follows.clear();
        self.tell_members(|members| members.connected(None));
        self.attend(connection, requests, None);
    }

    /// There is no connection any more.
    pub(super) fn absent(&mut self) {
        self.tell_members(|members| members.connected(None));
    }

    /// Enters this node among those who are alive, if it tells anything.
    pub(super) fn attend<'a>(
        &mut self,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
        table: Option<(Place, Table)>,
    ) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        presence.asked += 1;
        let asked = (presence.asked, Instant::now());
        let (host, is_first) = (presence.host, presence.attended.is_none());
        requests.push(Box::pin(async move {
            let result = connection.attend(host, is_first).await;
            Done::Presence(Answer::Attended {
                host,
                asked,
                table,
                result,
            })
        }));
    }

    /// Puts what there is to put.
    pub(super) fn put_members<'a>(
        &mut self,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        while let Some(presence) = &mut self.presence
            && presence.is_fresh()
            && presence.putting < UNDER_WAY
            && let Some(batch) = self.handle.next_members()
        {
            presence.putting += 1;
            requests.push(put(connection, batch, Why::Change));
        }
    }

    fn tell_members(&self, tell: impl FnOnce(&mut crate::cluster::members::Memberships)) {
        if let Some(members) = &mut self.handle.desk.lock().members {
            tell(members);
        }
    }

    // ---- the topics that it follows ---------------------------------------------------------

    /// Everything that is pushed of a topic comes from now on.
    pub(super) fn follow_members(&mut self, channel: &Channel) {
        if let (Channel::Presence(topic), Some(presence)) = (channel, &mut self.presence)
            && let Some(followed) = self.followed.get_mut(channel)
        {
            // What was read before is not the answer.
            self.turns += 1;
            followed.turn = self.turns;
            followed.is_waiting = false;
            followed.is_ready = false;
            presence.follows.insert(topic.clone(), Follow::default());
        }
    }

    /// A topic is not followed any more.
    pub(super) fn forget_members(&mut self, channel: &Channel) {
        if let (Channel::Presence(topic), Some(presence)) = (channel, &mut self.presence) {
            presence.follows.remove(topic);
        }
    }

    /// Reads the table of a topic when it is its turn, unless that is to come anyway.
    pub(super) fn read_members(&mut self, topic: &Name, connection: &E::Connection) {
        let channel = Channel::Presence(topic.clone());
        let followed = self.followed.get(&channel);
        let followed = followed.filter(|followed| matches!(followed.stage, Stage::Following));
        let (Some(presence), Some(followed)) = (&mut self.presence, followed) else {
            return;
        };
        let follow = presence.follows.get_mut(topic);
        if follow.is_some_and(Follow::doubt) && !followed.is_waiting {
            let place = (channel, followed.turn);
            self.read_page(place, Page::Large, connection);
        }
    }

    pub(super) fn begin_to_read_members<'a>(
        &mut self,
        place: Place,
        permit: OwnedSemaphorePermit,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        let (Channel::Presence(topic), Some(followed)) = (&place.0, self.followed_at(&place))
        else {
            return;
        };
        followed.is_waiting = false;
        let presence = self.presence.as_mut();
        if let Some(follow) = presence.and_then(|presence| presence.follows.get_mut(topic)) {
            follow.read();
            requests.push(read(connection, place, permit));
        }
    }

    pub(super) fn pushed_members(
        &mut self,
        topic: &Name,
        id: Id,
        bytes: &[u8],
        connection: &E::Connection,
    ) {
        let Ok(changes) = read_changes(bytes) else {
            self.tell(News::Garbage);
            // A later version may have told something.
            return self.read_members(topic, connection);
        };
        let is_full = self.listener.is_full();
        let follow = self.presence.as_mut();
        let Some(follow) = follow.and_then(|presence| presence.follows.get_mut(topic)) else {
            return;
        };
        match follow.push(id, changes) {
            Some(changes) if !is_full => self.hand_on(topic, changes),
            _ => self.read_members(topic, connection),
        }
    }

    fn hand_on(&mut self, topic: &Name, mut changes: Vec<Read>) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        changes.retain(|told| told.host.node != presence.host.node);
        for told in &changes {
            // Who puts something was alive just now.
            if told.says.is_some() {
                presence.alive.entry(told.host).or_insert(presence.asked);
                if let Some(follow) = presence.follows.get_mut(topic) {
                    follow.hosts.insert(told.host);
                }
            }
        }
        if !changes.is_empty() {
            self.tell(News::Members(topic.clone(), changes));
        }
    }

    /// Hands on everybody who is on a topic by a connection that is alive, and removes the others.
    fn hand_on_all<'a>(
        &mut self,
        place: &Place,
        table: Table,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        let (Channel::Presence(topic), Some(_)) = (&place.0, self.followed_at(place)) else {
            return;
        };
        let Some(presence) = &mut self.presence else {
            return;
        };
        let Some(follow) = presence.follows.get_mut(topic) else {
            return;
        };
        let own = presence.host.node;
        let others = table.members.into_iter();
        let others = others.filter(|told| told.host.node != own);
        let (members, dead): (Vec<_>, Vec<_>) =
            others.partition(|told| presence.alive.contains_key(&told.host));
        follow.hosts = members.iter().map(|told| told.host).collect();
        follow.has_dead = false;
        let (after, again) = follow.answer(table.top);
        let epoch = table.top.map(|top| top.epoch);
        let host = presence.host;
        let is_dead = |by: &&Host| **by != host && !presence.alive.contains_key(*by);
        let sequences = table.hosts.iter().filter(is_dead);
        let fields = dead
            .iter()
            .map(|told| write_field(told.host, &told.session));
        let mut fields = fields.chain(sequences.map(|&host| write_sequence(host)));
        loop {
            let delete: Vec<_> = fields.by_ref().take(TIDIED).collect();
            if delete.is_empty() {
                break;
            }
            let batch = Batch {
                topic: topic.clone(),
                host,
                sequence: 0,
                set: Vec::new(),
                delete,
                is_told: false,
            };
            requests.push(put(connection, batch, Why::Tidying));
        }
        self.tell_members(|members| members.stands_in(topic, epoch));
        self.tell(News::Everybody(topic.clone(), members));
        self.hand_on(topic, after);
        let visit = self.followed_at(place).map(|followed| {
            followed.is_ready = true;
            followed.visit_of(&place.0)
        });
        if let Some(visit) = visit {
            self.tell(News::Ready(visit));
        }
        if again {
            self.read_members(topic, connection);
        }
    }

    // ---- answers ----------------------------------------------------------------------------

    pub(super) fn answered_members<'a>(
        &mut self,
        answer: Answer,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) -> Result<(), String> {
        let is_change = matches!(answer, Answer::Put(_, _, Why::Change, _));
        if let Some(presence) = self.presence.as_mut().filter(|_| is_change) {
            presence.putting -= 1;
        }
        let time = match answer.failure() {
            Some(Failure::Disconnected(reason)) => return Err(reason.clone()),
            Some(Failure::NotNow(_)) => LATER,
            Some(Failure::Refused(reason)) => {
                let reason = reason.clone();
                match &answer {
                    // It concerns that topic alone.
                    Answer::Read(place, _) => self.unreadable(place, &reason),
                    _ => self.puts_are_refused(reason),
                }
                ATTEND
            }
            None => {
                self.done_members(answer, connection, requests);
                return Ok(());
            }
        };
        // It is asked for again anyway who is alive.
        if !matches!(answer, Answer::Attended { table: None, .. }) {
            requests.push(after(time, Done::Presence(answer)));
        }
        Ok(())
    }

    /// Says once that others are not told.
    fn puts_are_refused(&mut self, reason: String) {
        let presence = self.presence.as_mut();
        if presence.is_some_and(|p| !std::mem::replace(&mut p.was_refused, true)) {
            self.tell(News::Untold(reason));
        }
    }

    fn puts_are_taken(&mut self) {
        if let Some(presence) = &mut self.presence {
            presence.was_refused = false;
        }
    }

    /// It is time to try again.
    pub(super) fn members_again<'a>(
        &mut self,
        answer: Answer,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        match answer {
            Answer::Attended { table, .. } => self.attend(connection, requests, table),
            Answer::Put(topic, host, Why::Change, _) => {
                self.tell_members(|members| members.not_done(&topic, host));
            }
            Answer::Put(..) => {}
            Answer::Read(place, _) => {
                if self.followed_at(&place).is_some() {
                    self.read_page(place, Page::Large, connection);
                }
            }
        }
    }

    fn done_members<'a>(
        &mut self,
        answer: Answer,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        match answer {
            Answer::Attended {
                host,
                asked,
                table,
                result,
            } => {
                self.attended(host, asked, result.unwrap_or_default());
                let is_current = self.presence.as_ref().is_some_and(|p| p.host == host);
                if !is_current {
                    self.attend(connection, requests, None);
                }
                if let Some((place, table)) = table {
                    self.hand_on_all(&place, table, connection, requests);
                } else {
                    self.look_after(connection, requests);
                }
            }
            Answer::Put(topic, host, Why::Change, Ok(top)) => {
                self.puts_are_taken();
                let epoch = top.map(|top| top.epoch);
                self.tell_members(|members| members.done(&topic, host, epoch));
            }
            Answer::Put(topic, _, Why::Renewal, Ok(top)) => {
                self.renewed(&topic, top, connection);
            }
            Answer::Read(place, Ok(table)) => self.read_done(place, table, connection, requests),
            Answer::Put(..) | Answer::Read(..) => {}
        }
    }

    /// It is known who is alive.
    fn attended(&mut self, host: Host, asked: (u64, Instant), alive: Vec<Host>) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        let (number, sent) = asked;
        for &host in &alive {
            presence.alive.entry(host).or_insert(number);
        }
        let alive: HashSet<_, RandomState> = alive.into_iter().collect();
        // Those who were seen before it was asked would be there if they were alive.
        let is_dead = |host: &Host, seen: &mut u64| *seen < number && !alive.contains(host);
        let dead: Vec<_> = presence
            .alive
            .extract_if(is_dead)
            .map(|(host, _)| host)
            .collect();
        for follow in presence.follows.values_mut() {
            follow.has_dead |= dead.iter().any(|host| follow.hosts.remove(host));
        }
        let mut is_entered = None;
        if host == presence.host {
            if alive.contains(&host) {
                let is_new = presence.attended.is_none();
                is_entered = is_new.then_some(Some(host));
                presence.attended = presence.attended.max(Some(sent));
            } else {
                // This node was taken for dead.
                presence.host.turn += 1;
                presence.attended = None;
                is_entered = Some(None);
            }
        }
        if let Some(host) = is_entered {
            self.tell_members(|members| members.connected(host));
        }
        let own = host.node;
        for host in dead.into_iter().filter(|host| host.node != own) {
            self.tell(News::Died(host));
        }
    }

    /// Does what is to be done now and then.
    fn look_after<'a>(&mut self, connection: &'a E::Connection, requests: &mut Requests<'a>) {
        let mut renewals = Vec::new();
        self.tell_members(|members| renewals = members.renewals(Instant::now(), random));
        for batch in renewals {
            requests.push(put(connection, batch, Why::Renewal));
        }
        let follows = self.presence.iter().flat_map(|presence| &presence.follows);
        // The first who looks removes what the dead have left, so not all at the same time.
        let untidy = follows.filter(|(_, follow)| follow.has_dead && random() < TIDIES);
        for topic in untidy.map(|(topic, _)| topic.clone()).collect::<Vec<_>>() {
            self.read_members(&topic, connection);
        }
    }

    /// The broker tells how many changes the table of a topic has had.
    fn renewed(&mut self, topic: &Name, top: Option<Id>, connection: &E::Connection) {
        let presence = self.presence.as_ref();
        let Some(follow) = presence.and_then(|presence| presence.follows.get(topic)) else {
            return;
        };
        let is_known = follow.is_reading() || follow.at() == top;
        let epoch = top.map(|top| top.epoch);
        self.tell_members(|members| members.stands_in(topic, epoch));
        if !is_known {
            self.read_members(topic, connection);
        }
    }

    /// A table was read: it is handed on when everybody in it is known to be alive or dead.
    fn read_done<'a>(
        &mut self,
        place: Place,
        table: Table,
        connection: &'a E::Connection,
        requests: &mut Requests<'a>,
    ) {
        if let Some(followed) = self.followed_at(&place) {
            followed.is_unreadable = false;
        }
        let Some(presence) = &self.presence else {
            return;
        };
        let own = presence.host.node;
        let is_known = |host: &Host| host.node == own || presence.alive.contains_key(host);
        let hosts = table.members.iter().map(|told| &told.host);
        if hosts.chain(&table.hosts).all(is_known) {
            self.hand_on_all(&place, table, connection, requests);
        } else {
            self.attend(connection, requests, Some((place, table)));
        }
    }
}

fn put<C: Attendance>(connection: &C, batch: Batch, why: Why) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move {
        let result = connection.put(&batch).await;
        Done::Presence(Answer::Put(batch.topic, batch.host, why, result))
    })
}

fn read<C: Attendance>(
    connection: &C,
    place: Place,
    permit: OwnedSemaphorePermit,
) -> LocalBoxFuture<'_, Done> {
    Box::pin(async move {
        let result = match &place.0 {
            Channel::Presence(topic) => connection.members(topic).await,
            _ => Err(Failure::Refused("it is no topic's".to_owned())),
        };
        drop(permit);
        Done::Presence(Answer::Read(place, result))
    })
}
