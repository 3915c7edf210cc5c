//! Taking a lock while attached to the interpreter, without ever blocking it.

use parking_lot::{Mutex, MutexGuard};
use pyo3::Python;

use crate::python;

/// Locks `mutex`. The guard must be gone before any Python code can run.
///
/// Whoever holds a lock runs no Python and is done within a microsecond, so the wait is a yield,
/// made detached so that neither the holder nor a stop of the world ever waits for it. With a GIL
/// the router's lock is always free: it is only ever taken attached, which also keeps the two
/// passes of the garbage collector over the same state consistent.
pub fn lock<'a, T>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    loop {
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        python::detached(py, std::thread::yield_now);
    }
}
