//! Where there are subscribers: for those who bring messages from elsewhere.

use super::Name;

/// What is told in one order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Messages sent to all.
    All,
    /// Messages on a topic.
    Topic(Name),
    /// Messages to one session.
    Session(Name),
    /// Who is on a topic.
    Presence(Name),
}

/// Notes where the first subscriber came and the last one went.
#[derive(Default)]
pub struct Interest {
    /// Subscriptions to what is sent to all.
    to_all: usize,
    changed: Vec<(Channel, bool)>,
}

impl Interest {
    /// A handler of messages to all came, perhaps as the first one of its session.
    pub fn came_to_all(&mut self, first_of: Option<&[u8]>) {
        self.to_all += 1;
        if self.to_all == 1 {
            self.note(Channel::All, true);
        }
        if let Some(session) = first_of {
            self.note(Channel::Session(session.into()), true);
        }
    }

    /// One went, perhaps as the last one of its session.
    pub fn left_all(&mut self, last_of: Option<&[u8]>) {
        self.to_all -= 1;
        if self.to_all == 0 {
            self.note(Channel::All, false);
        }
        if let Some(session) = last_of {
            self.note(Channel::Session(session.into()), false);
        }
    }

    /// Notes that there are subscribers now, or none any more.
    pub fn note(&mut self, channel: Channel, wanted: bool) {
        self.changed.push((channel, wanted));
    }

    /// What was noted, in order.
    pub fn take(&mut self) -> Vec<(Channel, bool)> {
        std::mem::take(&mut self.changed)
    }
}
