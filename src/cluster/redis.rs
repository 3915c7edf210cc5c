//! The engine for Redis and Valkey: streams are the logs, pub/sub the pushes.

mod members;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::Lazy;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, ProtocolVersion,
    PushInfo, RedisError, Script, ServerErrorKind, Value,
};
use tokio::sync::mpsc::UnboundedSender;

use super::Channel;
use super::engine::{Connection, Engine, Failure, Push};
use super::names::Names;
use super::outbox::Batch;
use super::position::{Answer, Id, Placed, Read};
use super::replicas::Replicas;
use super::url::Options;
use super::wire::{self, Publisher};

static PUBLISH: Lazy<Script> = Lazy::new(|| Script::new(include_str!("publish.lua")));

/// An answer to a read from some place has no more entries, and one to a read of the end of a log.
const AT_ONCE: usize = 512;
const MOST: usize = 100_000;
/// Entries that are read at a time: where they may be as large as can be, and where they are small.
const PAGE: (usize, usize) = (16, 256);
/// So many bytes of a page are few.
const SMALL: usize = 64 << 10;
/// A broker that does not answer for so long is taken for gone.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What a node says to a server, whichever it is.
pub struct Terms {
    /// What things are called there.
    pub names: Names,
    words: Words,
    options: Options,
}

/// The commands that push, and have things pushed.
pub struct Words {
    publish: &'static str,
    subscribe: &'static str,
    unsubscribe: &'static str,
}

/// Those of a server.
pub const PLAIN: Words = Words {
    publish: "PUBLISH",
    subscribe: "SUBSCRIBE",
    unsubscribe: "UNSUBSCRIBE",
};
/// Those of a server in a cluster: nothing is told to the other ones.
pub const SHARDED: Words = Words {
    publish: "SPUBLISH",
    subscribe: "SSUBSCRIBE",
    unsubscribe: "SUNSUBSCRIBE",
};

impl Terms {
    /// Those of a node, in a database of a server.
    pub fn new(
        words: Words,
        (namespace, publisher): (&str, &Publisher),
        database: i64,
        options: Options,
    ) -> Self {
        Self {
            names: Names::new(namespace, database, publisher),
            words,
            options,
        }
    }
}

/// A Redis or Valkey server.
pub struct Redis {
    /// Where it is.
    pub server: ConnectionInfo,
    /// What is said to it.
    pub terms: Arc<Terms>,
}

impl Engine for Redis {
    type Connection = RedisConnection;

    async fn connect(&self, pushes: UnboundedSender<Push>) -> Result<RedisConnection, Failure> {
        RedisConnection::open_with_beat(&self.server, &self.terms, pushes).await
    }
}

/// A connection to a server that takes writes.
#[derive(Clone)]
pub struct RedisConnection {
    connection: MultiplexedConnection,
    terms: Arc<Terms>,
    replicas: Arc<Replicas>,
}

impl RedisConnection {
    /// Connects; what is pushed is handed to a function.
    pub async fn open(
        server: &ConnectionInfo,
        terms: &Arc<Terms>,
        pushed: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(move |info| {
                pushed(info);
                Ok::<(), redis::aio::SendError>(())
            });
        let settings = server.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        let server = server.clone().set_redis_settings(settings);
        let client = Client::open(server).map_err(disconnected)?;
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(disconnected)?;
        let connection = Self {
            connection,
            terms: terms.clone(),
            replicas: Arc::new(Replicas::new(terms.options.replicas)),
        };
        connection.check_role().await?;
        Ok(connection)
    }

    /// Connects, and listens to its own heart beat.
    pub async fn open_with_beat(
        server: &ConnectionInfo,
        terms: &Arc<Terms>,
        pushes: UnboundedSender<Push>,
    ) -> Result<Self, Failure> {
        let understood = terms.clone();
        let take = move |info| {
            if let Some(push) = understood.names.understand(info) {
                // Nobody may be there any more: then the connection is given up.
                let _ = pushes.send(push);
            }
        };
        let connection = Self::open(server, terms, take).await?;
        connection.listen(terms.names.beat(0)).await?;
        Ok(connection)
    }

    /// A replica takes no writes: what is wanted is another server, or this one later.
    async fn check_role(&self) -> Result<(), Failure> {
        let mut hello = redis::cmd("HELLO");
        let about: HashMap<String, Value> = self.ask(hello.arg(3)).await.map_err(disconnected)?;
        match about.get("role") {
            Some(Value::BulkString(role)) if role != b"master" => Err(Failure::Disconnected(
                "READONLY: the server is a replica".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The answer to a command.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        command.query_async(&mut self.connection.clone()).await
    }

    /// Has what is published under a name pushed.
    pub async fn listen(&self, name: Vec<u8>) -> Result<(), Failure> {
        self.confirmed(self.terms.words.subscribe, name).await
    }

    /// The answer must be that to this command: in a cluster a server ends subscriptions by itself,
    /// and the client takes what it says then for an answer to whatever was asked first.
    async fn confirmed(&self, word: &str, name: Vec<u8>) -> Result<(), Failure> {
        let answer: Result<Value, _> = self.ask(redis::cmd(word).arg(&name)).await;
        match answer.map_err(|error| failure(&error))? {
            Value::Push { kind, data }
                if kind.to_string().eq_ignore_ascii_case(word)
                    && data.first() == Some(&Value::BulkString(name)) =>
            {
                Ok(())
            }
            _ => Err(Failure::Disconnected("an answer got lost".to_owned())),
        }
    }

    /// Has a heart beat pushed to whoever listens there.
    pub async fn beat_on(&self, name: &[u8]) -> Result<(), Failure> {
        self.push(name.to_vec(), Vec::new()).await
    }

    async fn push(&self, name: Vec<u8>, pushed: Vec<u8>) -> Result<(), Failure> {
        let mut publish = redis::cmd(self.terms.words.publish);
        let done: Result<Value, _> = self.ask(publish.arg(name).arg(pushed)).await;
        done.map(drop).map_err(|error| failure(&error))
    }

    /// Reads a part of a log, and whether there is more of it: a few entries at a time. A server closes
    /// connections that are subscribed to something and get large answers.
    async fn pages(&self, log: &[u8], read: Read) -> Result<(Vec<Row>, bool), Failure> {
        let (word, first, last, most) = match read {
            Read::Last(count) => ("XREVRANGE", "+".to_owned(), "-", count.min(MOST)),
            Read::From(id) => ("XRANGE", id.to_string(), "+", AT_ONCE),
        };
        let (mut rows, mut from, mut page) = (Vec::<Row>::new(), first, PAGE.0);
        loop {
            let count = page.min(most - rows.len());
            let mut question = redis::cmd(word);
            question
                .arg(log)
                .arg(&from)
                .arg(last)
                .arg("COUNT")
                .arg(count);
            let found: Result<Vec<Row>, _> = self.ask(&question).await;
            let found = found.map_err(|error| failure(&error))?;
            let (is_full, bytes) = (found.len() == count, found.iter().map(size).sum::<usize>());
            rows.extend(found);
            if !is_full || rows.len() >= most {
                return Ok((rows, is_full));
            }
            from = rows.last().map_or(from, |(id, _)| format!("({id}"));
            page = if bytes < SMALL { PAGE.1 } else { PAGE.0 };
        }
    }

    /// Waits until replicas have what was just read, if they are to have it: what they do not have may
    /// be lost, and then nobody must have heard it.
    async fn replicas_have_all_of(&self, channel: &Channel) -> Result<(), Failure> {
        if !self.replicas.are_wanted() {
            return Ok(());
        }
        // A server promises to wait for what the same connection has written, and for what came before.
        let mut write = redis::cmd("SET");
        write
            .arg(self.terms.names.read(channel))
            .arg("")
            .arg("EX")
            .arg(1);
        let written: Result<Value, _> = self.ask(&write).await;
        written.map_err(|error| failure(&error))?;
        self.replicas.have_it(self).await
    }
}

impl Connection for RedisConnection {
    async fn publish(&self, batch: &Batch) -> Result<(), Failure> {
        let (channel, names) = (&batch.channel, &self.terms.names);
        let waits = self.replicas.are_wanted();
        let push = if waits { "" } else { self.terms.words.publish };
        let mut script = PUBLISH.prepare_invoke();
        script
            .key(names.log(channel))
            .key(names.state(channel))
            .key(names.last(channel))
            .arg(batch.sequence)
            .arg(&*batch.entry)
            .arg(self.terms.options.entries)
            .arg(self.terms.options.seconds)
            .arg(names.pushed(channel))
            .arg(push);
        let place: Result<Option<Vec<u8>>, _> =
            script.invoke_async(&mut self.connection.clone()).await;
        let place = place.map_err(|error| failure(&error))?;
        if waits {
            self.replicas.have_it(self).await?;
            if let Some(place) = place {
                let pushed = [&*place, b":", &*batch.entry].concat();
                self.push(names.pushed(channel), pushed).await?;
            }
        }
        Ok(())
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), Failure> {
        self.listen(self.terms.names.pushed(channel)).await
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), Failure> {
        let name = self.terms.names.pushed(channel);
        self.confirmed(self.terms.words.unsubscribe, name).await
    }

    async fn read(&self, channel: &Channel, read: Read) -> Result<Answer<Vec<u8>>, Failure> {
        let (state, log) = (
            self.terms.names.state(channel),
            self.terms.names.log(channel),
        );
        // The end of the log first: what is appended after it is pushed.
        let mut end = redis::cmd("HMGET");
        let end: Result<State, _> = self.ask(end.arg(state).arg("e").arg("n")).await;
        let top = top(end.map_err(|error| failure(&error))?);
        let (rows, more) = self.pages(&log, read).await?;
        self.replicas_have_all_of(channel).await?;
        let mut entries: Vec<_> = rows.into_iter().filter_map(placed).collect();
        if let Read::Last(_) = read {
            entries.reverse();
        }
        Ok(Answer { top, entries, more })
    }

    async fn beat(&self) -> Result<(), Failure> {
        self.beat_on(&self.terms.names.beat(0)).await
    }
}

/// A log's epoch and number.
type State = (Option<u64>, Option<u64>);

fn top((epoch, number): State) -> Option<Id> {
    let (epoch, number) = epoch.zip(number)?;
    Some(Id { epoch, number })
}

/// A place, and fields with values.
type Row = (String, Vec<(Vec<u8>, Vec<u8>)>);

fn size((_, fields): &Row) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

fn placed((id, fields): Row) -> Option<Placed<Vec<u8>>> {
    let id = id.parse().ok()?;
    // What stands there without an entry is garbage, and has a place all the same.
    let entry = fields.into_iter().find(|(name, _)| name == b"d");
    Some(wire::place(
        id,
        entry.map_or_else(Vec::new, |(_, entry)| entry),
    ))
}

/// The answer of a server to one question, on a connection of its own.
pub async fn ask_once<T: FromRedisValue>(
    server: &ConnectionInfo,
    question: &Cmd,
    patience: Duration,
) -> Result<T, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    let client = Client::open(server.clone())?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    question.query_async(&mut connection).await
}

/// That of a request without which there is no connection.
pub fn disconnected(error: RedisError) -> Failure {
    Failure::Disconnected(error.to_string())
}

/// That of a request.
pub fn failure(error: &RedisError) -> Failure {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::NoScript,
        ) => Failure::NotNow(reason),
        ErrorKind::Server(_) | ErrorKind::Extension => match hidden(error).or(error.code()) {
            // It has become a replica: the server to write to is another one.
            Some("READONLY" | "MASTERDOWN") => Failure::Disconnected(reason),
            Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS" | "UNBLOCKED") => {
                Failure::NotNow(reason)
            }
            _ => Failure::Refused(reason),
        },
        // What stands there is something else.
        ErrorKind::UnexpectedReturnType => Failure::Refused(reason),
        _ => Failure::Disconnected(reason),
    }
}

/// What a server before 7.0 says of a command of a script, it says within a sentence.
fn hidden(error: &RedisError) -> Option<&str> {
    let (_, code) = error.detail()?.split_once(": -")?;
    code.split(' ').next()
}
