//! What stands in an entry of a channel's log, byte by byte: `docs/wire.md` says it in words.

pub mod members;

use std::time::{SystemTime, UNIX_EPOCH};

use rmp::decode::{self, bytes::Bytes};
use rmp::encode;

use super::position::{Id, Mark, Placed};

/// The version that is written; higher ones are left to those who know them.
pub const VERSION: u8 = 1;

/// A node's name for itself, made anew whenever it begins.
pub type Publisher = [u8; 16];

/// What one node published at once on a channel.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Who published it.
    pub publisher: Publisher,
    /// The number of its last message, of those that the publisher has sent.
    pub sequence: u64,
    /// When it was published, in milliseconds since 1970.
    pub time: u64,
    /// In the order in which they were sent.
    pub messages: Vec<Message<'a>>,
}

/// One message of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The session that does not get it.
    pub except: Option<&'a [u8]>,
    /// What the codec made of it.
    pub payload: &'a [u8],
}

/// Why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is of a version that came later.
    Newer(u8),
    /// It is no entry.
    Malformed,
}

/// The bytes of an entry.
pub fn write(entry: &Entry<'_>) -> Vec<u8> {
    let size: usize = entry.messages.iter().map(Message::size).sum();
    let mut bytes = Vec::with_capacity(48 + size);
    bytes.push(VERSION);
    write_array(&mut bytes, 4);
    write_bin(&mut bytes, &entry.publisher);
    write_uint(&mut bytes, entry.sequence);
    write_uint(&mut bytes, entry.time);
    write_array(&mut bytes, entry.messages.len());
    for message in &entry.messages {
        message.write(&mut bytes);
    }
    bytes
}

/// Reads an entry. What follows it is left alone: a later version of the format may put more there.
pub fn read(bytes: &[u8]) -> Result<Entry<'_>, Unreadable> {
    read_entry(versioned(bytes)?).ok_or(Unreadable::Malformed)
}

/// What follows the version, if it is ours.
fn versioned(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&version, _)) if version > VERSION => Err(Unreadable::Newer(version)),
        _ => Err(Unreadable::Malformed),
    }
}

/// Puts the bytes of an entry in a place; what cannot be read has one too.
pub fn place(id: Id, bytes: Vec<u8>) -> Placed<Vec<u8>> {
    let mark = read_mark(&bytes);
    Placed {
        id,
        mark,
        entry: bytes,
    }
}

impl Message<'_> {
    /// About how many bytes it takes in an entry.
    pub fn size(&self) -> usize {
        self.payload.len() + self.except.map_or(0, <[u8]>::len) + 11
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        write_array(bytes, 2);
        write_bin_or_nil(bytes, self.except);
        write_bin(bytes, self.payload);
    }
}

/// Milliseconds since 1970, as entries have them.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

// Writing into memory does not fail. Lengths are below four billion: messages have a limit.

#[expect(clippy::cast_possible_truncation, reason = "a batch is limited")]
fn write_array(bytes: &mut Vec<u8>, len: usize) {
    let _ = encode::write_array_len(bytes, len as u32);
}

fn write_uint(bytes: &mut Vec<u8>, value: u64) {
    let _ = encode::write_uint(bytes, value);
}

fn write_bin(bytes: &mut Vec<u8>, value: &[u8]) {
    let _ = encode::write_bin(bytes, value);
}

fn write_bin_or_nil(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => write_bin(bytes, value),
        None => {
            let _ = encode::write_nil(bytes);
        }
    }
}

/// What an entry of this version begins with.
fn read_mark(bytes: &[u8]) -> Option<Mark> {
    read_beginning(&mut Bytes::new(versioned(bytes).ok()?))
}

fn read_beginning(reader: &mut Bytes<'_>) -> Option<Mark> {
    (decode::read_array_len(reader).ok()? == 4).then_some(())?;
    let publisher = read_bin(reader)?.try_into().ok()?;
    let sequence = decode::read_int(reader).ok()?;
    Some(Mark {
        publisher,
        sequence,
    })
}

fn read_entry(bytes: &[u8]) -> Option<Entry<'_>> {
    let mut reader = Bytes::new(bytes);
    let Mark {
        publisher,
        sequence,
    } = read_beginning(&mut reader)?;
    let time = decode::read_int(&mut reader).ok()?;
    let count = decode::read_array_len(&mut reader).ok()?;
    // One after the other: the count may say anything.
    let messages = (0..count)
        .map(|_| read_message(&mut reader))
        .collect::<Option<_>>()?;
    Some(Entry {
        publisher,
        sequence,
        time,
        messages,
    })
}

fn read_message<'a>(reader: &mut Bytes<'a>) -> Option<Message<'a>> {
    (decode::read_array_len(reader).ok()? == 2).then_some(())?;
    let except = read_bin_or_nil(reader)?;
    let payload = read_bin(reader)?;
    Some(Message { except, payload })
}

fn read_bin<'a>(reader: &mut Bytes<'a>) -> Option<&'a [u8]> {
    let len = decode::read_bin_len(reader).ok()? as usize;
    let rest = reader.remaining_slice();
    let (value, rest) = rest.split_at_checked(len)?;
    *reader = Bytes::new(rest);
    Some(value)
}

#[expect(
    clippy::option_option,
    reason = "nothing was read, or that there is nothing"
)]
fn read_bin_or_nil<'a>(reader: &mut Bytes<'a>) -> Option<Option<&'a [u8]>> {
    if *reader.remaining_slice().first()? == 0xc0 {
        decode::read_nil(reader).ok()?;
        return Some(None);
    }
    read_bin(reader).map(Some)
}
