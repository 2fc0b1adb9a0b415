//! Moves a value into memory with one store.

/// Moves a value of at least 16 bytes, and writes its first 16 bytes with one store.
///
/// The compiler stores the fields of a struct one by one, but moves the struct in units of 16 bytes. After a processor
/// has stored two halves, it can forward them to a load of each half, but not to one load of both. That load waits
/// until all earlier stores have reached the cache. For a `Caller` that moves into an async closure, this takes five to
/// seven nanoseconds, as much as everything else in a host function that is ready at once.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "moves a value by hand")]
#[inline(always)]
pub(crate) fn in_one_piece<T>(value: T) -> T {
    use std::arch::asm;
    use std::mem::{ManuallyDrop, MaybeUninit};
    use std::ptr;

    const { assert!(size_of::<T>() >= 16) };
    let value = ManuallyDrop::new(value);
    let from = ptr::from_ref(&value).cast::<u8>();
    let mut moved = MaybeUninit::<T>::uninit();
    let to = moved.as_mut_ptr().cast::<u8>();
    // SAFETY: source and destination have at least 16 bytes, which are copied unchanged.
    unsafe {
        asm!(
            "movq {both}, qword ptr [{from}]",
            "movhps {both}, qword ptr [{from} + 8]",
            "movups xmmword ptr [{to}], {both}",
            from = in(reg) from,
            to = in(reg) to,
            both = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
    // SAFETY: the value has at least 16 bytes, so this stays within it.
    let from = unsafe { from.add(16) };
    // SAFETY: the destination has the same size as the value.
    let to = unsafe { to.add(16) };
    // SAFETY: both pointers are valid for the rest of the value.
    unsafe { ptr::copy_nonoverlapping(from, to, size_of::<T>() - 16) };
    // SAFETY: all bytes of the value were copied, and the original is not used or dropped any more.
    unsafe { moved.assume_init() }
}

/// Moves a value. The effect on other processors was not measured.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn in_one_piece<T>(value: T) -> T {
    value
}
