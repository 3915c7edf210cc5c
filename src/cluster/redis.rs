//! The engine for Redis and Valkey: streams are the logs, pub/sub the pushes.

pub mod life;
mod members;
pub mod pair;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::Lazy;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, ProtocolVersion,
    PushInfo, RedisError, Script, ScriptInvocation, ServerErrorKind, Value,
};
use tokio::sync::mpsc::UnboundedSender;

use self::life::{Ending, Pulse};
use self::pair::Pair;
use super::Channel;
use super::engine::{Engine, Failure, Page, Push};
use super::names::Names;
use super::outbox::Batch;
use super::position::{Answer, Id, Placed, REMEMBERED, Read};
use super::replicas::Replicas;
use super::url::Options;
use super::wire::{self, Publisher};

static PUBLISH: Lazy<Script> = Lazy::new(|| Script::new(include_str!("publish.lua")));
static READ: Lazy<Script> = Lazy::new(|| Script::new(include_str!("read.lua")));

/// So much of a log is read at once: entries, and bytes, of which small answers have fewer.
const AT_ONCE: usize = 512;
const BYTES: usize = 512 << 10;
const FEW_BYTES: usize = 32 << 10;
/// With so many bytes, the beginning of an entry says who published it.
const HEAD: isize = 64;
/// An answer to a read of the end of a log has no more entries.
const MOST: usize = 100_000;
/// A server that cannot be connected to for so long is taken for gone, and so is one without a sign of
/// life for so long.
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
    type Connection = Pair;

    async fn connect(&self, pushes: UnboundedSender<Push>) -> Result<Pair, Failure> {
        connect(&self.server, &self.terms, pushes).await
    }
}

/// The connections to one server, which are given up together with whoever asks.
pub async fn connect(
    server: &ConnectionInfo,
    terms: &Arc<Terms>,
    pushes: UnboundedSender<Push>,
) -> Result<Pair, Failure> {
    let understood = terms.clone();
    let take = move |info| {
        if let Some(push) = understood.names.understand(info) {
            // Nobody may be there any more: then the connections are given up.
            let _ = pushes.send(push);
        }
    };
    Pair::open(server, terms, terms.names.beat(0), &Arc::default(), take).await
}

/// A connection to a server that takes writes.
#[derive(Clone)]
pub struct RedisConnection {
    connection: MultiplexedConnection,
    terms: Arc<Terms>,
    replicas: Arc<Replicas>,
    pulse: Arc<Pulse>,
    ending: Arc<Ending>,
}

impl RedisConnection {
    async fn open(
        server: &ConnectionInfo,
        terms: &Arc<Terms>,
        ending: &Arc<Ending>,
        pushed: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let pulse = Arc::<Pulse>::default();
        let felt = pulse.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(None)
            .set_push_sender(move |info| {
                felt.sign();
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
            pulse,
            ending: ending.clone(),
        };
        connection.check_role().await?;
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
        let mut connection = self.connection.clone();
        self.answer(command.query_async(&mut connection)).await
    }

    /// What a script gives.
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        self.answer(script.invoke_async(&mut connection)).await
    }

    async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        let answer = self.ending.or(request).await;
        self.pulse.sign();
        answer
    }

    /// Has what is published under a name pushed.
    async fn listen(&self, name: Vec<u8>) -> Result<(), Failure> {
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

    async fn push(&self, name: &[u8], pushed: &[u8]) -> Result<(), Failure> {
        let mut publish = redis::cmd(self.terms.words.publish);
        let done: Result<Value, _> = self.ask(publish.arg(name).arg(pushed)).await;
        done.map(drop).map_err(|error| failure(&error))
    }

    /// Reads the last entries of a log, or their beginnings.
    async fn last(
        &self,
        channel: &Channel,
        count: usize,
        are_wanted: bool,
    ) -> Result<Part, Failure> {
        let most = count.clamp(1, MOST);
        let mut range = Range {
            word: "XREVRANGE",
            first: "+".to_owned(),
            last: "-",
            most,
            cut: if are_wanted { -1 } else { HEAD },
            page: Page::Large,
        };
        let mut all = self.part(channel, &range, None).await?;
        while all.more
            && all.rows.len() < most
            && let Some((earliest, _)) = all.rows.last()
        {
            range.first = format!("({earliest}");
            range.most = most - all.rows.len();
            let part = self.part(channel, &range, None).await?;
            all.more = part.more;
            all.rows.extend(part.rows);
        }
        all.rows.reverse();
        Ok(all)
    }

    /// Reads a log from a place on, and up to another place only the beginnings of entries.
    async fn from(
        &self,
        channel: &Channel,
        (first, known): (Id, Id),
        page: Page,
    ) -> Result<Part, Failure> {
        let range = Range {
            word: "XRANGE",
            first: format!("({known}"),
            last: "+",
            most: AT_ONCE,
            cut: -1,
            page,
        };
        self.part(channel, &range, Some((first, known))).await
    }

    async fn part(
        &self,
        channel: &Channel,
        range: &Range,
        known: Option<(Id, Id)>,
    ) -> Result<Part, Failure> {
        let names = &self.terms.names;
        let mut script = READ.prepare_invoke();
        script.key(names.log(channel)).key(names.state(channel));
        range.say(&mut script);
        if let Some((first, last)) = known {
            // One more than there can be: then they are not what the node has had.
            let most = REMEMBERED + 1;
            let ends = (first.to_string(), last.to_string());
            script.arg(ends.0).arg(ends.1).arg(most).arg(HEAD);
        }
        let part: Result<Told, _> = self.run(&script).await;
        let (epoch, number, more, rows) = part.map_err(|error| failure(&error))?;
        let top = top((epoch, number));
        Ok(Part { top, more, rows })
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
        let place: Result<Option<Vec<u8>>, _> = self.run(&script).await;
        let place = place.map_err(|error| failure(&error))?;
        if waits {
            self.replicas.have_it(self).await?;
            if let Some(place) = place {
                let pushed = [&*place, b":", &*batch.entry].concat();
                self.push(&names.pushed(channel), &pushed).await?;
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

    async fn read(
        &self,
        channel: &Channel,
        read: Read,
        page: Page,
    ) -> Result<Answer<Vec<u8>>, Failure> {
        let part = match read {
            Read::Last { count, are_wanted } => self.last(channel, count, are_wanted).await?,
            Read::From { first, known } => self.from(channel, (first, known), page).await?,
        };
        self.replicas_have_all_of(channel).await?;
        Ok(Answer {
            top: part.top,
            entries: part.rows.into_iter().filter_map(placed).collect(),
            more: part.more,
        })
    }
}

/// A log's epoch and number.
type State = (Option<u64>, Option<u64>);

fn top((epoch, number): State) -> Option<Id> {
    let (epoch, number) = epoch.zip(number)?;
    Some(Id { epoch, number })
}

/// A place, and what stands there.
type Row = (String, Vec<u8>);

/// The state of a log, whether there is more of it, and what there is.
type Told = (Option<u64>, Option<u64>, bool, Vec<Row>);

/// A part of a log.
struct Part {
    top: Option<Id>,
    more: bool,
    rows: Vec<Row>,
}

/// What to read of it.
struct Range {
    word: &'static str,
    first: String,
    last: &'static str,
    most: usize,
    /// So many bytes of each entry, or all.
    cut: isize,
    page: Page,
}

impl Range {
    fn say(&self, script: &mut ScriptInvocation<'_>) {
        let (bytes, may_be_empty) = match self.page {
            Page::Small => (FEW_BYTES, 1),
            Page::Large => (BYTES, 0),
        };
        script.arg(self.word).arg(&self.first).arg(self.last);
        script.arg(self.most.min(AT_ONCE)).arg(self.cut);
        script.arg(bytes).arg(may_be_empty);
    }
}

fn placed((id, entry): Row) -> Option<Placed<Vec<u8>>> {
    Some(wire::place(id.parse().ok()?, entry))
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
