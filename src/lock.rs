//! Taking a lock while attached to the interpreter, without ever blocking it.

use parking_lot::{Mutex, MutexGuard};
use pyo3::Python;

/// Locks `mutex`. The guard must be gone before any Python code can run.
///
/// With a GIL the lock is always free: whoever holds it is attached and runs no Python. On
/// free-threaded builds its holder is done within a microsecond, so the wait is a yield, made
/// detached so that a stop of the world never waits for it. The lock itself is only ever taken
/// attached: that keeps the two passes of the garbage collector over the same state consistent.
pub fn lock<'a, T>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    loop {
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        py.detach(std::thread::yield_now);
    }
}
