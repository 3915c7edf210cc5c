//! The contexts in which handlers run: copies of the one in which each subscribed.
//!
//! What a call changes in its context ends with the call. A copy that a call left as it was is as
//! good as a fresh one, so the next handler gets it: as it is, if it subscribed with the same
//! variables, else with its own variables put into it. So most calls cost no copy.

use std::ffi::{c_int, c_void};
use std::ptr;

use once_cell::sync::OnceCell;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::python::{Raised, references};

/// The context of the code that subscribed a handler. Only copies of it are ever entered, so
/// handlers that subscribed with the same variables can share one.
pub struct Captured(Py<PyAny>);

impl Captured {
    /// A copy of the current context.
    pub fn current(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: attached; the result is a new reference or null with an exception set.
        let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }?;
        Ok(Self(context.unbind()))
    }

    /// A context with the same variables.
    pub fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.try_copy(py).map_err(|raised| raised.fetch(py))
    }

    fn try_copy<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>, Raised> {
        // SAFETY: attached; it is a context object; the result is a new reference or null with an
        // exception set.
        let copy = unsafe { ffi::PyContext_Copy(self.0.as_ptr()) };
        // SAFETY: as above.
        unsafe { Bound::from_owned_ptr_or_opt(py, copy) }.ok_or(Raised)
    }

    /// The same, for another handler.
    pub fn share(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// Whether both have the same variables.
    pub fn equals(&self, py: Python<'_>, other: &Self) -> bool {
        Variables::of(self.0.bind(py)) == Variables::of(other.0.bind(py))
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

/// The contexts of one call after another, on one thread.
pub struct Contexts<'py> {
    py: Python<'py>,
    entered: Option<Entered<'py>>,
    /// A context that was left untouched, for the next call.
    spare: Option<Spare<'py>>,
}

impl<'py> Contexts<'py> {
    /// Nobody's context.
    pub fn new(py: Python<'py>) -> Self {
        Self {
            py,
            entered: None,
            spare: None,
        }
    }

    /// Makes a context with the captured variables current: a fresh copy, or one that nobody can
    /// tell from it.
    #[inline]
    pub fn enter(&mut self, captured: &Captured) -> Result<(), Raised> {
        let variables = Variables::of(captured.0.bind(self.py));
        if let Some(entered) = &mut self.entered
            && entered.is_untouched()
            && (entered.variables == variables || entered.enter_again(variables))
        {
            return Ok(());
        }
        self.leave();
        let spare = self.spare.take().and_then(|spare| spare.with(variables));
        let context = match spare {
            Some(context) => context,
            None => captured.try_copy(self.py)?,
        };
        self.entered = Some(Entered::new(context, variables)?);
        Ok(())
    }

    /// The context that was entered, to go on in it later; it is left.
    pub fn take(&mut self) -> Option<Bound<'py, PyAny>> {
        let entered = self.entered.take()?;
        Some(entered.context.clone())
    }

    /// Makes the context current that was before.
    #[inline]
    pub fn leave(&mut self) {
        if let Some(entered) = self.entered.take() {
            self.spare = entered.leave();
        }
    }
}

/// A context that is current until this is dropped.
pub struct Entered<'py> {
    context: Bound<'py, PyAny>,
    variables: Variables,
    references: isize,
    is_left: bool,
}

impl<'py> Entered<'py> {
    /// Enters a context.
    pub fn enter(context: Bound<'py, PyAny>) -> Result<Self, Raised> {
        let variables = Variables::of(&context);
        Self::new(context, variables)
    }

    #[inline]
    fn new(context: Bound<'py, PyAny>, variables: Variables) -> Result<Self, Raised> {
        // SAFETY: attached, and `context` is a context object.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
            return Err(Raised);
        }
        let references = references(&context);
        Ok(Self {
            context,
            variables,
            references,
            is_left: false,
        })
    }

    /// Whether it is as it was when it was entered: it has the same variables, and nobody refers
    /// to it, as the token of a change does.
    #[inline]
    fn is_untouched(&self) -> bool {
        references(&self.context) == self.references
            && Variables::of(&self.context) == self.variables
    }

    /// Leaves one that is untouched, and enters it with other variables; `false` where that cannot
    /// be done.
    #[inline]
    fn enter_again(&mut self, variables: Variables) -> bool {
        let Some(place) = Place::to_put(variables) else {
            return false;
        };
        if !self.exit() {
            return false;
        }
        place.put(&self.context, variables);
        self.variables = variables;
        // SAFETY: attached, and it is a context object.
        self.is_left = unsafe { ffi::PyContext_Enter(self.context.as_ptr()) } != 0;
        if self.is_left {
            let py = self.context.py();
            PyErr::fetch(py).write_unraisable(py, Some(&self.context));
        }
        !self.is_left
    }

    /// Leaves it. One that was not touched can be entered again.
    #[inline]
    fn leave(mut self) -> Option<Spare<'py>> {
        let is_untouched = self.is_untouched();
        let is_spare = !self.is_left && self.exit() && is_untouched;
        is_spare.then(|| Spare {
            context: self.context.clone(),
            variables: self.variables,
        })
    }

    /// Tells whether it could be left: code written in C can enter contexts and stay in them.
    #[inline]
    fn exit(&mut self) -> bool {
        self.is_left = true;
        // SAFETY: attached; this context was entered on this thread, and no exception is set:
        // results of calls were fetched before.
        let status: c_int = unsafe { ffi::PyContext_Exit(self.context.as_ptr()) };
        if status != 0 {
            let py = self.context.py();
            PyErr::fetch(py).write_unraisable(py, Some(&self.context));
        }
        status == 0
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.is_left {
            self.exit();
        }
    }
}

/// A context that nobody else refers to and that is not entered.
struct Spare<'py> {
    context: Bound<'py, PyAny>,
    variables: Variables,
}

impl<'py> Spare<'py> {
    /// The context with those variables, which a context has that is alive: as a copy of that one
    /// would be. `None` where that cannot be done.
    #[inline]
    fn with(self, variables: Variables) -> Option<Bound<'py, PyAny>> {
        if self.variables == variables {
            return Some(self.context);
        }
        Place::to_put(variables)?.put(&self.context, variables);
        Some(self.context)
    }
}

/// The identity of a context's variables. A context keeps them in an immutable mapping, which its
/// copies share and which every change replaces.
#[derive(Clone, Copy)]
struct Variables(*mut ffi::PyObject);

impl PartialEq for Variables {
    /// Unknown variables are never the same.
    fn eq(&self, other: &Self) -> bool {
        !self.0.is_null() && self.0 == other.0
    }
}

impl Variables {
    /// The variables that a context has now.
    #[inline]
    fn of(context: &Bound<'_, PyAny>) -> Self {
        match PLACE.get() {
            Some(Some(place)) => Self(word(context, place.word)),
            Some(None) => Self(ptr::null_mut()),
            None => Self::find(context),
        }
    }

    #[cold]
    fn find(context: &Bound<'_, PyAny>) -> Self {
        PLACE.get_or_init(|| find_place(context));
        Self::of(context)
    }
}

/// Where a context object refers to its variables.
struct Place {
    word: usize,
    /// Whether a reference to others may be put there: only in Pythons whose contexts are known to
    /// be nothing but this reference and what entering takes.
    can_be_set: bool,
}

impl Place {
    /// Where to put those variables, if that can be done.
    #[inline]
    fn to_put(variables: Variables) -> Option<&'static Self> {
        let place = PLACE.get()?.as_ref()?;
        (place.can_be_set && !variables.0.is_null()).then_some(place)
    }

    /// Gives variables that a living context has to one that nobody else refers to and that is not
    /// entered.
    #[inline]
    fn put(&self, context: &Bound<'_, PyAny>, variables: Variables) {
        // SAFETY: attached. The word at this place is the context's own reference to its
        // variables, and becomes one to others of the same type, which are alive. Python remembers
        // values of variables only for as long as no context is entered or left.
        unsafe {
            ffi::Py_INCREF(variables.0);
            let word = context.as_ptr().cast::<*mut ffi::PyObject>();
            ffi::Py_DECREF(word.add(self.word).replace(variables.0));
        }
    }
}

/// The place, if it could be found out.
static PLACE: OnceCell<Option<Place>> = OnceCell::new();

/// Asks a context, as the garbage collector does, what it refers to, and looks where. One that is
/// not entered refers to its variables alone.
fn find_place(context: &Bound<'_, PyAny>) -> Option<Place> {
    let mut found = Found {
        last: ptr::null_mut(),
        count: 0,
    };
    // SAFETY: attached; a type's function for this neither runs Python code nor keeps anything,
    // and `note` gets what it expects.
    let size = unsafe {
        let kind = context.get_type_ptr();
        let traverse = (*kind).tp_traverse?;
        traverse(context.as_ptr(), note, (&raw mut found).cast());
        usize::try_from((*kind).tp_basicsize).unwrap_or(0)
    };
    let mut words = (0..size / size_of::<usize>()).filter(|at| word(context, *at) == found.last);
    let word = words.next()?;
    let is_certain = found.count == 1 && words.next().is_none();
    let can_be_set = context.py().version_info() < (3, 15);
    is_certain.then_some(Place { word, can_be_set })
}

struct Found {
    last: *mut ffi::PyObject,
    count: usize,
}

unsafe extern "C" fn note(object: *mut ffi::PyObject, found: *mut c_void) -> c_int {
    // SAFETY: `found` is what `find_place` passed on.
    let found = unsafe { &mut *found.cast::<Found>() };
    found.last = object;
    found.count += 1;
    0
}

/// One word of an object.
#[inline]
fn word(object: &Bound<'_, PyAny>, at: usize) -> *mut ffi::PyObject {
    // SAFETY: attached; the word lies inside of the object, as its type says. It is compared, and
    // never followed.
    unsafe { object.as_ptr().cast::<*mut ffi::PyObject>().add(at).read() }
}
