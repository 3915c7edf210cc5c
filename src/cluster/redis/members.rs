//! Who is on which topic, at Redis and Valkey: a hash for each topic, and a sorted set of the
//! connections that are alive.

use once_cell::sync::Lazy;
use redis::{Cmd, Script};

use super::pair::Pair;
use super::{State, failure, top};
use crate::cluster::Channel;
use crate::cluster::engine::{Attendance, Failure};
use crate::cluster::members::{Batch, Table};
use crate::cluster::position::Id;
use crate::cluster::wire::members::{
    Told, read_field, read_host, read_saying, write_host, write_sequence,
};
use crate::core::Name;
use crate::core::elsewhere::Host;

static ATTEND: Lazy<Script> = Lazy::new(|| Script::new(include_str!("../attend.lua")));
static PUT: Lazy<Script> = Lazy::new(|| Script::new(include_str!("../put.lua")));

/// Who is not heard of for so many milliseconds is taken for dead.
const PATIENCE: u64 = 15_000;
/// Seconds after which a table expires that nobody reminds the broker of.
const KEPT: u64 = 600;

impl Attendance for Pair {
    async fn attend(&self, host: Host, is_first: bool) -> Result<Vec<Host>, Failure> {
        let mut script = ATTEND.prepare_invoke();
        script
            .key(self.work.terms.names.alive())
            .arg(write_host(host))
            .arg(PATIENCE)
            .arg(u8::from(is_first));
        let alive: Result<Vec<Vec<u8>>, _> = self.work.run(&script).await;
        let alive = alive.map_err(|error| failure(&error))?;
        Ok(alive.iter().filter_map(|host| read_host(host)).collect())
    }

    async fn put(&self, batch: &Batch) -> Result<Option<Id>, Failure> {
        let channel = Channel::Presence(batch.topic.clone());
        let mut script = PUT.prepare_invoke();
        script
            .key(self.work.terms.names.members(&channel))
            .arg(KEPT)
            .arg(self.work.terms.words.publish)
            .arg(self.work.terms.names.pushed(&channel))
            .arg(batch.pushed())
            .arg(write_sequence(batch.host))
            .arg(batch.sequence)
            .arg(batch.set.len());
        for (field, value) in &batch.set {
            script.arg(&**field).arg(&**value);
        }
        for field in &batch.delete {
            script.arg(&**field);
        }
        let state: Result<State, _> = self.work.run(&script).await;
        state.map(top).map_err(|error| failure(&error))
    }

    async fn members(&self, topic: &Name) -> Result<Table, Failure> {
        let name = self
            .work
            .terms
            .names
            .members(&Channel::Presence(topic.clone()));
        let read = Cmd::hgetall(name);
        let rows: Result<Vec<(Vec<u8>, Vec<u8>)>, _> = self.work.ask(&read).await;
        let (mut state, mut members, mut hosts) = ((None, None), Vec::new(), Vec::new());
        for (field, value) in rows.map_err(|error| failure(&error))? {
            match &*field {
                b"e" => state.0 = number(&value),
                b"n" => state.1 = number(&value),
                [b's', host @ ..] => hosts.extend(read_host(host)),
                _ => members.extend(read_field(&field).map(|(host, session)| Told {
                    host,
                    session: session.to_vec(),
                    says: Some(read_saying(&value)),
                })),
            }
        }
        Ok(Table {
            top: top(state),
            members,
            hosts,
        })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
