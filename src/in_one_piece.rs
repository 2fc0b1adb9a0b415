//! Moving a value into memory by one store.

/// Moves a value of more than 16 bytes, so that the first 16 come to memory by one store.
///
/// The compiler stores the fields of a struct one by one, and moves the struct on by 16 bytes at a time. A processor that
/// has just stored two halves can hand them on to a load of each half, but not to a load of both, which then waits until all
/// earlier stores have got to the cache: five to seven nanoseconds for a `Caller` that moves into an async closure, as much as
/// all else of a host function that is ready at once.
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
    // SAFETY: both have 16 bytes, which are copied as they are.
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
    // SAFETY: within the value,
    let from = unsafe { from.add(16) };
    // SAFETY: … and within where it goes,
    let to = unsafe { to.add(16) };
    // SAFETY: … the rest of which is this.
    unsafe { ptr::copy_nonoverlapping(from, to, size_of::<T>() - 16) };
    // SAFETY: all bytes of the value were copied, and it is not used or dropped any more.
    unsafe { moved.assume_init() }
}

/// Moves a value. What other processors do here was not measured.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn in_one_piece<T>(value: T) -> T {
    value
}
