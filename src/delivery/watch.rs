//! Noticing when somebody takes an interest in the task that runs.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use crate::once::Imported;
use crate::python;

/// What tells of interest in a task, beside the task itself.
#[derive(Default)]
pub struct Interest {
    /// Somebody looked at the task.
    touched: AtomicBool,
    /// The newest weak reference to the task when it was made.
    weak_references: AtomicPtr<ffi::PyObject>,
}

impl Interest {
    /// Notes that somebody looks at the task.
    pub fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    /// Notes what refers weakly to a task that was just made: asyncio itself does.
    pub fn begin(&self, task: &Bound<'_, PyAny>) {
        let newest = newest_weak_reference(task.as_borrowed());
        self.weak_references.store(newest, Ordering::Release);
    }
}

/// The task that runs now, as it is before a handler is called. A handler that looks at its
/// attributes, keeps it, or refers to it weakly, may want to cancel it later: nobody else's call
/// may be made in it then.
pub struct Watch<'a, 'py> {
    task: Bound<'py, PyAny>,
    references: isize,
    interest: &'a Interest,
}

impl<'a, 'py> Watch<'a, 'py> {
    /// Watches the task that runs on `event_loop`, whose interest that is.
    pub fn new(event_loop: &Bound<'py, PyAny>, interest: &'a Interest) -> PyResult<Self> {
        static CELL: Imported = Imported::new("asyncio", "current_task");
        let current_task = CELL.get(event_loop.py())?;
        let task = python::call(current_task, [event_loop])?;
        interest.touched.store(false, Ordering::Release);
        let references = python::references(&task);
        Ok(Self {
            task,
            references,
            interest,
        })
    }

    /// Whether the task is of interest to a handler.
    #[inline]
    pub fn is_owned(&self) -> bool {
        let (task, interest) = (self.task.as_borrowed(), self.interest);
        interest.touched.load(Ordering::Acquire)
            || python::references(&self.task) > self.references
            || newest_weak_reference(task) != interest.weak_references.load(Ordering::Acquire)
    }
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
