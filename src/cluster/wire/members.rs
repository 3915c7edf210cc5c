//! What stands at the broker of sessions that are on a topic, byte by byte: `docs/wire.md` says it
//! in words.

use rmp::decode::{self, bytes::Bytes};

use super::{
    Unreadable, VERSION, read_bin, read_bin_or_nil, versioned, write_array, write_bin,
    write_bin_or_nil, write_uint,
};
use crate::core::elsewhere::{Host, Saying};

/// A session and how it is there; `V` is that it says something of itself, or that it does not exist
/// any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<V> {
    /// By which connection.
    pub host: Host,
    /// Its id.
    pub session: Vec<u8>,
    /// What is told of it.
    pub says: V,
}

/// Hexadecimal digits of a node's name, and of the number of its connection.
const NODE: usize = 32;
const TURN: usize = 8;

/// A connection, as it is written at the broker.
pub fn write_host(host: Host) -> String {
    let node = u128::from_be_bytes(host.node);
    format!("{node:0NODE$x}{:0TURN$x}", host.turn)
}

/// Reads that.
pub fn read_host(bytes: &[u8]) -> Option<Host> {
    let (node, turn) = std::str::from_utf8(bytes).ok()?.split_at_checked(NODE)?;
    (turn.len() == TURN).then_some(())?;
    Some(Host {
        node: u128::from_str_radix(node, 16).ok()?.to_be_bytes(),
        turn: u32::from_str_radix(turn, 16).ok()?,
    })
}

/// The field of the number of a connection's last change in the table of a topic.
pub fn write_sequence(host: Host) -> Vec<u8> {
    [b"s", write_host(host).as_bytes()].concat()
}

/// The field of a session in the table of its topic.
pub fn write_field(host: Host, session: &[u8]) -> Vec<u8> {
    [write_host(host).as_bytes(), session].concat()
}

/// Reads that.
pub fn read_field(bytes: &[u8]) -> Option<(Host, &[u8])> {
    let (host, session) = bytes.split_at_checked(NODE + TURN)?;
    Some((read_host(host)?, session))
}

/// What stands in such a field.
pub fn write_saying(saying: &Saying) -> Vec<u8> {
    let said = saying.said.as_deref();
    let mut bytes = Vec::with_capacity(16 + said.map_or(0, <[u8]>::len));
    bytes.push(VERSION);
    write_array(&mut bytes, 2);
    write_uint(&mut bytes, saying.when);
    write_bin_or_nil(&mut bytes, said);
    bytes
}

/// Reads that.
pub fn read_saying(bytes: &[u8]) -> Result<Saying, Unreadable> {
    let rest = versioned(bytes)?;
    saying(&mut Bytes::new(rest)).ok_or(Unreadable::Malformed)
}

fn saying(reader: &mut Bytes<'_>) -> Option<Saying> {
    (decode::read_array_len(reader).ok()? >= 2).then_some(())?;
    let when = decode::read_int(reader).ok()?;
    let said = read_bin_or_nil(reader)?.map(Into::into);
    Some(Saying { when, said })
}

/// What is pushed: fields of a table with what stands in them now, if anything.
pub fn write_changes<'a>(changes: &[(&'a [u8], Option<&'a [u8]>)]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    write_array(&mut bytes, changes.len());
    for (field, value) in changes {
        write_array(&mut bytes, 2);
        write_bin(&mut bytes, field);
        write_bin_or_nil(&mut bytes, *value);
    }
    bytes
}

/// What was read of one session.
pub type Read = Told<Option<Result<Saying, Unreadable>>>;

impl Read {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let said = match &self.says {
            Some(Ok(saying)) => saying.said.as_deref().map_or(0, <[u8]>::len),
            _ => 0,
        };
        size_of::<Self>() + self.session.len() + said
    }
}

/// Reads that.
pub fn read_changes(bytes: &[u8]) -> Result<Vec<Read>, Unreadable> {
    let rest = versioned(bytes)?;
    changes(&mut Bytes::new(rest)).ok_or(Unreadable::Malformed)
}

fn changes(reader: &mut Bytes<'_>) -> Option<Vec<Read>> {
    let count = decode::read_array_len(reader).ok()?;
    // One after the other: the count may say anything.
    (0..count)
        .map(|_| {
            (decode::read_array_len(reader).ok()? == 2).then_some(())?;
            let (host, session) = read_field(read_bin(reader)?)?;
            let value = read_bin_or_nil(reader)?;
            Some(Told {
                host,
                session: session.to_vec(),
                says: value.map(read_saying),
            })
        })
        .collect()
}
