//! What a process without memory goes on with.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use _core::reserve::Reserve;

thread_local! {
    /// Whether this thread's allocations fail: other tests run on others.
    static FAILS: Cell<bool> = const { Cell::new(false) };
}

struct Failing;

// SAFETY: every call is handed on to the system's allocator, or fails; neither unwinds.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FAILS.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; the memory came from the same allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static RESERVE: Reserve<Failing> = Reserve::new(Failing);

fn without_memory<T>(work: impl FnOnce() -> T) -> T {
    FAILS.set(true);
    let result = work();
    FAILS.set(false);
    result
}

#[test]
fn what_is_made_without_memory_is_as_good_as_any_other() {
    let (mut numbers, zeros) =
        without_memory(|| ((0..1000).collect::<Vec<u64>>(), vec![0_u8; 999]));

    assert_eq!(numbers.iter().sum::<u64>(), 499_500);
    assert!(zeros.iter().all(|&zero| zero == 0));
    numbers.extend(1000..2000);
    assert_eq!(numbers.iter().sum::<u64>(), 1_999_000);
}

#[test]
fn what_was_there_before_can_grow_without_memory() {
    let mut numbers: Vec<u64> = (0..1000).collect();

    without_memory(|| numbers.extend(1000..2000));

    assert_eq!(numbers.iter().sum::<u64>(), 1_999_000);
}

#[test]
fn the_reserve_serves_again_and_again_what_is_given_back() {
    for round in 0..1000 {
        let parts = without_memory(|| [round; 100].map(|part: u64| Box::new([part; 10])));
        assert!(parts.iter().all(|part| part[9] == round));
    }
}

#[test]
fn memory_is_missed_only_while_there_is_none() {
    static OWN: Reserve<Failing> = Reserve::new(Failing);
    let layout = Layout::new::<u64>();
    assert!(!without_memory(|| OWN.is_needed()), "nothing was asked for");

    // SAFETY: the layout is not empty.
    let borrowed = without_memory(|| unsafe { OWN.alloc(layout) });
    assert!(!borrowed.is_null());
    assert!(without_memory(|| OWN.is_needed()));
    assert!(!OWN.is_needed(), "there is memory again");

    // SAFETY: it is given back as it was taken.
    without_memory(|| unsafe { OWN.dealloc(borrowed, layout) });
    assert!(
        !without_memory(|| OWN.is_needed()),
        "nothing is lent any more"
    );
}
