//! What things are called at a Redis server: `docs/wire.md` says it in words.

use redis::{PushInfo, PushKind, Value};

use super::Channel;
use super::engine::Push;
use super::wire::Publisher;

/// What things are called at the server.
pub struct Names {
    namespace: String,
    /// What follows the name of a push channel: all databases of a server have the same channels.
    database: String,
    publisher: String,
}

impl Names {
    /// For a node in a namespace, in a database of a server.
    pub fn new(namespace: &str, database: i64, publisher: &Publisher) -> Self {
        let database = match database {
            0 => String::new(),
            number => format!("@{number}"),
        };
        let publisher = format!("{:032x}", u128::from_be_bytes(*publisher));
        // What follows its colon must not be taken for a part of it, or the other way round.
        let namespace = String::from_utf8_lossy(&escaped(namespace.as_bytes())).replace(':', "%3A");
        Self {
            namespace,
            database,
            publisher,
        }
    }

    /// On which this node hears its own heart beat; the number tells apart those on several servers.
    pub fn beat(&self, number: u32) -> Vec<u8> {
        let (namespace, publisher) = (&self.namespace, &self.publisher);
        match number {
            0 => format!("pagebus:{{{namespace}:n{publisher}}}").into_bytes(),
            number => format!("pagebus:{{{namespace}:n{publisher}:{number}}}").into_bytes(),
        }
    }

    /// Of a channel: its log.
    pub fn log(&self, channel: &Channel) -> Vec<u8> {
        self.of(channel, ":log")
    }

    /// Of a channel: when its log was begun, and how many entries it has had.
    pub fn state(&self, channel: &Channel) -> Vec<u8> {
        self.of(channel, ":state")
    }

    /// Of a channel: what this node has published there last.
    pub fn last(&self, channel: &Channel) -> Vec<u8> {
        self.of(channel, &format!(":by:{}", self.publisher))
    }

    /// Of a channel: that somebody has read its log.
    pub fn read(&self, channel: &Channel) -> Vec<u8> {
        self.of(channel, ":read")
    }

    /// Of who is on a topic: the table.
    pub fn members(&self, channel: &Channel) -> Vec<u8> {
        self.of(channel, ":members")
    }

    /// The connections of nodes that tell each other who is on which topic.
    pub fn alive(&self) -> Vec<u8> {
        format!("pagebus:{{{}:n}}:alive", self.namespace).into_bytes()
    }

    /// What belongs to one channel has one hash tag: in a cluster it is on one server.
    fn of(&self, channel: &Channel, what: &str) -> Vec<u8> {
        let (kind, name): (_, &[u8]) = match channel {
            Channel::All => ("a", b""),
            Channel::Topic(name) => ("t", name),
            Channel::Session(name) => ("s", name),
            Channel::Presence(name) => ("p", name),
        };
        let mut bytes = format!("pagebus:{{{}:{kind}", self.namespace).into_bytes();
        bytes.extend(escaped(name));
        bytes.push(b'}');
        bytes.extend(what.as_bytes());
        bytes
    }

    /// Of a channel: where its entries are pushed.
    pub fn pushed(&self, channel: &Channel) -> Vec<u8> {
        self.of(channel, &self.database)
    }

    fn channel(&self, name: &[u8]) -> Option<Channel> {
        let name = name
            .strip_prefix(b"pagebus:{")?
            .strip_suffix(self.database.as_bytes())?
            .strip_suffix(b"}")?;
        let name = name
            .strip_prefix(self.namespace.as_bytes())?
            .strip_prefix(b":")?;
        let (kind, name) = name.split_first()?;
        let name = unescaped(name)?;
        match kind {
            b'a' if name.is_empty() => Some(Channel::All),
            b't' => Some(Channel::Topic(name.into())),
            b's' => Some(Channel::Session(name.into())),
            b'p' => Some(Channel::Presence(name.into())),
            _ => None,
        }
    }

    fn is_beat(&self, message: &[Value]) -> bool {
        let Some(Value::BulkString(name)) = message.first() else {
            return false;
        };
        let ours = self.beat(0);
        let ours = ours.strip_suffix(b"}").unwrap_or(&ours);
        let rest = name.strip_prefix(ours);
        rest.is_some_and(|rest| matches!(rest.first(), Some(b'}' | b':')))
    }

    /// What a server pushes; `None` is nothing to a node.
    pub fn understand(&self, info: PushInfo) -> Option<Push> {
        match info.kind {
            PushKind::Message | PushKind::SMessage => {
                if self.is_beat(&info.data) {
                    // That something has come is all that it says.
                    return None;
                }
                Some(self.message(info.data).unwrap_or(Push::Garbage))
            }
            PushKind::SUnsubscribe => {
                let name = info.data.into_iter().next()?;
                self.channel(&bytes(name)?).map(Push::Ended)
            }
            PushKind::Disconnection => Some(Push::Lost),
            _ => None,
        }
    }

    fn message(&self, data: Vec<Value>) -> Option<Push> {
        let [name, payload] = <[_; 2]>::try_from(data).ok()?;
        let (name, payload) = (bytes(name)?, bytes(payload)?);
        let channel = self.channel(&name)?;
        let colon = payload.iter().take(64).position(|byte| *byte == b':')?;
        let (id, entry) = payload.split_at(colon);
        let id = std::str::from_utf8(id).ok()?.parse().ok()?;
        Some(Push::Entry(channel, id, entry[1..].to_vec()))
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Braces in a name must not end the hash tag.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'{' | b'}' | b'%' => escaped.extend(format!("%{byte:02X}").bytes()),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*byte);
        }
    }
    Some(bytes)
}
