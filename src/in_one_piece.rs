//! Moves a value into memory so that the processor can forward it to any load.

/// Moves a `Caller`, and writes it with one store of 16 bytes and one of 8.
///
/// The compiler stores the fields of a struct one by one, but moves the struct in units of up to 16 bytes. A processor can
/// forward what it has just stored to a load of the same bytes or of a part of them. A load of more waits until all
/// earlier stores have reached the cache. For a `Caller` that moves into an async closure, this takes five to seven
/// nanoseconds, as much as everything else in a host function that is ready at once.
///
/// A value of another size than that of wasmtime's `Caller`, two words and a half, is only moved.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "moves a value by hand")]
#[inline(always)]
pub(crate) fn in_one_piece<T>(value: T) -> T {
    use std::arch::asm;
    use std::mem::{ManuallyDrop, MaybeUninit, transmute_copy};

    if size_of::<T>() != 24 {
        return value;
    }
    let value = ManuallyDrop::new(value);
    // SAFETY: both have 24 bytes, and these types accept any bytes, initialised or not.
    let [first, second, third]: [MaybeUninit<u64>; 3] = unsafe { transmute_copy(&value) };
    let mut moved = MaybeUninit::<T>::uninit();
    // SAFETY: the destination has 24 bytes.
    unsafe {
        asm!(
            "movq {both}, {first}",
            "movq {upper}, {second}",
            "punpcklqdq {both}, {upper}",
            "movups xmmword ptr [{to}], {both}",
            "mov qword ptr [{to} + 16], {third}",
            first = in(reg) first,
            second = in(reg) second,
            third = in(reg) third,
            to = in(reg) moved.as_mut_ptr(),
            both = out(xmm_reg) _,
            upper = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
    // SAFETY: all bytes of the value were copied, and the original is not used or dropped any more.
    unsafe { moved.assume_init() }
}

/// Moves a value. The effect on other processors was not measured.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn in_one_piece<T>(value: T) -> T {
    value
}
