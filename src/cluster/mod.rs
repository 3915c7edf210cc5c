//! Hubs of several processes that are one: what they tell each other through a broker.
//!
//! A *channel* is what is told in one order: what is sent to all, a topic, what is sent to one
//! session. The broker keeps a log of each and pushes what is new to the nodes that want it.

pub mod broker;
pub mod engine;
pub mod members;
pub mod names;
pub mod node;
pub mod outbox;
pub mod position;
pub mod redis;
pub mod replicas;
pub mod sentinel;
pub mod sharded;
pub mod slots;
pub mod url;
pub mod wire;

pub use crate::core::interest::Channel;
