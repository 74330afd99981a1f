//! How the allocator keeps what was freed.
//!
//! glibc gives threads heaps of their own, up to eight a core, and each keeps what its largest moment needed. Buffers here are freed by other
//! threads than those that asked for them, so that all heaps would grow to the size of one job's work. Two are enough: what is
//! asked for often comes from buffers that are used again.

/// To be called before there are other threads. Where it does not help it does no harm.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_few_heaps() {
    const HEAPS: libc::c_int = 2;
    // SAFETY: it takes two numbers and changes nothing but the allocator's own settings; no other thread runs yet.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}

/// Other allocators have their own ways.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_few_heaps() {}
