//! From bytes to a message.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyString, PyTzInfo,
};
use rmp::Marker;
use smallvec::SmallVec;

use super::registry::{self, Kind};
use super::{AWARE, DecodeError, MAX_DEPTH, NAIVE, code, exact, uuid_class};
use crate::once::intern;
use crate::python::{self, Held};

/// How many keys of a dict may have the same hash: finding a place takes one of them longer than
/// the one before. Texts and bytes do not count, because nobody can foresee their hashes.
const MAX_ALIKE: usize = 1000;
/// So much of a name is shown in an error.
const SHOWN: usize = 100;

const DAY: i64 = 86_400_000_000;

type Decoded<'py> = PyResult<Bound<'py, PyAny>>;
type Items<'py> = SmallVec<[Bound<'py, PyAny>; 8]>;

/// The message of which these are the bytes.
pub fn decode<'py>(py: Python<'py>, data: &[u8]) -> Decoded<'py> {
    python::check_memory(py)?;
    let mut decoder = Decoder {
        py,
        data,
        made: Vec::new(),
    };
    let message = decoder.value(0)?;
    if decoder.data.is_empty() {
        Ok(message)
    } else {
        Err(malformed("there are bytes after the message"))
    }
}

struct Decoder<'a, 'py> {
    py: Python<'py>,
    /// What is left.
    data: &'a [u8],
    /// The objects of registered classes. Where decoding fails, whatever contains them is let go of
    /// before them: only their own end can run somebody's code.
    made: Vec<Held>,
}

impl<'a, 'py> Decoder<'a, 'py> {
    fn value(&mut self, depth: usize) -> Decoded<'py> {
        let py = self.py;
        match self.marker()? {
            Marker::FixStr(length) => self.text(length.into()),
            Marker::Null => Ok(py.None().into_bound(py)),
            Marker::False => Ok(PyBool::new(py, false).to_owned().into_any()),
            Marker::True => Ok(PyBool::new(py, true).to_owned().into_any()),
            Marker::FixPos(number) => self.int(number),
            Marker::FixNeg(number) => self.int(number),
            Marker::U8 => self.number(u8::from_be_bytes),
            Marker::U16 => self.number(u16::from_be_bytes),
            Marker::U32 => self.number(u32::from_be_bytes),
            Marker::U64 => self.number(u64::from_be_bytes),
            Marker::I8 => self.number(i8::from_be_bytes),
            Marker::I16 => self.number(i16::from_be_bytes),
            Marker::I32 => self.number(i32::from_be_bytes),
            Marker::I64 => self.number(i64::from_be_bytes),
            Marker::F32 => self.float(|bytes| f32::from_be_bytes(bytes).into()),
            Marker::F64 => self.float(f64::from_be_bytes),
            marker => self.sized(marker, depth),
        }
    }

    /// What says first how long it is.
    fn sized(&mut self, marker: Marker, depth: usize) -> Decoded<'py> {
        if let Some(length) = self.text_length(marker)? {
            return self.text(length);
        }
        match marker {
            Marker::FixArray(length) => self.list(length.into(), depth),
            Marker::Array16 => {
                let length = self.length16()?;
                self.list(length, depth)
            }
            Marker::Array32 => {
                let length = self.length32()?;
                self.list(length, depth)
            }
            Marker::FixMap(length) => self.dict(length.into(), depth),
            Marker::Map16 => {
                let length = self.length16()?;
                self.dict(length, depth)
            }
            Marker::Map32 => {
                let length = self.length32()?;
                self.dict(length, depth)
            }
            Marker::Bin8 => {
                let length = self.length8()?;
                self.bytes(length)
            }
            Marker::Bin16 => {
                let length = self.length16()?;
                self.bytes(length)
            }
            Marker::Bin32 => {
                let length = self.length32()?;
                self.bytes(length)
            }
            marker => self.extension(marker, depth),
        }
    }

    // ---- parts of values --------------------------------------------------------------------

    fn take(&mut self, length: usize) -> PyResult<&'a [u8]> {
        let Some((taken, rest)) = self.data.split_at_checked(length) else {
            return Err(malformed("the bytes end too early"));
        };
        self.data = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let Some((taken, rest)) = self.data.split_first_chunk() else {
            return Err(malformed("the bytes end too early"));
        };
        self.data = rest;
        Ok(*taken)
    }

    fn marker(&mut self) -> PyResult<Marker> {
        let [byte] = self.array()?;
        Ok(Marker::from_u8(byte))
    }

    fn length8(&mut self) -> PyResult<usize> {
        Ok(u8::from_be_bytes(self.array()?).into())
    }

    fn length16(&mut self) -> PyResult<usize> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn length32(&mut self) -> PyResult<usize> {
        let length = u32::from_be_bytes(self.array()?);
        // Where this does not hold, there are not that many bytes either.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The length of a text, if the marker is that of one.
    fn text_length(&mut self, marker: Marker) -> PyResult<Option<usize>> {
        Ok(Some(match marker {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 => self.length8()?,
            Marker::Str16 => self.length16()?,
            Marker::Str32 => self.length32()?,
            _ => return Ok(None),
        }))
    }

    /// A text that is to be looked up.
    fn name(&mut self) -> PyResult<&'a str> {
        let marker = self.marker()?;
        let Some(length) = self.text_length(marker)? else {
            return Err(malformed("a name is not a text"));
        };
        std::str::from_utf8(self.take(length)?).map_err(|_| not_utf8())
    }

    // ---- values -----------------------------------------------------------------------------

    fn int<T: IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>>>(
        &self,
        number: T,
    ) -> Decoded<'py> {
        Ok(number
            .into_pyobject(self.py)
            .map_err(Into::into)?
            .into_any())
    }

    fn number<const N: usize, T>(&mut self, read: impl FnOnce([u8; N]) -> T) -> Decoded<'py>
    where
        T: IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>>,
    {
        let number = read(self.array()?);
        self.int(number)
    }

    fn float<const N: usize>(&mut self, read: impl FnOnce([u8; N]) -> f64) -> Decoded<'py> {
        let number = read(self.array()?);
        Ok(PyFloat::new(self.py, number).into_any())
    }

    fn text(&mut self, length: usize) -> Decoded<'py> {
        let bytes = self.take(length)?;
        let text = PyString::from_bytes(self.py, bytes);
        let text = text.map_err(|error| self.refused(error, not_utf8));
        text.map(Bound::into_any)
    }

    fn bytes(&mut self, length: usize) -> Decoded<'py> {
        let taken = self.take(length)?;
        let bytes = PyBytes::new_with(self.py, length, |bytes| {
            bytes.copy_from_slice(taken);
            Ok(())
        });
        bytes.map(Bound::into_any)
    }

    fn list(&mut self, length: usize, depth: usize) -> Decoded<'py> {
        let depth = deeper(depth)?;
        if length > self.data.len() {
            return Err(malformed(
                "a list announces more items than there are bytes",
            ));
        }
        let mut items = Items::new();
        for _ in 0..length {
            items.push(self.value(depth)?);
        }
        list_of(self.py, items)
    }

    fn dict(&mut self, length: usize, depth: usize) -> Decoded<'py> {
        let depth = deeper(depth)?;
        if length > self.data.len() / 2 {
            return Err(malformed(
                "a dict announces more items than there are bytes",
            ));
        }
        let dict = PyDict::new(self.py);
        let mut crowd = (length > MAX_ALIKE).then(Crowd::default);
        for _ in 0..length {
            let (key, value) = (self.value(depth)?, self.value(depth)?);
            self.insert(&dict, &key, &value, crowd.as_mut())?;
        }
        if dict.len() != length {
            return Err(malformed("a dict has the same key twice"));
        }
        Ok(dict.into_any())
    }

    fn insert(
        &self,
        dict: &Bound<'py, PyDict>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        crowd: Option<&mut Crowd>,
    ) -> PyResult<()> {
        if exact::<PyString>(key).is_some() || exact::<PyBytes>(key).is_some() {
            return dict.set_item(key, value);
        }
        let counted = crowd.map_or(Ok(()), |crowd| crowd.add(key));
        let inserted = counted.and_then(|()| {
            if exact::<PyInt>(key).is_some() {
                return dict.set_item(key, value);
            }
            let name = intern!(self.py, "__setitem__");
            python::call_method(dict.as_any(), name, [key, value], None).map(drop)
        });
        let unhashable = || malformed("a dict has a key that cannot be one");
        inserted.map_err(|error| self.refused(error, unhashable))
    }

    // ---- extension types --------------------------------------------------------------------

    fn extension(&mut self, marker: Marker, depth: usize) -> Decoded<'py> {
        let length = match marker {
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::Ext8 => self.length8()?,
            Marker::Ext16 => self.length16()?,
            Marker::Ext32 => self.length32()?,
            _ => return Err(malformed("there is a byte that MessagePack does not use")),
        };
        let code = i8::from_be_bytes(self.array()?);
        let body = self.take(length)?;
        match code {
            code::INT => self.large_int(body),
            code::DATETIME => self.datetime(body),
            code::UUID => self.uuid(body),
            code::TUPLE => self.within(body, |body| body.tuple(depth)),
            code::OBJECT => self.within(body, |body| body.object(depth)),
            _ => Err(malformed(&format!("extension type {code} is unknown"))),
        }
    }

    /// Reads a body to its end, and goes on after it.
    fn within(
        &mut self,
        body: &'a [u8],
        read: impl FnOnce(&mut Self) -> Decoded<'py>,
    ) -> Decoded<'py> {
        let rest = std::mem::replace(&mut self.data, body);
        let value = read(self);
        self.data = rest;
        value
    }

    fn tuple(&mut self, depth: usize) -> Decoded<'py> {
        let depth = deeper(depth)?;
        let mut items = Items::new();
        while !self.data.is_empty() {
            items.push(self.value(depth)?);
        }
        tuple_of(self.py, items)
    }

    fn large_int(&self, body: &[u8]) -> Decoded<'py> {
        if body.is_empty() {
            return Err(malformed("an int has no bytes"));
        }
        let py = self.py;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "signed"), true)?;
        let arguments = (
            PyBytes::new_with(py, body.len(), |bytes| {
                bytes.copy_from_slice(body);
                Ok(())
            })?,
            intern!(py, "big"),
        );
        let class = py.get_type::<PyInt>();
        class.call_method(intern!(py, "from_bytes"), arguments, Some(&keywords))
    }

    fn datetime(&self, body: &[u8]) -> Decoded<'py> {
        let wrong = || malformed("a date and time is none");
        let (&naive, offset) = body.split_first_chunk::<NAIVE>().ok_or_else(wrong)?;
        let [
            y0,
            y1,
            month,
            day,
            hour,
            minute,
            second,
            fold,
            m0,
            m1,
            m2,
            m3,
        ] = naive;
        let zone = match offset.len() {
            0 => None,
            _ => Some(self.zone(offset)?),
        };
        if fold > 1 {
            return Err(wrong());
        }
        let moment = PyDateTime::new_with_fold(
            self.py,
            u16::from_be_bytes([y0, y1]).into(),
            month,
            day,
            hour,
            minute,
            second,
            u32::from_be_bytes([m0, m1, m2, m3]),
            zone.as_ref(),
            fold == 1,
        );
        let moment = moment.map_err(|error| self.refused(error, wrong))?;
        Ok(moment.into_any())
    }

    fn zone(&self, offset: &[u8]) -> PyResult<Bound<'py, PyTzInfo>> {
        const { assert!(AWARE == NAIVE + 8) };
        let offset = offset.try_into().map(i64::from_be_bytes);
        let offset = offset.ok().filter(|offset| (1 - DAY..DAY).contains(offset));
        let Some(offset) = offset else {
            return Err(malformed("a date and time has an offset that is none"));
        };
        if offset == 0 {
            return Ok(PyTzInfo::utc(self.py)?.to_owned());
        }
        // All three fit, since the offset is less than a day.
        let (days, rest) = (offset.div_euclid(DAY), offset.rem_euclid(DAY));
        let parts = [days, rest / 1_000_000, rest % 1_000_000];
        let [days, seconds, micros] = parts.map(|part| i32::try_from(part).unwrap_or_default());
        PyTzInfo::fixed_offset(self.py, PyDelta::new(self.py, days, seconds, micros, true)?)
    }

    fn uuid(&self, body: &[u8]) -> Decoded<'py> {
        let Ok(body) = body.try_into() else {
            return Err(malformed("a UUID has not 16 bytes"));
        };
        let (py, keywords) = (self.py, PyDict::new(self.py));
        keywords.set_item(intern!(py, "int"), u128::from_be_bytes(body))?;
        python::call_with(uuid_class(py)?, [], Some(&keywords))
    }

    fn object(&mut self, depth: usize) -> Decoded<'py> {
        let depth = deeper(depth)?;
        let name = self.name()?;
        let Some(kind) = registry::named(self.py, name) else {
            let name = shown(name);
            return Err(malformed(&format!("no class is registered as {name}")));
        };
        let fields = self.fields(&kind, depth)?;
        let made = python::call_with(kind.build.bind(self.py), [], Some(&fields));
        let made = made.map_err(|error| {
            let error_name = error.get_type(self.py).name().map(|name| name.to_string());
            let error_name = error_name.unwrap_or_default();
            let name = shown(name);
            let why = format!("{name} does not take these values ({error_name})");
            self.refused(error, || malformed(&why))
        })?;
        self.made.push(Held::new(&made));
        Ok(made)
    }

    /// An object's fields as keyword arguments: each of them, and once.
    fn fields(&mut self, kind: &Kind, depth: usize) -> PyResult<Bound<'py, PyDict>> {
        let keywords = PyDict::new(self.py);
        let mut next = 0;
        while !self.data.is_empty() {
            let name = self.name()?;
            // They usually come in their order.
            let is_it = |at: &usize| kind.fields.get(*at).is_some_and(|it| *it.name == *name);
            let place = Some(next).filter(is_it);
            let place = place.or_else(|| (0..kind.fields.len()).find(is_it));
            let Some(place) = place else {
                return Err(unfit(kind, "has no field", name));
            };
            next = place + 1;
            let keyword = kind.fields[place].keyword.bind(self.py);
            if keywords.contains(keyword)? {
                return Err(unfit(kind, "has only one field", name));
            }
            keywords.set_item(keyword, self.value(depth)?)?;
        }
        for field in &kind.fields {
            if keywords.len() != kind.fields.len() && !keywords.contains(&field.keyword)? {
                return Err(unfit(kind, "lacks the field", &field.name));
            }
        }
        Ok(keywords)
    }

    /// What is said of an error: what interrupts the program, or a lack of memory, is no fault of the
    /// bytes.
    fn refused(&self, error: PyErr, reason: impl FnOnce() -> PyErr) -> PyErr {
        let py = self.py;
        let error = python::settled(py, error);
        let is_ours = error.is_instance_of::<DecodeError>(py);
        let is_other = !error.is_instance_of::<PyException>(py);
        if is_ours || is_other || error.is_instance_of::<PyMemoryError>(py) {
            return error;
        }
        let reason = python::settled(py, reason());
        reason.set_cause(py, Some(error));
        reason
    }
}

/// Hashes of the keys of a large dict.
#[derive(Default)]
struct Crowd(HashMap<isize, usize, RandomState>);

impl Crowd {
    fn add(&mut self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let name = intern!(key.py(), "__hash__");
        let hash = python::call_method(key, name, [], None)?.extract()?;
        let alike = self.0.entry(hash).or_default();
        *alike += 1;
        if *alike > MAX_ALIKE {
            return Err(malformed("too many keys of a dict have the same hash"));
        }
        Ok(())
    }
}

/// The depth inside a container.
fn deeper(depth: usize) -> PyResult<usize> {
    if depth == MAX_DEPTH {
        let what = format!("something is nested deeper than {MAX_DEPTH} levels");
        return Err(malformed(&what));
    }
    Ok(depth + 1)
}

fn list_of<'py>(py: Python<'py>, items: Items<'py>) -> Decoded<'py> {
    let length = isize::try_from(items.len())?;
    // SAFETY: attached; this is a new reference, or null with an exception set.
    let list = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(length)) }?;
    for (place, item) in (0..).zip(items) {
        // SAFETY: the place is in the list and empty, and the reference is given to it.
        unsafe { ffi::PyList_SET_ITEM(list.as_ptr(), place, item.into_ptr()) };
    }
    Ok(list)
}

fn tuple_of<'py>(py: Python<'py>, items: Items<'py>) -> Decoded<'py> {
    let length = isize::try_from(items.len())?;
    // SAFETY: as above.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(length)) }?;
    for (place, item) in (0..).zip(items) {
        // SAFETY: as above; nobody else has the tuple yet.
        unsafe { ffi::PyTuple_SET_ITEM(tuple.as_ptr(), place, item.into_ptr()) };
    }
    Ok(tuple)
}

#[cold]
fn malformed(what: &str) -> PyErr {
    DecodeError::new_err(format!("not a message: {what}"))
}

#[cold]
fn not_utf8() -> PyErr {
    malformed("a text is not UTF-8")
}

#[cold]
fn unfit(kind: &Kind, what: &str, name: &str) -> PyErr {
    malformed(&format!("{:?} {what} {}", kind.name, shown(name)))
}

#[cold]
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(SHOWN).collect::<String>())
}
