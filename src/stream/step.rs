//! What the methods of a stream return to be awaited: coroutines written in Rust.

use parking_lot::Mutex;
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::Stream;
use super::inbox::{Found, Ticket};
use super::waiter::Waiter;
use crate::delivery::event_loop::running;
use crate::delivery::handler::Kind;
use crate::once::intern;
use crate::python::{self, Sent};

/// What a step does.
#[derive(Clone, Copy)]
pub enum Action {
    /// Begins the block.
    Enter,
    /// Ends the block.
    Leave,
    /// Gives the next message.
    Next,
    /// Waits for the next message.
    Wait(Ticket),
    /// Nothing more: it was awaited.
    Done,
}

/// A coroutine that suspends only where the next message has not come.
#[pyclass(frozen, module = "pagebus._core", weakref)]
pub struct Step {
    stream: Py<Stream>,
    action: Mutex<Action>,
}

impl Step {
    /// A step that was not begun.
    pub fn new(stream: Py<Stream>, action: Action) -> Self {
        let action = Mutex::new(action);
        Self { stream, action }
    }

    fn swap(&self, action: Action) -> Action {
        std::mem::replace(&mut *self.action.lock(), action)
    }

    /// Goes on until it suspends; its end is an exception, as with every coroutine.
    fn step(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let stream = self.stream.bind(py);
        match self.swap(Action::Done) {
            Action::Enter => {
                stream.get().inbox.enter(stream.as_any(), Kind::Async)?;
                Err(result(stream.as_any()))
            }
            Action::Leave => {
                stream.get().inbox.leave(py);
                Err(result(py.None().bind(py)))
            }
            Action::Next => self.next(stream, None),
            Action::Wait(ticket) => self.next(stream, Some(ticket)),
            Action::Done => Err(PyRuntimeError::new_err(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn next(&self, stream: &Bound<'_, Stream>, mut ticket: Option<Ticket>) -> PyResult<Py<PyAny>> {
        let (py, inbox) = (stream.py(), &stream.get().inbox);
        loop {
            match inbox.take(stream.as_any(), ticket.take())? {
                Found::Message(message) => return Err(result(message.bind(py))),
                Found::End => return Err(PyStopAsyncIteration::new_err(())),
                Found::Nothing => {}
            }
            let (waiter, yielded) = suspend(py)?;
            if let Some(ticket) = inbox.wait(py, waiter) {
                self.swap(Action::Wait(ticket));
                return Ok(yielded.unbind());
            }
        }
    }

    fn give_up(&self, py: Python<'_>) {
        if let Action::Wait(ticket) = self.swap(Action::Done) {
            self.stream.get().inbox.give_up(py, ticket);
        }
    }
}

#[pymethods]
impl Step {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.step(value.py())
    }

    /// A cancellation, say. No message is lost by it: they are taken by steps that return them.
    #[pyo3(signature = (kind, value=None, _traceback=None, /))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.give_up(kind.py());
        Err(PyErr::from_value(value.unwrap_or(kind).clone()))
    }

    fn close(&self, py: Python<'_>) {
        self.give_up(py);
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        match *self.action.lock() {
            Action::Enter => "Stream.__aenter__",
            Action::Leave => "Stream.__aexit__",
            Action::Next | Action::Wait(_) | Action::Done => "Stream.__anext__",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.stream)
    }
}

impl Drop for Step {
    /// A task was destroyed while it waited: others may read.
    fn drop(&mut self) {
        if matches!(self.action.get_mut(), Action::Wait(_)) {
            python::in_drop(|py| self.give_up(py));
        }
    }
}

/// A future of the loop that runs here, as a waiter, and what a coroutine yields to wait for it.
fn suspend(py: Python<'_>) -> PyResult<(Waiter, Bound<'_, PyAny>)> {
    let event_loop = running(py)?.ok_or_else(|| {
        PyRuntimeError::new_err("a stream is read by code that runs on an event loop")
    })?;
    let future = python::call_method(event_loop.bind(py), intern!(py, "create_future"), [], None)?;
    let awaiting = python::call_method(&future, intern!(py, "__await__"), [], None)?;
    let future = future.unbind();
    match python::send(&awaiting).map_err(|raised| raised.fetch(py))? {
        Sent::Yielded(yielded) => Ok((Waiter::Task { future, event_loop }, yielded)),
        Sent::Returned => Err(PyRuntimeError::new_err(
            "the event loop's future does not wait",
        )),
    }
}

/// The exception with which a coroutine returns a value.
fn result(value: &Bound<'_, PyAny>) -> PyErr {
    // Python takes a tuple for the arguments of the exception, and an exception for itself.
    if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyBaseException>() {
        return PyStopIteration::new_err((value.clone().unbind(),));
    }
    PyStopIteration::new_err(value.clone().unbind())
}
