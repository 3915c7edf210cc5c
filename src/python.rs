//! Running Python code from Rust, on threads that the interpreter may end.
//!
//! Until Python 3.14, a daemon thread that wants the interpreter back while the process exits is
//! ended with `pthread_exit`, which unwinds its stack. Our frames must not be unwound like that:
//! they would go on as if they were attached. Whatever can run somebody's code goes through here;
//! such a thread then stays for the moment that the process has left, as on Python 3.14.

use std::ffi::c_int;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;

use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::reserve::RESERVE;

const OFFSET: usize = ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;

type Vectorcall = unsafe extern "C-unwind" fn(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject;

type VectorcallDict = unsafe extern "C-unwind" fn(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject;

type DecRef = unsafe extern "C-unwind" fn(object: *mut ffi::PyObject);

type RestoreThread = unsafe extern "C-unwind" fn(state: *mut ffi::PyThreadState);

type IterSend = unsafe extern "C-unwind" fn(
    iterator: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> c_int;

// PyO3 declares these as functions that never unwind. The optimizer believes whichever
// declaration says so, and then drops the code for the case that they do: they are called through
// pointers that it cannot see through. `PyObject_Vectorcall` is a macro on Python 3.10; the
// function here is one on every version.
unsafe extern "C-unwind" {
    fn PyObject_VectorcallDict(
        callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        keywords: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
    fn PyObject_VectorcallMethod(
        name: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
    fn Py_DecRef(object: *mut ffi::PyObject);
    fn PyEval_RestoreThread(state: *mut ffi::PyThreadState);
    fn PyIter_Send(
        iterator: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> c_int;
}

/// Runs Python code from a destructor, which may run while an exception is on its way: Python
/// code must not see it, and it must be there afterwards.
pub fn in_drop(code: impl FnOnce(Python<'_>)) {
    Python::try_attach(|py| {
        let on_its_way = PyErr::take(py);
        code(py);
        if let Some(error) = on_its_way {
            error.restore(py);
        }
    });
}

/// Runs code that may wait for other threads, which get the interpreter meanwhile. The code must
/// not use Python, nor anything that holds a Python object.
pub fn detached(_py: Python<'_>, code: impl FnOnce() + Send) {
    let restore = black_box(PyEval_RestoreThread as RestoreThread);
    // SAFETY: attached; the state is given back below, on the same thread.
    let state = unsafe { ffi::PyEval_SaveThread() };
    code();
    // SAFETY: as above.
    guarded(|| unsafe { restore(state) });
}

/// Refuses a call that would need memory, while the process has none.
pub fn check_memory(py: Python<'_>) -> PyResult<()> {
    if RESERVE.is_needed() {
        // SAFETY: attached. It takes no memory to raise this one.
        unsafe { ffi::PyErr_NoMemory() };
        return Err(PyErr::fetch(py));
    }
    Ok(())
}

/// Python code raised: the exception is set on this thread, and to be fetched before anything else.
/// Takes no room in a result, as a `PyErr` would in each of the many that are none.
pub struct Raised;

impl Raised {
    /// The exception.
    #[cold]
    #[expect(clippy::unused_self, reason = "it can be fetched once")]
    pub fn fetch(self, py: Python<'_>) -> PyErr {
        PyErr::fetch(py)
    }

    /// `result`, with an error set as the exception.
    pub fn from_result<T>(py: Python<'_>, result: PyResult<T>) -> Result<T, Self> {
        result.map_err(|error| {
            error.restore(py);
            Self
        })
    }
}

/// A reference to somebody's object, whose `__del__` runs when this is the last one.
pub struct Held(ManuallyDrop<Py<PyAny>>);

impl Held {
    /// Holds on to an object.
    pub fn new(object: &Bound<'_, PyAny>) -> Self {
        Self(ManuallyDrop::new(object.clone().unbind()))
    }
}

impl Deref for Held {
    type Target = Py<PyAny>;

    #[inline]
    fn deref(&self) -> &Py<PyAny> {
        &self.0
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        let object = unsafe { ManuallyDrop::take(&mut self.0) };
        // SAFETY: the object is alive; this only reads a number.
        if unsafe { ffi::Py_REFCNT(object.as_ptr()) } == 1 {
            let_go(object);
        }
    }
}

#[cold]
fn let_go(object: Py<PyAny>) {
    let mut object = Some(object);
    Python::try_attach(|_| {
        let decref = black_box(Py_DecRef as DecRef);
        if let Some(object) = object.take() {
            // SAFETY: attached; the reference is given up.
            guarded(|| unsafe { decref(object.into_ptr()) });
        }
    });
}

/// How often code is run again that something stopped from outside.
const ATTEMPTS: usize = 16;

/// Runs `code` again when it raises what is not its own: the handler of a signal can raise in any
/// Python function, `KeyboardInterrupt` for one, at a moment when nobody is told yet of work that
/// was entered, or everybody is already. `code` must be such that once more does no harm. The
/// second value is what came from outside.
pub fn insist<T>(
    py: Python<'_>,
    mut code: impl FnMut() -> PyResult<T>,
) -> (PyResult<T>, PyResult<()>) {
    let mut outside = Ok(());
    for _ in 1..ATTEMPTS {
        match code().map_err(|error| settled(py, error)) {
            Err(error) if is_from_outside(py, &error) => outside = Err(error),
            result => return (result, outside),
        }
    }
    (code(), outside)
}

/// [`insist`], where what came from outside is more urgent than the result.
pub fn insist_then_raise<T>(py: Python<'_>, code: impl FnMut() -> PyResult<T>) -> PyResult<T> {
    let (result, outside) = insist(py, code);
    outside.and(result)
}

/// The same error, so made that it can be asked for its type, value or cause. An error that Rust code
/// made would let other threads have the interpreter for that, and their end too: see above.
pub fn settled(py: Python<'_>, error: PyErr) -> PyErr {
    error.restore(py);
    PyErr::fetch(py)
}

fn is_from_outside(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py)
}

/// How many references there are to an object.
#[inline]
pub fn references(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: attached, and `object` is alive.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// What sending into an iterator came to.
pub enum Sent<'py> {
    /// It yielded a value.
    Yielded(Bound<'py, PyAny>),
    /// It is at its end.
    Returned,
}

/// Calls `callable` with up to two arguments.
pub fn call<'py, const N: usize>(
    callable: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    try_call(callable, args).map_err(|raised| raised.fetch(callable.py()))
}

/// [`call`], which leaves an exception where it is.
#[inline]
pub fn try_call<'py, const N: usize>(
    callable: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
) -> Result<Bound<'py, PyAny>, Raised> {
    try_entry(callable, args).unwrap_or_else(|| {
        let result = call_with(callable, args, None);
        Raised::from_result(callable.py(), result)
    })
}

/// [`try_call`] by the object's own entry, if it has one.
#[inline]
pub fn try_entry<'py, const N: usize>(
    callable: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
) -> Option<Result<Bound<'py, PyAny>, Raised>> {
    let vectorcall = vectorcall_of(callable)?;
    let (py, mut slots) = (callable.py(), slots(args));
    // SAFETY: as in `call_with`.
    let result = guarded(|| unsafe {
        let args = slots.as_mut_ptr().add(1);
        vectorcall(callable.as_ptr(), args, N | OFFSET, ptr::null_mut())
    });
    // What CPython checks after such a call: functions written in C can break their word.
    // SAFETY: attached.
    if !is_function(callable) && !result.is_null() && !unsafe { ffi::PyErr_Occurred() }.is_null() {
        // SAFETY: the result is a new reference.
        drop(unsafe { Bound::from_owned_ptr(py, result) });
        return Some(Err(Raised));
    }
    // SAFETY: the result is a new reference, or null with an exception set.
    let result = unsafe { Bound::from_owned_ptr_or_opt(py, result) };
    Some(result.ok_or(Raised))
}

/// A callable's own entry, past the checks that `PyObject_Vectorcall` makes every time.
#[inline]
fn vectorcall_of(callable: &Bound<'_, PyAny>) -> Option<Vectorcall> {
    let kind = callable.get_type_ptr();
    // SAFETY: attached; a type with this feature has a function of this type at this offset in
    // its objects. It is called as one that may unwind: see above.
    unsafe {
        if ffi::PyType_HasFeature(kind, ffi::Py_TPFLAGS_HAVE_VECTORCALL) == 0 {
            return None;
        }
        let entry = callable
            .as_ptr()
            .byte_offset((*kind).tp_vectorcall_offset)
            .cast::<Option<Vectorcall>>();
        *entry
    }
}

/// Whether it is a Python function, and nothing else that can be called.
#[inline]
pub fn is_function(callable: &Bound<'_, PyAny>) -> bool {
    callable.get_type_ptr() == &raw mut ffi::PyFunction_Type
}

/// Whether an object may have a dictionary of attributes. Asking it for `__dict__` would make one,
/// which takes more memory than a subscription does.
#[inline]
pub fn may_have_attributes(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached, and `object` is alive. A `tp_dictoffset` above zero is the place of a
    // pointer in the object, which is read and not followed.
    unsafe {
        let offset = (*object.get_type_ptr()).tp_dictoffset;
        if offset <= 0 {
            return true;
        }
        let place = object.as_ptr().byte_offset(offset);
        !place.cast::<*mut ffi::PyObject>().read().is_null()
    }
}

/// Arguments for a call. The first slot is the callee's to use: a bound method puts its object
/// there.
#[inline]
fn slots<const N: usize>(args: [&Bound<'_, PyAny>; N]) -> [*mut ffi::PyObject; 3] {
    const { assert!(N <= 2) };
    let mut slots = [ptr::null_mut(); 3];
    for (slot, argument) in slots[1..].iter_mut().zip(args) {
        *slot = argument.as_ptr();
    }
    slots
}

/// Calls `callable` with up to two arguments, and keyword arguments.
pub fn call_with<'py, const N: usize>(
    callable: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut slots = slots(args);
    let keywords = keywords.map_or(ptr::null_mut(), Bound::as_ptr);
    let vectorcall = black_box(PyObject_VectorcallDict as VectorcallDict);
    // SAFETY: attached; all objects are alive; there are N arguments and a slot before them.
    let result = guarded(|| unsafe {
        vectorcall(
            callable.as_ptr(),
            slots.as_mut_ptr().add(1),
            N | OFFSET,
            keywords,
        )
    });
    // SAFETY: the result is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// One keyword argument: the tuple of its name, and its value.
pub struct Keyword {
    name: Py<PyTuple>,
    value: Py<PyAny>,
}

impl Keyword {
    /// `name=value`.
    pub fn new(name: &Bound<'_, PyString>, value: Bound<'_, PyAny>) -> PyResult<Self> {
        let name = PyTuple::new(name.py(), [name])?.unbind();
        let value = value.unbind();
        Ok(Self { name, value })
    }

    /// Shows the garbage collector what it holds.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.value)
    }
}

/// Calls a method with up to two arguments, and a keyword argument.
pub fn call_method<'py, const N: usize>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    args: [&Bound<'py, PyAny>; N],
    keyword: Option<&Keyword>,
) -> PyResult<Bound<'py, PyAny>> {
    let [_, first, second] = slots(args);
    let mut slots = [
        ptr::null_mut(),
        object.as_ptr(),
        first,
        second,
        ptr::null_mut(),
    ];
    let mut names = ptr::null_mut();
    if let Some(keyword) = keyword {
        slots[N + 2] = keyword.value.as_ptr();
        names = keyword.name.as_ptr();
    }
    let vectorcall_method = black_box(PyObject_VectorcallMethod as Vectorcall);
    // SAFETY: attached; all objects are alive; there are the object, N arguments and one for each
    // name, and a slot before them.
    let result = guarded(|| unsafe {
        let args = slots.as_mut_ptr().add(1);
        vectorcall_method(name.as_ptr(), args, (N + 1) | OFFSET, names)
    });
    // SAFETY: the result is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), result) }
}

/// Sends `None` into an iterator.
#[inline]
pub fn send<'py>(iterator: &Bound<'py, PyAny>) -> Result<Sent<'py>, Raised> {
    const RETURN: c_int = ffi::PySendResult::PYGEN_RETURN as c_int;
    const NEXT: c_int = ffi::PySendResult::PYGEN_NEXT as c_int;
    let (py, mut result) = (iterator.py(), ptr::null_mut());
    let iter_send = black_box(PyIter_Send as IterSend);
    let status = guarded(|| {
        // SAFETY: attached; both objects are alive; `result` receives a new reference, or null
        // together with an exception.
        unsafe { iter_send(iterator.as_ptr(), ffi::Py_None(), &raw mut result) }
    });
    // SAFETY: as above.
    match (status, unsafe { Bound::from_owned_ptr_or_opt(py, result) }) {
        (NEXT, Some(yielded)) => Ok(Sent::Yielded(yielded)),
        (RETURN, Some(_)) => Ok(Sent::Returned),
        _ => Err(Raised),
    }
}

#[inline]
fn guarded<T>(code: impl FnOnce() -> T) -> T {
    let unfinished = Unfinished;
    let result = code();
    std::mem::forget(unfinished);
    result
}

/// Dropped only by a thread that is being ended.
struct Unfinished;

impl Drop for Unfinished {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}
