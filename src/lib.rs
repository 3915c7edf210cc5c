//! The native module `pagebus._core`: its table of contents, nothing else.

pub mod core;
mod delivery;
mod hub;
mod lock;
mod name;
mod pubsub;
mod python;
mod report;
mod stats;
mod subscription;

/// The private half of the package `pagebus`.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::hub::{HubClosed, PubSubHub};
    #[pymodule_export]
    use super::pubsub::PubSub;
    #[pymodule_export]
    use super::report::{HandlerFailure, Overflow};
    #[pymodule_export]
    use super::stats::Stats;
    #[pymodule_export]
    use super::subscription::Subscription;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
