//! The space that the system takes from a thread's stack.

/// Returns how many bytes to add to the size of a thread's stack, so that the requested size is left.
///
/// glibc puts the static thread-local variables of the program and its libraries on the stack of each thread, and they
/// can have any size. Other systems put them elsewhere, or enlarge the stack by themselves (musl). On Windows the size
/// includes the guard pages, and what std has the system reserve for the handling of an overflow.
///
/// # Errors
///
/// If the system cannot start a thread to measure on.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere a thread measures it")]
pub(crate) fn carved() -> std::io::Result<usize> {
    Ok(if cfg!(windows) { 64 << 10 } else { 0 })
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use glibc::carved;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use crate::stack::here;
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::OnceLock;
    use std::thread::Builder;

    /// See above. The value is the same for all threads of a process, because it is fixed when the process starts.
    pub(crate) fn carved() -> io::Result<usize> {
        static CARVED: OnceLock<usize> = OnceLock::new();
        if let Some(carved) = CARVED.get() {
            return Ok(*carved);
        }
        let thread =
            Builder::new().name("wasm-stack".to_owned()).spawn(|| top().map(|top| top.saturating_sub(here())))?;
        let Ok(measured) = thread.join() else { unreachable!("measuring does not panic") };
        let carved = measured?;
        Ok(*CARVED.get_or_init(|| carved))
    }

    /// The address just above the stack of this thread, which includes the thread-local variables.
    #[expect(unsafe_code, reason = "asks the C library")]
    fn top() -> io::Result<usize> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: has no precondition.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: this thread is alive, and the attributes are writable.
        let error = unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let (mut lowest, mut size) = (ptr::null_mut(), 0);
        // SAFETY: the call above has initialised the attributes.
        let error = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size) };
        // SAFETY: they are initialised, and not used any more.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        if error == 0 { Ok(lowest.addr() + size) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}
