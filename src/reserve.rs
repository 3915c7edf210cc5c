//! The memory that a hub lives on when the process has none left.
//!
//! Rust ends the process when an allocation fails, where Python raises `MemoryError`. The hub's
//! bookkeeping is small: it borrows from a reserve instead, and whoever sends or subscribes next is
//! refused with `MemoryError` until the process has memory again. What is delivered meanwhile gives
//! back what was borrowed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use linked_list_allocator::Heap;

/// Costs addresses only: its pages are not touched before they are lent.
const SIZE: usize = 1 << 20;

/// Memory is there again when a piece as large as this is.
const ENOUGH: Layout = Layout::new::<[u8; 1 << 16]>();

/// The reserve of the process.
#[cfg_attr(feature = "extension-module", global_allocator)]
pub static RESERVE: Reserve<System> = Reserve::new(System);

/// Memory of its own: what the heap knows of it stands in the heap.
#[repr(align(16))]
struct Room(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the heap reaches into it, and that is behind a lock.
unsafe impl Sync for Room {}

/// An allocator that lends what the one inside it has not got.
pub struct Reserve<A> {
    inner: A,
    /// The standard library's lock, because the crate's own would allocate for those who wait.
    heap: Mutex<Heap>,
    room: Room,
    /// How much is lent, in bytes.
    lent: AtomicUsize,
}

impl<A: GlobalAlloc> Reserve<A> {
    /// A reserve for what `inner` refuses.
    #[expect(
        clippy::large_stack_arrays,
        reason = "it is made when the crate is compiled"
    )]
    pub const fn new(inner: A) -> Self {
        Self {
            inner,
            heap: Mutex::new(Heap::empty()),
            room: Room(UnsafeCell::new([0; SIZE])),
            lent: AtomicUsize::new(0),
        }
    }

    /// Whether something is lent, because there was no memory, and there still is none.
    pub fn is_needed(&self) -> bool {
        self.lent.load(Ordering::Relaxed) > 0 && !self.is_memory_back()
    }

    #[cold]
    fn is_memory_back(&self) -> bool {
        // SAFETY: the layout is not empty; the memory is given back as it was taken.
        unsafe {
            // The compiler takes an allocation for granted that nobody looks at.
            let memory = black_box(self.inner.alloc(ENOUGH));
            if !memory.is_null() {
                self.inner.dealloc(memory, ENOUGH);
            }
            !memory.is_null()
        }
    }

    fn has(&self, memory: *mut u8) -> bool {
        let start = self.room.0.get().addr();
        memory.addr().wrapping_sub(start) < SIZE
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn lend(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.heap();
        if heap.size() == 0 {
            // SAFETY: the room is as large as said, lives as long as the heap and nobody else uses it.
            unsafe { heap.init(self.room.0.get().cast(), SIZE) };
        }
        let memory = heap.allocate_first_fit(layout);
        self.note(&heap);
        memory.map_or(std::ptr::null_mut(), NonNull::as_ptr)
    }

    /// # Safety
    ///
    /// The memory was lent, with that layout, and nobody uses it any more.
    #[cold]
    unsafe fn take_back(&self, memory: *mut u8, layout: Layout) {
        let Some(memory) = NonNull::new(memory) else {
            return;
        };
        let mut heap = self.heap();
        // SAFETY: the caller's promise.
        unsafe { heap.deallocate(memory, layout) };
        self.note(&heap);
    }

    fn note(&self, heap: &Heap) {
        self.lent.store(heap.used(), Ordering::Relaxed);
    }

    /// # Safety
    ///
    /// That of `GlobalAlloc::realloc`.
    #[cold]
    unsafe fn exchange(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: the size, rounded up to the alignment, is no overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller's promise: the size is not zero.
        let there = unsafe { self.alloc(new) };
        if !there.is_null() {
            // SAFETY: both are at least that long, and apart: the old one is still in use. It is
            // given back as it was taken.
            unsafe {
                there.copy_from_nonoverlapping(memory, layout.size().min(size));
                self.dealloc(memory, layout);
            }
        }
        there
    }
}

// SAFETY: memory comes from the allocator inside, or from a heap that nobody else uses, and goes
// back to where it came from; neither unwinds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reserve<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = unsafe { self.inner.alloc(layout) };
        if memory.is_null() {
            return self.lend(layout);
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = unsafe { self.inner.alloc_zeroed(layout) };
        if !memory.is_null() {
            return memory;
        }
        let memory = self.lend(layout);
        if !memory.is_null() {
            // SAFETY: it is as long as the layout says.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; the memory goes back to where it came from.
        unsafe {
            if self.has(memory) {
                self.take_back(memory, layout);
            } else {
                self.inner.dealloc(memory, layout);
            }
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.has(memory) {
            // SAFETY: the caller's promise; the memory came from there.
            let moved = unsafe { self.inner.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.exchange(memory, layout, size) }
    }
}
