//! Noticing when somebody takes an interest in the task that runs.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{Borrowed, ffi};

/// The task that runs now, as it is before a handler is called. A handler that looks at its
/// attributes, keeps it, or refers to it weakly, may want to cancel it later: nobody else's call
/// may be made in it then.
pub struct Watch<'a, 'py> {
    task: Bound<'py, PyAny>,
    references: isize,
    weak_references: *mut ffi::PyObject,
    touched: &'a AtomicBool,
}

impl<'a, 'py> Watch<'a, 'py> {
    /// Watches the current task; `touched` tells of looks at its attributes.
    pub fn new(py: Python<'py>, touched: &'a AtomicBool) -> PyResult<Self> {
        static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let task = CELL.import(py, "asyncio", "current_task")?.call0()?;
        touched.store(false, Ordering::Release);
        let references = references(task.as_borrowed());
        let weak_references = newest_weak_reference(task.as_borrowed());
        Ok(Self {
            task,
            references,
            weak_references,
            touched,
        })
    }

    /// Whether the task is of interest to a handler.
    #[inline]
    pub fn is_owned(&self) -> bool {
        let task = self.task.as_borrowed();
        self.touched.load(Ordering::Acquire)
            || references(task) > self.references
            || newest_weak_reference(task) != self.weak_references
    }
}

fn references(object: Borrowed<'_, '_, PyAny>) -> isize {
    // SAFETY: attached, and `object` is alive.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// The head of an object's list of weak references: it changes when one is made.
fn newest_weak_reference(object: Borrowed<'_, '_, PyAny>) -> *mut ffi::PyObject {
    // SAFETY: attached, and `object` is alive. A `tp_weaklistoffset` that is not zero is the place
    // of a pointer in the object, or before it, which is read and not followed.
    unsafe {
        let offset = (*ffi::Py_TYPE(object.as_ptr())).tp_weaklistoffset;
        if offset == 0 {
            return std::ptr::null_mut();
        }
        object
            .as_ptr()
            .byte_offset(offset)
            .cast::<*mut ffi::PyObject>()
            .read()
    }
}
