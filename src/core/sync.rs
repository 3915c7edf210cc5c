//! The atomics of the core: the standard library's, or loom's where loom tries every interleaving.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
