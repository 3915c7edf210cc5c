//! A send that reaches nobody costs no memory, not even for a moment, and wakes nobody.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use _core::core::LaneKey;
use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::Audience;
use _core::core::registry::Scope;
use _core::core::router::Router;
use _core::core::subscription::Listener;

type Tested = Router<u64, u64, LaneKey>;
type Trash = _core::core::Trash<u64, u64, LaneKey>;

const LANE: LaneKey = 0;

thread_local! {
    /// Allocations on this thread: other tests run on others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn count() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: every call is handed on to the system's allocator as it is; counting neither allocates
// nor unwinds: the counter is initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; the memory came from the same allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise; the memory came from the same allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A handler that is a number; the router cannot tell it from others.
fn listener(handler: u64) -> Listener<u64> {
    Listener {
        handler,
        digest: 0,
        overlaps: false,
    }
}

/// A hub with a session on messages to all and on a topic, and one that was on both and has left.
fn router() -> Tested {
    let (mut router, mut trash) = (
        Router::new(10, OverflowPolicy::DropOldest),
        Trash::default(),
    );
    router.add_lane(true, 1, |lane| lane);
    for session in [b"alice", b"bobby"] {
        router.subscribe(session, None, LANE, listener(1));
        router.subscribe(session, Some(b"news"), LANE, listener(2));
    }
    router.subscribe(b"bobby", Some(b"gone"), LANE, listener(3));
    router.unsubscribe(b"bobby", &Scope::All, &mut trash);
    router
}

/// Sends; returns how many allocations that took, and how many deliverers were woken.
fn publish(router: &mut Tested, topic: Option<&[u8]>, except: Option<&[u8]>) -> (usize, usize) {
    let mut trash = Trash::default();
    let before = ALLOCATIONS.get();
    let wake = router.publish(
        topic,
        except.map_or(Audience::Everyone, Audience::Others),
        || 0,
        &mut trash,
    );
    (ALLOCATIONS.get() - before, wake.len())
}

fn reaches_nobody(topic: Option<&[u8]>, except: Option<&[u8]>) {
    let mut router = router();
    assert_eq!(publish(&mut router, topic, except), (0, 0));
    assert_eq!(router.sizes().pending, 0);
    assert_eq!(router.sizes().published, 1);
}

#[test]
fn a_send_on_a_topic_that_nobody_listens_to_allocates_nothing() {
    reaches_nobody(Some(b"nowhere"), None);
    reaches_nobody(Some(b"nowhere"), Some(b"alice"));
}

#[test]
fn a_send_on_a_topic_that_everybody_has_left_allocates_nothing() {
    reaches_nobody(Some(b"gone"), None);
}

#[test]
fn a_send_that_only_the_sender_would_get_allocates_nothing() {
    reaches_nobody(None, Some(b"alice"));
    reaches_nobody(Some(b"news"), Some(b"alice"));
}

#[test]
fn a_send_in_a_hub_without_subscribers_allocates_nothing() {
    let mut router = Tested::new(10, OverflowPolicy::DropOldest);
    router.add_lane(true, 1, |lane| lane);
    assert_eq!(publish(&mut router, None, None), (0, 0));
}

#[test]
fn a_send_that_somebody_gets_is_counted() {
    for (topic, except) in [
        (None, None),
        (None, Some(b"bobby".as_slice())),
        (Some(b"news".as_slice()), None),
    ] {
        let (allocations, woken) = publish(&mut router(), topic, except);
        assert!(allocations > 0, "the counter counts");
        assert_eq!(woken, 1);
    }
}
