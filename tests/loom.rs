//! The core under every interleaving of a few threads: `make loom`.
//!
//! The router, the fan-out and the loop of a worker are the real ones. The models stand in for
//! what is around them: the lock, the run queue, the executor's threads, the event loop. How many
//! times threads are switched away from before they have to wait is bounded (`PREEMPTIONS`, or the
//! environment variable `LOOM_MAX_PREEMPTIONS`).
#![cfg(loom)]
#![expect(
    clippy::unwrap_used,
    reason = "a lock is poisoned where its model has failed already"
)]

#[path = "loom/closing.rs"]
mod closing;
#[path = "loom/hub.rs"]
mod hub;
#[path = "loom/inline.rs"]
mod inline;
#[path = "loom/loops.rs"]
mod loops;
#[path = "loom/workers.rs"]
mod workers;
