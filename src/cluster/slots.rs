//! Which server of a cluster has which channels: by the slot of their names.

use redis::{ConnectionInfo, Value};

use super::url;

/// Which server has which slots.
#[derive(Default)]
pub struct Slots {
    /// First and last slot, and the one that takes writes there.
    ranges: Vec<(u16, u16, ConnectionInfo)>,
    /// All servers, replicas too: each can be asked.
    servers: Vec<ConnectionInfo>,
}

impl Slots {
    /// From the answer of one server to CLUSTER SLOTS.
    pub fn read(answer: Value, asked: &ConnectionInfo) -> Self {
        let mut slots = Self::default();
        for range in list(answer) {
            let mut range = list(range).into_iter();
            let (Some(first), Some(last)) = (slot(range.next()), slot(range.next())) else {
                continue;
            };
            let mut servers = range.filter_map(|server| place(server, asked));
            if let Some(master) = servers.next() {
                slots.add(&master);
                slots.ranges.push((first, last, master));
            }
            for replica in servers {
                slots.add(&replica);
            }
        }
        slots
    }

    fn add(&mut self, server: &ConnectionInfo) {
        if !self
            .servers
            .iter()
            .any(|known| known.addr() == server.addr())
        {
            self.servers.push(server.clone());
        }
    }

    /// All servers.
    pub fn servers(&self) -> &[ConnectionInfo] {
        &self.servers
    }

    /// Which of the servers takes what has a name; they may be numbered anew with each look at them.
    pub fn place_of(&self, name: &[u8]) -> usize {
        let server = self.server_of(name).map(ConnectionInfo::addr);
        let mut servers = self.servers.iter().map(ConnectionInfo::addr);
        let place = servers.position(|known| Some(known) == server);
        place.unwrap_or(self.servers.len())
    }

    /// The one that takes what has a name.
    pub fn server_of(&self, name: &[u8]) -> Option<&ConnectionInfo> {
        let slot = slot_of(name);
        let mut ranges = self.ranges.iter();
        let range = ranges.find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.map(|(_, _, server)| server)
    }
}

/// The slot of a name: that of its hash tag.
pub fn slot_of(name: &[u8]) -> u16 {
    let tag = name.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &name[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(name)) % 16384
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn slot(value: Option<Value>) -> Option<u16> {
    match value {
        Some(Value::Int(slot)) => slot.try_into().ok(),
        _ => None,
    }
}

fn place(server: Value, asked: &ConnectionInfo) -> Option<ConnectionInfo> {
    let mut server = list(server).into_iter();
    let host = match server.next()? {
        Value::BulkString(host) => String::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        // It does not know its own name.
        Value::Nil => String::new(),
        _ => return None,
    };
    let port = slot(server.next())?;
    match &*host {
        "?" => None,
        "" => Some(url::at(asked, url::host(asked), port)),
        host => Some(url::at(asked, host, port)),
    }
}
