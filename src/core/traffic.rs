//! Which topics are sent to most.

use smallvec::SmallVec;

use super::TopicKey;

/// How many topics are told.
const MOST: usize = 32;

/// The topics that are sent to most, nearly: a topic is looked at again when the number of its
/// messages is a power of two, or has grown by a few.
#[derive(Default)]
pub struct Busiest {
    /// Inline: a send takes no memory to be counted.
    topics: SmallVec<[(TopicKey, u64); MOST]>,
}

impl Busiest {
    /// Whether a topic is to be looked at after so many messages.
    #[inline]
    pub fn looks_at(published: u64) -> bool {
        published.is_power_of_two() || published.is_multiple_of(16)
    }

    /// Looks at a topic after so many messages.
    #[cold]
    pub fn look(&mut self, topic: TopicKey, published: u64) {
        if let Some(known) = self.topics.iter_mut().find(|(key, _)| *key == topic) {
            known.1 = published;
        } else if self.topics.len() < MOST {
            self.topics.push((topic, published));
        } else if let Some(least) = self.topics.iter_mut().min_by_key(|(_, count)| *count)
            && least.1 < published
        {
            *least = (topic, published);
        }
    }

    /// Forgets a topic that ends.
    pub fn forget(&mut self, topic: TopicKey) {
        self.topics.retain(|(key, _)| *key != topic);
    }

    /// The topics.
    pub fn iter(&self) -> impl Iterator<Item = TopicKey> {
        self.topics.iter().map(|(topic, _)| *topic)
    }
}
