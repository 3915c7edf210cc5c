//! What a child process takes over from the process that forked it.
//!
//! A child has a copy of everything, and of all threads only the one that forked. What is queued is
//! the parent's to deliver: a hub that is used in a child first lets go of its copy of that. Event
//! loops that were running and the threads of an executor are not there; lanes are told at once,
//! because nobody could tell later what was there at the fork.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use once_cell::race::OnceBox;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How many forks lie between this process and the one that loaded the module.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The process that something belongs to.
pub struct Process(AtomicU32);

impl Process {
    /// This one.
    pub fn this() -> Self {
        Self(AtomicU32::new(FORKS.load(Ordering::Relaxed)))
    }

    /// Whether it is this one, and not one that this was forked from.
    #[inline]
    pub fn is_this(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FORKS.load(Ordering::Relaxed)
    }

    /// From now on it is this one.
    pub fn becomes_this(&self) {
        self.0
            .store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A value of which a child process has its own. Those of its ancestors stay where they are: the
/// thread that forked may be in the middle of using one.
pub struct Inherited<T> {
    value: T,
    next: OnceBox<Self>,
}

impl<T> Inherited<T> {
    /// The value of this process.
    pub fn new(value: T) -> Self {
        Self {
            value,
            next: OnceBox::new(),
        }
    }

    /// This process's value.
    #[inline]
    pub fn get(&self) -> &T {
        &self.last().value
    }

    /// Gives a child process its own.
    pub fn replace(&self, value: T) {
        // Only the thread that forked is there to do so.
        let _ = self.last().next.set(Box::new(Self::new(value)));
    }

    #[inline]
    fn last(&self) -> &Self {
        let mut link = self;
        while let Some(next) = link.next.get() {
            link = next;
        }
        link
    }
}

/// What has to know of a fork at once.
pub trait Heir: Send + Sync {
    /// Called in the child, by its only thread.
    fn inherit(&self, py: Python<'_>);
}

static HEIRS: Mutex<Vec<Weak<dyn Heir>>> = Mutex::new(Vec::new());

/// A pointer to what is told of forks. The list of all heirs refers to it weakly, for which the
/// pointers to the many small things of a hub have no room.
pub type Shared<T> = Arc<T>;

/// Shares what is to be told of forks.
pub fn share<T: Heir + 'static>(heir: T) -> Shared<T> {
    let heir = Shared::new(heir);
    let shared: Shared<dyn Heir> = heir.clone();
    let weak = Arc::downgrade(&shared);
    let mut heirs = HEIRS.lock();
    if heirs.len() == heirs.capacity() {
        heirs.retain(|heir| heir.strong_count() > 0);
    }
    heirs.push(weak);
    heir
}

#[pyfunction]
fn after_fork_in_child(py: Python<'_>) {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let heirs: Vec<_> = HEIRS.lock().iter().filter_map(Weak::upgrade).collect();
    for heir in heirs {
        heir.inherit(py);
    }
}

/// Asks to be told of forks, where there are any.
pub fn watch(py: Python<'_>) -> PyResult<()> {
    if let Ok(register) = py.import("os")?.getattr("register_at_fork") {
        let keywords = PyDict::new(py);
        let hook = wrap_pyfunction!(after_fork_in_child, py)?;
        keywords.set_item("after_in_child", hook)?;
        register.call((), Some(&keywords))?;
    }
    Ok(())
}
