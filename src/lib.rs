//! The native module `pagebus._core`: its table of contents, nothing else. Loom's models, which
//! libraries that know loom cannot stand, see the core alone.

#[cfg(not(loom))]
mod close;
#[cfg(not(loom))]
pub mod cluster;
#[cfg(not(loom))]
mod codec;
pub mod core;
#[cfg(not(loom))]
mod delivery;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod history;
#[cfg(not(loom))]
mod hub;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
mod name;
#[cfg(not(loom))]
mod number;
#[cfg(not(loom))]
mod once;
#[cfg(not(loom))]
mod presence;
#[cfg(not(loom))]
mod pubsub;
#[cfg(not(loom))]
mod python;
#[cfg(not(loom))]
mod ranking;
#[cfg(not(loom))]
mod record;
#[cfg(not(loom))]
mod report;
#[cfg(not(loom))]
pub mod reserve;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod stream;
#[cfg(not(loom))]
mod subscribe;
#[cfg(not(loom))]
mod subscription;
#[cfg(not(loom))]
mod timing;

/// The private half of the package `pagebus`.
#[cfg(not(loom))]
#[pyo3::pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::codec::{DecodeError, MessagePack, register};
    #[pymodule_export]
    use super::hub::{HubClosed, PubSubHub};
    #[pymodule_export]
    use super::link::OutboxFull;
    #[pymodule_export]
    use super::presence::Presence;
    #[pymodule_export]
    use super::pubsub::PubSub;
    #[pymodule_export]
    use super::report::{HandlerFailure, Overflow};
    #[pymodule_export]
    use super::stats::{BusyTopic, FailingHandler, SlowHandler, Stats};
    #[pymodule_export]
    use super::stream::{Listener, Stream};
    #[pymodule_export]
    use super::subscription::Subscription;

    /// Imports and makes now what deliveries need later: a daemon thread that does it while the process
    /// exits would be ended in the middle of it.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        for name in [
            "asyncio",
            "contextvars",
            "functools",
            "inspect",
            "logging",
            "operator",
            "threading",
            "traceback",
            "types",
        ] {
            module.py().import(name)?;
        }
        for name in ["pagebus._closing", "pagebus._fork", "pagebus._task"] {
            module.py().import(name)?;
        }
        super::codec::prepare(module.py())?;
        prepare_classes(module.py());
        // Before what a program registers, and so after it: that may send.
        super::link::exit::watch(module.py())?;
        super::fork::watch(module.py())
    }

    /// The classes that are not in the module.
    fn prepare_classes(py: Python<'_>) {
        py.get_type::<super::close::Closing>();
        py.get_type::<super::delivery::drain::Drain>();
        py.get_type::<super::delivery::event_loop::Starter>();
        py.get_type::<super::delivery::executor::Job>();
        py.get_type::<super::delivery::nudge::Nudged>();
        py.get_type::<super::link::Courier>();
        py.get_type::<super::stream::Step>();
    }

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
