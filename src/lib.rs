//! The native module `pagebus._core`: its table of contents, nothing else.

mod close;
pub mod core;
mod delivery;
mod fork;
mod hub;
mod lock;
mod name;
mod pubsub;
mod python;
mod report;
mod stats;
mod subscribe;
mod subscription;

/// The private half of the package `pagebus`.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

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

    /// Imports now what deliveries need later: a daemon thread that imports while the process
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
            "types",
        ] {
            module.py().import(name)?;
        }
        for name in ["pagebus._closing", "pagebus._fork", "pagebus._task"] {
            module.py().import(name)?;
        }
        super::fork::watch(module.py())
    }

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
