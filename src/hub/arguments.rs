//! What the arguments of a new hub mean.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::cluster::outbox::Limits;
use crate::core::backlog::OverflowPolicy;
use crate::link::{Link, Settings};
use crate::name;
use crate::number;

/// The hook that an argument of that name gives, if it does.
pub fn check_hook(hook: Option<&Bound<'_, PyAny>>, argument: &str) -> PyResult<Option<Py<PyAny>>> {
    match hook {
        Some(hook) if !hook.is_callable() => Err(name::must_be(argument, "callable", hook)),
        hook => Ok(hook.map(|hook| hook.clone().unbind())),
    }
}

/// How many messages may wait, from the argument `max_pending`.
pub fn check_limit(max_pending: &Bound<'_, PyAny>) -> PyResult<u32> {
    let limit = number::positive(max_pending, "max_pending")?;
    // Four billion messages do not fit in memory: more is as good as no limit.
    Ok(u32::try_from(limit).unwrap_or(u32::MAX))
}

/// An argument that may be left out, and may not be `None`.
pub struct Given<'py>(Option<Bound<'py, PyAny>>);

impl<'py> Given<'py> {
    /// Nobody has said anything.
    pub const NOT: Self = Self(None);

    /// What was given.
    pub fn get(&self) -> Option<&Bound<'py, PyAny>> {
        self.0.as_ref()
    }
}

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(value.to_owned())))
    }
}

/// The arguments that link a hub to others.
pub struct Linking<'a, 'py> {
    pub link: Option<&'a Bound<'py, PyAny>>,
    pub namespace: Option<&'a Bound<'py, PyAny>>,
    pub codec: Option<&'a Bound<'py, PyAny>>,
    pub max_message_bytes: Option<&'a Bound<'py, PyAny>>,
    pub max_outbox: Option<&'a Bound<'py, PyAny>>,
    pub on_gap: Option<&'a Bound<'py, PyAny>>,
    pub on_link_state: Option<&'a Bound<'py, PyAny>>,
    pub presence: Option<&'a Bound<'py, PyAny>>,
}

impl Linking<'_, '_> {
    /// The link, if there is to be one.
    pub fn link(&self) -> PyResult<Option<Link>> {
        let on_gap = check_hook(self.on_gap, "on_gap")?;
        let on_link_state = check_hook(self.on_link_state, "on_link_state")?;
        let url = name::optional_string(self.link, "link")?;
        let namespace = name::optional_string(self.namespace, "namespace")?;
        let settings = Settings {
            url: url.map_or_else(String::new, |url| url.to_string_lossy().into_owned()),
            namespace: namespace.map_or_else(
                || "default".to_owned(),
                |namespace| namespace.to_string_lossy().into_owned(),
            ),
            max_message_bytes: positive(self.max_message_bytes, "max_message_bytes", 1 << 20)?,
            limits: Limits {
                messages: positive(self.max_outbox, "max_outbox", 10_000)?,
                bytes: OUTBOX_BYTES,
            },
            presence: self.shares_presence()?,
        };
        if url.is_none() {
            return Ok(None);
        }
        Link::new(settings, self.codec, on_gap, on_link_state).map(Some)
    }

    fn shares_presence(&self) -> PyResult<bool> {
        let Some(presence) = self.presence else {
            return Ok(false);
        };
        let shares = presence.cast::<PyBool>();
        let shares = shares.map_err(|_| name::must_be("presence", "a bool", presence))?;
        if shares.is_true() && self.link.is_none() {
            return Err(PyValueError::new_err(
                "presence needs hubs to share it with: give the hub a link too",
            ));
        }
        Ok(shares.is_true())
    }
}

/// Bytes that may wait to be published.
const OUTBOX_BYTES: usize = 64 << 20;

fn positive(value: Option<&Bound<'_, PyAny>>, argument: &str, otherwise: usize) -> PyResult<usize> {
    value.map_or(Ok(otherwise), |value| number::positive(value, argument))
}

impl<'py> FromPyObject<'_, 'py> for OverflowPolicy {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let policy = name::string(&value, "overflow")?;
        match policy.to_str().unwrap_or_default() {
            "drop_oldest" => Ok(Self::DropOldest),
            "drop_newest" => Ok(Self::DropNewest),
            "unsubscribe" => Ok(Self::Unsubscribe),
            _ => Err(PyValueError::new_err(format!(
                "overflow must be 'drop_oldest', 'drop_newest' or 'unsubscribe', not {}",
                policy.repr()?.to_string_lossy()
            ))),
        }
    }
}
