//! Who is on topics of other hubs: what their nodes tell, as objects, handed on to the router.

use pyo3::exceptions::{PyException, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use triomphe::Arc;

use super::{Link, say};
use crate::cluster::wire::members::Read;
use crate::core::Name;
use crate::core::elsewhere::{Host, Membership, Saying};
use crate::core::presence::{Identity, Said};
use crate::core::router::elsewhere::Told;
use crate::delivery::Router;
use crate::delivery::handler::Message;
use crate::hub::PubSubHub;
use crate::presence;
use crate::python;
use crate::report::{self, Level};

/// So many sessions are entered before others get the router.
const AT_ONCE: usize = 512;

impl Link {
    /// Whether other hubs are told who is here, and tell it.
    pub fn shares_presence(&self) -> bool {
        self.settings.presence
    }

    /// Takes note of what other hubs are to know. May be called with the router's lock held.
    pub fn note_members(&self, memberships: Vec<Membership>) {
        if !memberships.is_empty() {
            self.running.get().handle.note_members(memberships);
        }
    }

    /// What a session says of itself, for other hubs.
    pub fn encode_identity(&self, said: &Bound<'_, PyDict>) -> PyResult<Name> {
        let (py, encoded) = (said.py(), self.encode(said));
        encoded.map(Name::from).map_err(|error| {
            let error = python::settled(py, error);
            let text = format!("info cannot be told to other hubs: {}", error.value(py));
            let named = match () {
                () if error.is_instance_of::<PyTypeError>(py) => PyTypeError::new_err(text),
                () if error.is_instance_of::<PyValueError>(py) => PyValueError::new_err(text),
                () => return error,
            };
            let named = python::settled(py, named);
            named.set_cause(py, Some(error));
            named
        })
    }

    /// Everybody who is on a topic on other hubs.
    pub(super) fn take_everybody(&self, hub: &Bound<'_, PubSubHub>, topic: &[u8], all: Vec<Read>) {
        change(hub, |router| router.begin_count(topic));
        self.take_members(hub, topic, all);
        change(hub, |router| router.end_count(topic));
    }

    /// How it is with some of them.
    pub(super) fn take_members(&self, hub: &Bound<'_, PubSubHub>, topic: &[u8], some: Vec<Read>) {
        let mut some = some.into_iter();
        while some.len() > 0 {
            let told = some.by_ref().take(AT_ONCE);
            let told = told.map(|read| self.told(hub, read)).collect();
            let untold = change(hub, |router| router.take_told(topic, told));
            // Without the lock: what sessions say may go with it.
            drop(untold);
        }
    }

    /// What was told by a connection of another hub holds no longer.
    #[expect(clippy::unused_self, reason = "like its neighbours")]
    pub(super) fn take_death(&self, hub: &Bound<'_, PubSubHub>, host: Host) {
        for topic in change(hub, |router| router.followed_topics()) {
            change(hub, |router| router.lose_host(topic, host));
        }
    }

    fn told(&self, hub: &Bound<'_, PubSubHub>, read: Read) -> Told<Message> {
        let says = read.says.map(|saying| {
            let decoded = match saying {
                Ok(saying) => self.identity(hub, saying),
                Err(_) => Err(None),
            };
            decoded.unwrap_or_else(|error| {
                self.cannot_decode(hub, error);
                None
            })
        });
        Told {
            host: read.host,
            session: read.session,
            says,
        }
    }

    fn cannot_decode(&self, hub: &Bound<'_, PubSubHub>, error: Option<PyErr>) {
        match error {
            Some(error) if !error.is_instance_of::<PyException>(hub.py()) => {
                report::contained(hub.py(), Err(error), Some(hub));
            }
            error => {
                let what = "what a session says of itself cannot be decoded";
                self.unreadable(hub, what, error.as_ref());
            }
        }
    }

    fn identity(
        &self,
        hub: &Bound<'_, PubSubHub>,
        saying: Saying,
    ) -> Result<Identity<Message>, Option<PyErr>> {
        let py = hub.py();
        let Some(encoded) = saying.said else {
            return Ok(None);
        };
        let decoded = self.codec.decode(py, &encoded).and_then(|decoded| {
            let said = decoded.bind(py);
            let is_dict = said.cast::<PyDict>();
            let is_dict = is_dict.map_err(|_| PyTypeError::new_err("it is no dict"))?;
            presence::identity(is_dict).map(|said| Message::new(None, &said))
        });
        let says = decoded.map_err(|error| Some(python::settled(py, error)))?;
        Ok(Some(Arc::new(Said {
            says,
            when: saying.when,
            encoded: Some(encoded),
        })))
    }

    /// Other hubs are not told who is here.
    #[expect(clippy::unused_self, reason = "like its neighbours")]
    pub(super) fn tell_untold(&self, hub: &Bound<'_, PubSubHub>, reason: &str) {
        let text = format!("other processes are not told who is here: {reason}");
        say(hub, Level::Error, &text);
    }
}

fn change<T>(hub: &Bound<'_, PubSubHub>, change: impl FnOnce(&mut Router) -> T) -> T {
    hub.get().change(hub.py(), |router, _| change(router))
}
