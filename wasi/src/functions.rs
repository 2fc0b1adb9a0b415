//! The functions of WASI for modules, in one table, and how they become async host functions.
//!
//! Each function does what wasmtime-wasi's function of the same name does. wiggle generates those from a description of the
//! interface. They are public, and take the context, the guest's memory, and the parameters as wasm has them.

/// Passes all functions that both versions have to a macro, with their types in wasm. The word in front of a name says what
/// wasmtime-wasi's function is like:
///
/// - `asks`: it is async. Another thread may work on a file for it: see the module `asking`.
/// - `sleeps`: it is async, but might block. See the module `sleep`.
/// - `now`: it is not async.
/// - `yields`: it is not async, and does nothing. Here the function yields.
macro_rules! for_each_function {
    ($with:ident $($more:tt)*) => {
        $with! {
            $($more)*
            now args_get(a: i32, b: i32) -> i32;
            now args_sizes_get(a: i32, b: i32) -> i32;
            now environ_get(a: i32, b: i32) -> i32;
            now environ_sizes_get(a: i32, b: i32) -> i32;
            now clock_res_get(a: i32, b: i32) -> i32;
            now clock_time_get(a: i32, b: i64, c: i32) -> i32;
            asks fd_advise(a: i32, b: i64, c: i64, d: i32) -> i32;
            now fd_allocate(a: i32, b: i64, c: i64) -> i32;
            asks fd_close(a: i32) -> i32;
            asks fd_datasync(a: i32) -> i32;
            asks fd_fdstat_get(a: i32, b: i32) -> i32;
            now fd_fdstat_set_flags(a: i32, b: i32) -> i32;
            now fd_fdstat_set_rights(a: i32, b: i64, c: i64) -> i32;
            asks fd_filestat_get(a: i32, b: i32) -> i32;
            asks fd_filestat_set_size(a: i32, b: i64) -> i32;
            asks fd_filestat_set_times(a: i32, b: i64, c: i64, d: i32) -> i32;
            asks fd_pread(a: i32, b: i32, c: i32, d: i64, e: i32) -> i32;
            now fd_prestat_get(a: i32, b: i32) -> i32;
            now fd_prestat_dir_name(a: i32, b: i32, c: i32) -> i32;
            asks fd_pwrite(a: i32, b: i32, c: i32, d: i64, e: i32) -> i32;
            asks fd_read(a: i32, b: i32, c: i32, d: i32) -> i32;
            asks fd_readdir(a: i32, b: i32, c: i32, d: i64, e: i32) -> i32;
            asks fd_renumber(a: i32, b: i32) -> i32;
            asks fd_seek(a: i32, b: i64, c: i32, d: i32) -> i32;
            asks fd_sync(a: i32) -> i32;
            now fd_tell(a: i32, b: i32) -> i32;
            asks fd_write(a: i32, b: i32, c: i32, d: i32) -> i32;
            asks path_create_directory(a: i32, b: i32, c: i32) -> i32;
            asks path_filestat_get(a: i32, b: i32, c: i32, d: i32, e: i32) -> i32;
            asks path_filestat_set_times(a: i32, b: i32, c: i32, d: i32, e: i64, f: i64, g: i32) -> i32;
            asks path_link(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32) -> i32;
            asks path_open(a: i32, b: i32, c: i32, d: i32, e: i32, f: i64, g: i64, h: i32, i: i32) -> i32;
            asks path_readlink(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32) -> i32;
            asks path_remove_directory(a: i32, b: i32, c: i32) -> i32;
            asks path_rename(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32) -> i32;
            asks path_symlink(a: i32, b: i32, c: i32, d: i32, e: i32) -> i32;
            asks path_unlink_file(a: i32, b: i32, c: i32) -> i32;
            sleeps poll_oneoff(a: i32, b: i32, c: i32, d: i32) -> i32;
            now proc_exit(a: i32) -> ();
            now proc_raise(a: i32) -> i32;
            now random_get(a: i32, b: i32) -> i32;
            yields sched_yield() -> i32;
            now sock_recv(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32) -> i32;
            now sock_send(a: i32, b: i32, c: i32, d: i32, e: i32) -> i32;
            now sock_shutdown(a: i32, b: i32) -> i32;
        }
    };
}
pub(crate) use for_each_function;

/// Defines the functions with async closures, whose futures need not be `Send`.
macro_rules! define {
    ($linker:ident, $get:ident, $module:ident:
        $($kind:ident $name:ident($($arg:ident: $Arg:ty),*) -> $Ret:ty;)*) => {$(
        $linker.func_wrap_suspending(
            stringify!($module),
            stringify!($name),
            async move |mut caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<$Ret> {
                $crate::functions::run!($kind caller, $get, $module::$name($($arg),*))
            },
        )?;
    )*};
}
pub(crate) use define;

/// Defines the functions with boxed futures, which are `Send`.
macro_rules! define_send {
    ($linker:ident, $get:ident, $module:ident:
        $($kind:ident $name:ident($($arg:ident: $Arg:ty),*) -> $Ret:ty;)*) => {$(
        $linker.func_wrap_suspending_boxed(
            stringify!($module),
            stringify!($name),
            move |mut caller: Caller<'_, T>, ($($arg,)*): ($($Arg,)*)| -> Box<dyn Future<Output = Result<$Ret>> + Send + '_> {
                Box::new(async move {
                    $crate::functions::run!($kind caller, $get, $module::$name($($arg),*))
                })
            },
        )?;
    )*};
}
pub(crate) use define_send;

/// The body of one of the functions.
macro_rules! run {
    (asks $caller:ident, $get:ident, $module:ident::$name:ident($($arg:ident),*)) => {
        $crate::turn::in_turn_asking(async {
            let memory = $crate::guest::memory(&mut $caller)?;
            let (mut memory, context) = $crate::guest::parts(&mut $caller, &memory, $get)?;
            $module::$name(context, &mut memory, $($arg),*).await
        })
        .await
    };
    (now $caller:ident, $get:ident, $module:ident::$name:ident($($arg:ident),*)) => {
        $crate::turn::in_turn(async {
            let memory = $crate::guest::memory(&mut $caller)?;
            let (mut memory, context) = $crate::guest::parts(&mut $caller, &memory, $get)?;
            $module::$name(context, &mut memory, $($arg),*)
        })
        .await
    };
    (sleeps $caller:ident, $get:ident, $module:ident::$name:ident($a:ident, $b:ident, $c:ident, $d:ident)) => {
        $crate::turn::in_turn(async {
            let memory = $crate::guest::memory(&mut $caller)?;
            let (mut memory, context) = $crate::guest::parts(&mut $caller, &memory, $get)?;
            if let Some(errno) = sleep(&mut memory, [$a, $b, $c, $d]).await? {
                return Ok(errno);
            }
            $module::$name(context, &mut memory, $a, $b, $c, $d).await
        })
        .await
    };
    (yields $caller:ident, $get:ident, $module:ident::$name:ident()) => {{
        $crate::turn::give_way().await;
        let memory = $crate::guest::memory(&mut $caller)?;
        let (mut memory, context) = $crate::guest::parts(&mut $caller, &memory, $get)?;
        $module::$name(context, &mut memory)
    }};
}
pub(crate) use run;
