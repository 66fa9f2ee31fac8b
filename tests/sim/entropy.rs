//! Randomness of a simulated run comes from its seed, wherever it is drawn.
//!
//! Raft draws its waits, hash maps their keys and `select!` its order from the system's
//! `getrandom`. This binary defines that function itself: on a thread that was given a seed it
//! gives the seed's numbers, elsewhere the system's.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's randomness follows from the seed.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// The next number of a sequence (splitmix64); the state is advanced.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stands in the place of the C library's function.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes, as the C function demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize {
    let Ok(Some(mut state)) = STATE.try_with(Cell::get) else {
        // SAFETY: the same arguments, the same contract.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) } as isize;
    };
    for at in 0..len {
        // SAFETY: the caller promised `len` bytes.
        unsafe { buffer.add(at).write(next(&mut state) as u8) };
    }
    STATE.set(Some(state));
    len as isize
}
