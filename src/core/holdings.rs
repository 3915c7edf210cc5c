//! The subscriptions of one session: a short list, which most sessions never outgrow, or a tree.

use std::collections::BTreeMap;

use triomphe::Arc;

use super::TopicKey;
use super::subscription::Subscription;

/// As long as a scan of the list is as fast as a search of the tree.
const FEW: usize = 32;
/// A list begins with room for so many, and grows by at least as many as [`STEP`].
const FIRST: usize = 3;
const STEP: usize = 2;

type Entry<H> = Arc<Subscription<H>>;
type Tree<H> = BTreeMap<(TopicKey, u64), Entry<H>>;

/// The subscriptions of one session.
pub enum Holdings<H> {
    /// In order of subscription.
    Few(Vec<Entry<H>>),
    /// By topic, and in order of subscription. In a box, so that short lists have room for no more.
    Many(Box<Tree<H>>),
}

impl<H> Holdings<H> {
    /// No subscription.
    pub const fn new() -> Self {
        Self::Few(Vec::new())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(tree) => tree.is_empty(),
        }
    }

    /// The one that was entered last, or nearly so.
    pub fn last(&self) -> Option<&Entry<H>> {
        match self {
            Self::Few(list) => list.last(),
            Self::Many(tree) => tree.values().next_back(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<H>> {
        let (few, many) = self.parts();
        few.iter()
            .chain(many.into_iter().flat_map(BTreeMap::values))
    }

    /// Those on one topic, in order; `topic_of` tells a subscription's topic.
    pub fn on_topic(
        &self,
        topic: TopicKey,
        topic_of: impl Fn(&Subscription<H>) -> TopicKey,
    ) -> impl Iterator<Item = &Entry<H>> {
        let (few, many) = self.parts();
        let range = (topic, 0)..=(topic, u64::MAX);
        let many = many
            .into_iter()
            .flat_map(move |tree| tree.range(range.clone()));
        let few = few.iter().filter(move |s| topic_of(s) == topic);
        few.chain(many.map(|(_, subscription)| subscription))
    }

    /// Enters a subscription, which is younger than all there are.
    pub fn insert(
        &mut self,
        subscription: Entry<H>,
        topic_of: impl Fn(&Subscription<H>) -> TopicKey,
    ) {
        match self {
            Self::Few(list) if list.len() < FEW => {
                if list.len() == list.capacity() {
                    list.reserve_exact(if list.is_empty() {
                        FIRST
                    } else {
                        STEP.max(list.len() / 4)
                    });
                }
                list.push(subscription);
            }
            Self::Few(list) => {
                let all = std::mem::take(list).into_iter().chain([subscription]);
                let tree = all.map(|s| ((topic_of(&s), s.serial), s)).collect();
                *self = Self::Many(Box::new(tree));
            }
            Self::Many(tree) => {
                tree.insert((topic_of(&subscription), subscription.serial), subscription);
            }
        }
    }

    /// Takes a subscription on `topic` out. The caller's own reference keeps it alive.
    pub fn remove(&mut self, subscription: &Entry<H>, topic: TopicKey) {
        match self {
            Self::Few(list) => {
                if let Some(at) = list.iter().position(|s| Arc::ptr_eq(s, subscription)) {
                    list.remove(at);
                }
            }
            Self::Many(tree) => {
                tree.remove(&(topic, subscription.serial));
            }
        }
    }

    fn parts(&self) -> (&[Entry<H>], Option<&Tree<H>>) {
        match self {
            Self::Few(list) => (list, None),
            Self::Many(tree) => (&[], Some(tree)),
        }
    }
}
