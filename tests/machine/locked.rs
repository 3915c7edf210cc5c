//! The router as if it had a lock around it: what holds somebody's objects, handlers and messages, is
//! never dropped while the lock is held, and who must be woken is told afterwards.

use std::cell::Cell;
use std::ops::Deref;

use _core::core;
use _core::core::backlog::OverflowPolicy;
use _core::core::presence::{Presence, Said};
use _core::core::router::Router;
use triomphe::Arc;

use crate::model::{Id, Message};

pub type Tested = Router<Handler, Payload, u32>;
pub type Trash = core::Trash<Handler, Payload, u32>;

thread_local! {
    static IS_HELD: Cell<bool> = const { Cell::new(false) };
    static WAS_DROPPED: Cell<bool> = const { Cell::new(false) };
}

/// Somebody's object, whose end can run anybody's code.
struct Object;

impl Drop for Object {
    fn drop(&mut self) {
        if IS_HELD.get() {
            WAS_DROPPED.set(true);
        }
    }
}

/// A handler.
pub struct Handler {
    pub id: Id,
    _object: Object,
}

impl Handler {
    pub fn new(id: Id) -> Self {
        Self {
            id,
            _object: Object,
        }
    }
}

pub enum Says {
    Message(Message),
    Notice(Arc<Presence<Payload>>),
    Identity(u64),
}

/// A message, or what a session says of itself.
pub struct Payload {
    pub says: Says,
    _object: Object,
}

impl Payload {
    fn new(says: Says) -> Self {
        Self {
            says,
            _object: Object,
        }
    }

    pub fn message(message: Message) -> Self {
        Self::new(Says::Message(message))
    }

    pub fn notice(presence: Arc<Presence<Self>>) -> Self {
        Self::new(Says::Notice(presence))
    }

    /// The changes that it tells of.
    pub fn presence(&self) -> Option<&Arc<Presence<Self>>> {
        match &self.says {
            Says::Notice(presence) => Some(presence),
            Says::Message(_) | Says::Identity(_) => None,
        }
    }

    pub fn identity(said: u64) -> Arc<Said<Self>> {
        Arc::new(Said {
            says: Self::new(Says::Identity(said)),
            when: 0,
            encoded: None,
        })
    }

    /// What a session says of itself.
    pub fn said(&self) -> u64 {
        match self.says {
            Says::Identity(said) => said,
            _ => panic!("a message is no identity"),
        }
    }
}

/// The router: to look at, and to change.
pub struct Locked {
    router: Tested,
    woken: Vec<u32>,
}

impl Locked {
    pub fn new(limit: u32, overflow: OverflowPolicy) -> Self {
        Self {
            router: Router::new(limit, overflow),
            woken: Vec::new(),
        }
    }

    /// As `PubSubHub::change`.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Tested, &mut Trash) -> T) -> T {
        let mut trash = Trash::default();
        IS_HELD.set(true);
        let result = change(&mut self.router, &mut trash);
        let aftermath = self.router.aftermath();
        IS_HELD.set(false);
        assert!(!WAS_DROPPED.replace(false), "dropped under the lock");
        trash.discard();
        self.woken
            .extend(aftermath.into_iter().flat_map(|a| a.wake));
        result
    }

    /// Who was to be woken because of changes of subscriptions since this was asked last.
    pub fn take_woken(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.woken)
    }
}

impl Deref for Locked {
    type Target = Tested;

    fn deref(&self) -> &Tested {
        &self.router
    }
}
