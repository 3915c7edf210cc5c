//! The end of the process: what waits in outboxes gets a moment to be published.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::GLANCE;
use crate::cluster::node::Handle;
use crate::fork::Process;
use crate::python;
use crate::report;

/// All links together have so long: a process ends within a second, whatever the broker does.
const LIMIT: Duration = Duration::from_millis(750);

static HANDLES: Mutex<Vec<(Process, Weak<Handle>)>> = Mutex::new(Vec::new());

/// Remembers what is to be emptied at the end. Called attached, so that no fork comes in between.
pub fn remember(handle: &Arc<Handle>) {
    let mut handles = HANDLES.lock();
    if handles.len() == handles.capacity() {
        handles.retain(|(_, handle)| handle.strong_count() > 0);
    }
    handles.push((Process::this(), Arc::downgrade(handle)));
}

/// Those of this process: a parent's are the parent's to empty, and may be locked for ever.
fn handles() -> Vec<Arc<Handle>> {
    let handles = HANDLES.lock();
    let own = handles.iter().filter(|(process, _)| process.is_this());
    own.filter_map(|(_, handle)| handle.upgrade()).collect()
}

/// Waits for what is not published yet, and says how much of it never will be.
#[pyfunction]
fn publish_what_is_left(py: Python<'_>) -> PyResult<()> {
    let (handles, begin) = (handles(), Instant::now());
    let mut interrupted = Ok(());
    for handle in &handles {
        let mut is_empty = false;
        while !is_empty && interrupted.is_ok() && begin.elapsed() < LIMIT {
            let left = LIMIT.saturating_sub(begin.elapsed());
            python::detached(py, || is_empty = handle.wait_until_empty(left.min(GLANCE)));
            interrupted = py.check_signals();
        }
    }
    let left = handles.iter().map(|handle| handle.unpublished().0).sum();
    report::left_behind(py, left)?;
    interrupted
}

/// Has that done when the process ends.
pub fn watch(py: Python<'_>) -> PyResult<()> {
    let publish = wrap_pyfunction!(publish_what_is_left, py)?;
    py.import("atexit")?.call_method1("register", (publish,))?;
    Ok(())
}
