//! How much a thread asks of the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting for each thread. It costs an addition on a thread's own counters.
pub(crate) struct Counting;

/// Allocations of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocations {
    /// How many, those that grew counted again.
    pub(crate) count: u64,
    /// Bytes asked for.
    pub(crate) bytes: u64,
}

thread_local! {
    // Made without an allocation and dropped without one, which an allocator must insist on.
    static MADE: Cell<Allocations> = const { Cell::new(Allocations { count: 0, bytes: 0 }) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Allocations {
    /// Of the calling thread, from its start.
    pub(crate) fn so_far() -> Self {
        MADE.get()
    }

    /// What came since.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, bytes: self.bytes - earlier.bytes }
    }
}

impl Counting {
    fn note(bytes: usize) {
        // A thread that is ending has no counter any more, and nobody who would ask.
        let _ = MADE.try_with(|made| {
            let Allocations { count, bytes: sum } = made.get();
            made.set(Allocations { count: count + 1, bytes: sum + bytes as u64 });
        });
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments; the counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc`, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_its_own_allocations() {
        let before = Allocations::so_far();
        let mut kept = Vec::<u8>::with_capacity(1_000);
        kept.reserve_exact(3_000);
        std::thread::spawn(|| drop(std::hint::black_box(vec![0_u8; 1 << 20]))).join().unwrap();
        let made = Allocations::so_far().since(before);
        drop(std::hint::black_box(kept));
        assert!(made.count >= 2 && made.bytes >= 4_000 && made.bytes < 1 << 20, "{made:?}");
    }
}
