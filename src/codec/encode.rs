//! From a message to bytes.

#![expect(
    clippy::unnecessary_box_returns,
    reason = "what is refused takes no more room than that in a result"
)]

use std::io::{self, Write};

use pyo3::exceptions::{
    PyAttributeError, PyMemoryError, PyTypeError, PyUnicodeEncodeError, PyValueError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{
    PyBool, PyBytes, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyInt,
    PyList, PyString, PyTimeAccess, PyTuple, PyTzInfoAccess,
};
use rmp::Marker;
use rmp::encode as put;
use rmp::encode::ValueWriteError;
use smallvec::SmallVec;

use super::registry::{self, Field, Kind};
use super::{AWARE, MAX_DEPTH, code, exact, uuid_class};
use crate::once::intern;
use crate::python::{self, Held};

/// What most messages have room in.
const USUAL: usize = 128;
/// The bytes before the body of an extension type whose length is not known at its beginning.
const HEAD: usize = 6;
/// So much of a key is shown in an error, and so many steps of a path at either end.
const SHOWN: usize = 60;
const ENDS: usize = 6;

type Encoded = Result<(), Box<Refusal>>;
type Pairs<'py> = SmallVec<[(Bound<'py, PyAny>, Bound<'py, PyAny>); 8]>;

/// The bytes of a message.
pub fn encode(message: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    python::check_memory(message.py())?;
    let mut encoder = Encoder {
        out: Output(Vec::with_capacity(USUAL)),
    };
    let written = encoder.value(message, 0);
    written.map_err(|refusal| refusal.into_error(message.py()))?;
    Ok(encoder.out.0)
}

/// The bytes of a text alone.
pub fn text_as_bytes(py: Python<'_>, text: &str) -> PyResult<Vec<u8>> {
    let mut out = Output(Vec::new());
    let written = write_text(&mut out, text);
    written.map_err(|refusal| refusal.into_error(py))?;
    Ok(out.0)
}

struct Encoder {
    out: Output,
}

impl Encoder {
    fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Encoded {
        if let Some(text) = exact::<PyString>(value) {
            self.text(text)
        } else if let Some(number) = exact::<PyInt>(value) {
            self.int(number)
        } else if let Some(dict) = exact::<PyDict>(value) {
            self.dict(dict, deeper(depth)?)
        } else if value.is_none() {
            Ok(put::write_nil(&mut self.out)?)
        } else if let Some(truth) = exact::<PyBool>(value) {
            Ok(put::write_bool(&mut self.out, truth.is_true())?)
        } else if let Some(number) = exact::<PyFloat>(value) {
            Ok(put::write_f64(&mut self.out, number.value())?)
        } else if let Some(list) = exact::<PyList>(value) {
            self.list(list, deeper(depth)?)
        } else if let Some(tuple) = exact::<PyTuple>(value) {
            self.tuple(tuple, deeper(depth)?)
        } else if let Some(bytes) = exact::<PyBytes>(value) {
            self.bytes(bytes.as_bytes())
        } else if let Some(kind) = registry::of_class(value.py(), value.get_type_ptr()) {
            self.object(value, &kind, deeper(depth)?)
        } else if let Some(moment) = exact::<PyDateTime>(value) {
            self.datetime(moment)
        } else if value.get_type().is(uuid_class(value.py())?) {
            self.uuid(value)
        } else {
            Err(unknown(value))
        }
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> Encoded {
        let text = text
            .to_str()
            .map_err(|error| not_unicode(text.py(), error))?;
        write_text(&mut self.out, text)
    }

    fn int(&mut self, number: &Bound<'_, PyInt>) -> Encoded {
        let Ok(small) = number.extract::<i64>() else {
            return self.large_int(number);
        };
        put::write_sint(&mut self.out, small)?;
        Ok(())
    }

    #[cold]
    fn large_int(&mut self, number: &Bound<'_, PyInt>) -> Encoded {
        if let Ok(unsigned) = number.extract::<u64>() {
            put::write_uint(&mut self.out, unsigned)?;
            return Ok(());
        }
        let py = number.py();
        let bits = number.call_method0(intern!(py, "bit_length"))?;
        // One bit more, for the sign.
        let length = bits.extract::<usize>()? / 8 + 1;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "signed"), true)?;
        let arguments = (length, intern!(py, "big"));
        let bytes = number.call_method(intern!(py, "to_bytes"), arguments, Some(&keywords))?;
        let bytes = bytes.cast::<PyBytes>().map_err(PyErr::from)?;
        self.extension(code::INT, bytes.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Encoded {
        put::write_bin_len(&mut self.out, length(bytes.len())?)?;
        Ok(self.out.write_all(bytes)?)
    }

    fn list(&mut self, list: &Bound<'_, PyList>, depth: usize) -> Encoded {
        // Other threads may change the list meanwhile.
        let snapshot = list.to_tuple();
        put::write_array_len(&mut self.out, length(snapshot.len())?)?;
        self.items(&snapshot, depth)
    }

    fn tuple(&mut self, tuple: &Bound<'_, PyTuple>, depth: usize) -> Encoded {
        let start = self.open(code::TUPLE)?;
        self.items(tuple, depth)?;
        self.close(start)
    }

    fn items(&mut self, items: &Bound<'_, PyTuple>, depth: usize) -> Encoded {
        for (index, item) in items.iter_borrowed().enumerate() {
            let encoded = self.value(&item, depth);
            encoded.map_err(|refusal| refusal.inside(|| format!("[{index}]")))?;
        }
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Encoded {
        let pairs = pairs(dict);
        put::write_map_len(&mut self.out, length(pairs.len())?)?;
        for (key, value) in &pairs {
            self.value(key, depth).map_err(Refusal::of_key)?;
            let encoded = self.value(value, depth);
            encoded.map_err(|refusal| refusal.inside(|| subscript(key)))?;
        }
        Ok(())
    }

    fn object(&mut self, object: &Bound<'_, PyAny>, kind: &Kind, depth: usize) -> Encoded {
        let start = self.open(code::OBJECT)?;
        self.out.write_all(&kind.head)?;
        if let Some(read) = &kind.read {
            let py = object.py();
            let values = python::call(read.bind(py), [object]);
            // Some may have been made only now.
            let values = Held::new(&values.map_err(|error| incomplete(py, kind, error))?);
            self.fields(values.bind(py), &kind.fields, depth)?;
        }
        self.close(start)
    }

    fn fields(&mut self, values: &Bound<'_, PyAny>, fields: &[Field], depth: usize) -> Encoded {
        if let [field] = fields {
            return self.field(values, field, depth);
        }
        let values = values.cast::<PyTuple>().map_err(PyErr::from)?;
        for (value, field) in values.iter_borrowed().zip(fields) {
            self.field(&value, field, depth)?;
        }
        Ok(())
    }

    fn field(&mut self, value: &Bound<'_, PyAny>, field: &Field, depth: usize) -> Encoded {
        self.out.write_all(&field.head)?;
        let encoded = self.value(value, depth);
        encoded.map_err(|refusal| refusal.inside(|| format!(".{}", field.name)))
    }

    fn datetime(&mut self, moment: &Bound<'_, PyDateTime>) -> Encoded {
        let mut body = SmallVec::<[u8; AWARE]>::new();
        // Python's years are from 1 to 9999.
        let year = u16::try_from(moment.get_year()).unwrap_or_default();
        body.extend_from_slice(&year.to_be_bytes());
        body.extend([moment.get_month(), moment.get_day()]);
        body.extend([moment.get_hour(), moment.get_minute(), moment.get_second()]);
        body.push(moment.get_fold().into());
        body.extend_from_slice(&moment.get_microsecond().to_be_bytes());
        if let Some(offset) = offset_of(moment)? {
            body.extend_from_slice(&offset.to_be_bytes());
        }
        self.extension(code::DATETIME, &body)
    }

    fn uuid(&mut self, uuid: &Bound<'_, PyAny>) -> Encoded {
        let number = uuid.getattr(intern!(uuid.py(), "int"))?;
        let number = number.extract::<u128>()?;
        self.extension(code::UUID, &number.to_be_bytes())
    }

    fn extension(&mut self, code: i8, body: &[u8]) -> Encoded {
        put::write_ext_meta(&mut self.out, length(body.len())?, code)?;
        Ok(self.out.write_all(body)?)
    }

    /// Begins an extension type, whose length comes later.
    fn open(&mut self, code: i8) -> Result<usize, Box<Refusal>> {
        let code = code.cast_unsigned();
        let head: [u8; HEAD] = [Marker::Ext32.to_u8(), 0, 0, 0, 0, code];
        self.out.write_all(&head)?;
        Ok(self.out.0.len())
    }

    fn close(&mut self, start: usize) -> Encoded {
        let length = length(self.out.0.len() - start)?;
        self.out.0[start - HEAD + 1..start - 1].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn write_text(out: &mut Output, text: &str) -> Encoded {
    put::write_str_len(out, length(text.len())?)?;
    Ok(out.write_all(text.as_bytes())?)
}

/// The depth inside a container.
fn deeper(depth: usize) -> Result<usize, Box<Refusal>> {
    if depth == MAX_DEPTH {
        return Err(Refusal::new(Reason::Depth));
    }
    Ok(depth + 1)
}

fn length(length: usize) -> Result<u32, Box<Refusal>> {
    let too_long = || Refusal::new(Reason::Value("is longer than 4 GiB".to_owned()));
    u32::try_from(length).map_err(|_| too_long())
}

/// What a dict has at this moment: other threads may change it meanwhile.
fn pairs<'py>(dict: &Bound<'py, PyDict>) -> Pairs<'py> {
    let py = dict.py();
    with_critical_section(dict.as_any(), || {
        let (mut pairs, mut place) = (Pairs::new(), 0);
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: attached; it is a dict, and nothing in this loop lets anybody change it.
        while unsafe {
            ffi::PyDict_Next(dict.as_ptr(), &raw mut place, &raw mut key, &raw mut value)
        } != 0
        {
            // SAFETY: the dict holds both.
            pairs.push(unsafe {
                (
                    Bound::from_borrowed_ptr(py, key),
                    Bound::from_borrowed_ptr(py, value),
                )
            });
        }
        pairs
    })
}

/// Microseconds that a time is ahead of UTC, if it says so.
fn offset_of(moment: &Bound<'_, PyDateTime>) -> PyResult<Option<i64>> {
    if moment.get_tzinfo().is_none() {
        return Ok(None);
    }
    let name = intern!(moment.py(), "utcoffset");
    let offset = python::call_method(moment.as_any(), name, [], None)?;
    if offset.is_none() {
        return Ok(None);
    }
    let offset = offset.cast::<PyDelta>()?;
    let seconds = i64::from(offset.get_days()) * 86_400 + i64::from(offset.get_seconds());
    Ok(Some(
        seconds * 1_000_000 + i64::from(offset.get_microseconds()),
    ))
}

/// Memory to write to that may come to an end.
struct Output(Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let made = self.0.try_reserve(bytes.len());
            made.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ---- what is refused -----------------------------------------------------------------------

/// Why a message has no bytes, and where in it.
struct Refusal {
    reason: Reason,
    /// The steps from the message to what is refused, the last one first.
    path: Vec<String>,
    is_key: bool,
}

enum Reason {
    Type(String),
    Value(String),
    /// An object that has lost an attribute.
    Incomplete(String, PyErr),
    Depth,
    Raised(PyErr),
}

impl Refusal {
    #[cold]
    fn new(reason: Reason) -> Box<Self> {
        let (path, is_key) = (Vec::new(), false);
        Box::new(Self {
            reason,
            path,
            is_key,
        })
    }

    #[cold]
    fn inside(mut self: Box<Self>, step: impl FnOnce() -> String) -> Box<Self> {
        self.path.push(step());
        self
    }

    #[cold]
    fn of_key(mut self: Box<Self>) -> Box<Self> {
        self.path.clear();
        self.is_key = true;
        self
    }

    #[cold]
    fn into_error(self, py: Python<'_>) -> PyErr {
        let place = self.place();
        match self.reason {
            Reason::Type(what) => PyTypeError::new_err(format!("{place} {what}")),
            Reason::Value(what) => PyValueError::new_err(format!("{place} {what}")),
            Reason::Incomplete(what, cause) => {
                let error = PyValueError::new_err(format!("{place} {what}"));
                let error = python::settled(py, error);
                error.set_cause(py, Some(cause));
                error
            }
            Reason::Depth => PyValueError::new_err(format!(
                "message is nested deeper than {MAX_DEPTH} levels, or contains itself"
            )),
            Reason::Raised(error) => error,
        }
    }

    fn place(&self) -> String {
        let mut place = if self.is_key {
            "a key of message"
        } else {
            "message"
        }
        .to_owned();
        let count = self.path.len();
        for (number, step) in self.path.iter().rev().enumerate() {
            if number < ENDS || count - number <= ENDS {
                place.push_str(step);
            } else if number == ENDS {
                place.push_str("...");
            }
        }
        place
    }
}

impl From<PyErr> for Box<Refusal> {
    fn from(error: PyErr) -> Self {
        Refusal::new(Reason::Raised(error))
    }
}

/// Writing to memory fails when there is none.
impl From<io::Error> for Box<Refusal> {
    fn from(_: io::Error) -> Self {
        Refusal::new(Reason::Raised(PyMemoryError::new_err(())))
    }
}

impl From<ValueWriteError<io::Error>> for Box<Refusal> {
    fn from(error: ValueWriteError<io::Error>) -> Self {
        io::Error::from(error).into()
    }
}

#[cold]
fn not_unicode(py: Python<'_>, error: PyErr) -> Box<Refusal> {
    if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
        return error.into();
    }
    let what = "is a text with a lone surrogate, which UTF-8 has no form for";
    Refusal::new(Reason::Value(what.to_owned()))
}

#[cold]
fn incomplete(py: Python<'_>, kind: &Kind, error: PyErr) -> Box<Refusal> {
    if !error.is_instance_of::<PyAttributeError>(py) {
        return error.into();
    }
    let what = format!("lacks one of the fields of {:?}", kind.name);
    Refusal::new(Reason::Incomplete(what, error))
}

#[cold]
fn unknown(value: &Bound<'_, PyAny>) -> Box<Refusal> {
    let class = value.get_type();
    let name = class.fully_qualified_name();
    let name = name.map_or_else(
        |_| "something".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    // SAFETY: attached; this reads a number of a type that is alive.
    let is_python =
        unsafe { ffi::PyType_HasFeature(class.as_type_ptr(), ffi::Py_TPFLAGS_HEAPTYPE) } != 0;
    let remedy = if registry::was_replaced(&class) {
        "whose class was replaced by a newer one of the same name: make the object anew"
    } else if is_python {
        "which does not travel: put @pagebus.message on the class"
    } else {
        "which does not travel: convert it, or send an object of a class with @pagebus.message"
    };
    Refusal::new(Reason::Type(format!("is of the type {name}, {remedy}")))
}

/// A key as in a subscript. Only a plain one shows itself without running anybody's code.
#[cold]
fn subscript(key: &Bound<'_, PyAny>) -> String {
    let is_plain = exact::<PyString>(key).is_some() || exact::<PyInt>(key).is_some();
    let shown = is_plain.then(|| key.repr().ok()).flatten();
    let shown = shown.map(|shown| shown.to_string_lossy().into_owned());
    let mut step = "[".to_owned();
    match shown {
        Some(shown) if shown.chars().count() <= SHOWN => step += &shown,
        Some(shown) => {
            step.extend(shown.chars().take(SHOWN));
            step += "...";
        }
        None => step += "...",
    }
    step.push(']');
    step
}
