//! Lends the host's randomness to every crate that asks `getrandom`: a guest has no other source.
//!
//! `getrandom` 0.3 and 0.4 with `--cfg getrandom_backend="custom"` call this symbol.
#![allow(unsafe_code)]

use crate::job;

/// What the host hands out in one call.
const MAX_CALL: usize = 65_536;

/// Fills `length` bytes at `destination`.
///
/// # Safety
/// `getrandom` promises that `destination` is valid for writing `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(destination: *mut u8, length: usize) -> Result<(), getrandom::Error> {
    let mut done = 0;
    while done < length {
        let part = (length - done).min(MAX_CALL);
        let bytes = job::random(part as u32);
        if bytes.len() != part {
            return Err(getrandom::Error::UNEXPECTED);
        }
        // SAFETY: `done + part <= length`, and the caller owns all `length` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), destination.add(done), part) };
        done += part;
    }
    Ok(())
}
