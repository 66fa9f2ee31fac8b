//! mimalloc, asked the short way where that will do.
//!
//! Its package tells it the alignment each time. For that, mimalloc looks at the one free list at hand and
//! then takes a block that is larger than was asked for, unless the size is a power of two: it neither
//! fills that list again nor finds what was freed of the right size. Without an alignment it does both.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use mimalloc::MiMalloc;

/// `MI_MAX_ALIGN_SIZE`: so each block is aligned that is at least as large; a smaller one by its size.
const ALIGNED: usize = 16;

unsafe extern "C" {
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_zalloc(size: usize) -> *mut c_void;
}

/// See the module.
pub struct Allocator;

#[inline]
fn is_aligned_anyway(layout: Layout) -> bool {
    layout.align() <= ALIGNED && layout.align() <= layout.size()
}

// SAFETY: all blocks are mimalloc's, whichever way they were asked for, and aligned as they are to be.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_aligned_anyway(layout) {
            // SAFETY: any size may be asked for.
            return unsafe { mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller's promises are passed on, as below.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_aligned_anyway(layout) {
            // SAFETY: any size may be asked for.
            return unsafe { mi_zalloc(layout.size()) }.cast();
        }
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of one size at once: one alone might be aligned by chance.
    const N_BLOCKS: usize = 9;

    #[test]
    fn every_block_is_aligned_as_it_was_asked_for() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            let large = [256, 1000, 1023, 1024, 1025, 3000, 4095, 5000, 70_000, (3 << 20) + 1];
            for size in (1..200).chain(large) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: none of these sizes is 0, and each block goes the way it came.
                let blocks: Vec<*mut u8> = (0..N_BLOCKS)
                    .map(|n| unsafe {
                        if n % 2 == 0 {
                            Allocator.alloc(layout)
                        } else {
                            Allocator.alloc_zeroed(layout)
                        }
                    })
                    .collect();
                for block in blocks {
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    // SAFETY: as above.
                    unsafe { Allocator.dealloc(block, layout) };
                }
            }
        }
    }
}
