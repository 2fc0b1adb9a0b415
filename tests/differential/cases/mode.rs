//! The ways to run a case, and wasmtime's own async, which all others are compared with.

use crate::cases::case::Entry;
use crate::cases::driver::Timers;
use crate::cases::elsewhere::{other_store, wait};
use crate::cases::host::host_call;
use crate::cases::world::{FAR, Visit, World};
use wasmtime::{AsContextMut, Caller, ExternRef, Func, FuncType, Instance, Linker, Module, Result, Rooted, Store, Val};

/// A way to make calls and to define host functions.
pub(crate) trait Mode: Sized + 'static {
    /// The stack that calls run on.
    type Stack: Send + 'static;
    type Store: AsContextMut<Data = World<Self::Stack>> + From<Store<World<Self::Stack>>>;

    fn stack() -> Self::Stack;

    fn define_typed(linker: &mut Linker<World<Self::Stack>>, import: usize) -> Result<()>;
    fn define_untyped(linker: &mut Linker<World<Self::Stack>>, import: usize, ty: FuncType) -> Result<()>;
    fn define_blocking(linker: &mut Linker<World<Self::Stack>>, import: usize, ty: FuncType) -> Result<()>;

    fn yield_at_deadline(store: &mut Self::Store);

    async fn instantiate(
        stack: &mut Self::Stack,
        store: &mut Self::Store,
        linker: &Linker<World<Self::Stack>>,
        module: &Module,
        entry: Entry,
    ) -> Result<Instance>;

    async fn call(
        stack: &mut Self::Stack,
        store: &mut Self::Store,
        func: Func,
        params: &[Val],
        results: &mut [Val],
        entry: Entry,
    ) -> Result<()>;

    /// Calls the guest from a host function that it has called.
    async fn call_back(
        caller: &mut Caller<'_, World<Self::Stack>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
    ) -> Result<()>;

    /// The same as a future that can be dropped in the middle. Uses Rust types if the function is `typed`.
    async fn call_within(
        caller: &mut Caller<'_, World<Self::Stack>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
        typed: bool,
    ) -> Result<()>;

    /// Calls the guest of another store. Returns `None` if it traps.
    async fn call_elsewhere(visit: &mut Visit<Self::Stack>, pauses: u32) -> Option<i32>;
}

pub(crate) type ExternArg = Option<Rooted<ExternRef>>;

/// Makes Rust values from the results of an untyped host function.
pub(crate) trait Results {
    fn room() -> Vec<Val>;
    fn take(room: &[Val]) -> Self;
}

macro_rules! results {
    ($($ty:ty: $zero:expr, |$room:pat_param| $take:expr;)*) => {$(
        impl Results for $ty {
            fn room() -> Vec<Val> {
                $zero.into()
            }

            fn take(room: &[Val]) -> Self {
                let $room = room else { unreachable!("a host function keeps the types of its results") };
                $take
            }
        }
    )*};
}
results! {
    (): [], |[]| ();
    i32: [Val::I32(0)], |[Val::I32(a)]| *a;
    i64: [Val::I64(0)], |[Val::I64(a)]| *a;
    f64: [Val::F64(0)], |[Val::F64(a)]| f64::from_bits(*a);
    (i32, i64): [Val::I32(0), Val::I64(0)], |[Val::I32(a), Val::I64(b)]| (*a, *b);
    ExternArg: [Val::null_extern_ref()], |[Val::ExternRef(a)]| *a;
}

pub(crate) async fn typed_host_call<M: Mode, R: Results>(
    mut caller: Caller<'_, World<M::Stack>>,
    import: usize,
    params: &[Val],
) -> Result<R> {
    let mut room = R::room();
    host_call::<M>(&mut caller, import, params, &mut room).await?;
    Ok(R::take(&room))
}

/// Defines the host functions with typed closures. This is the one table of their Rust signatures.
macro_rules! define_typed {
    ($define:ident, $mode:ty, $linker:expr, $import:expr) => {
        match $import {
            0 => $define!($mode, $linker, 0, () -> ()),
            1 => $define!($mode, $linker, 1, (a: i32) -> i32),
            2 => $define!($mode, $linker, 2, (a: i64, b: f64) -> i64),
            3 => $define!($mode, $linker, 3, (a: i32, b: i32, c: i32) -> (i32, i64)),
            4 => $define!($mode, $linker, 4, (a: f32) -> f64),
            5 => $define!($mode, $linker, 5, (a: ExternArg, b: i32) -> ExternArg),
            6 => $define!($mode, $linker, 6, (a: Option<Func>) -> i32),
            _ => $define!($mode, $linker, 7, () -> i64),
        }
    };
}

pub(crate) use define_typed;

/// Calls a function with Rust types, if its signature is one of these.
macro_rules! call_typed {
    (
        $getter:expr, ($($store:expr)?), $params:ident, $results:ident,
        |$func:ident, $args:ident| $call:expr, else $untyped:expr
    ) => {
        match $params {
            [] if let Ok($func) = $getter.typed::<(), ()>($($store)?) => {
                let $args = ();
                $call
            }
            [Val::I32(a)] if let Ok($func) = $getter.typed::<i32, i32>($($store)?) => {
                let $args = *a;
                $call.map(|a| $results[0] = a.into())
            }
            [Val::I64(a), Val::I32(b)] if let Ok($func) = $getter.typed::<(i64, i32), (i32, f64)>($($store)?) => {
                let $args = (*a, *b);
                $call.map(|(a, b)| ($results[0], $results[1]) = (a.into(), b.into()))
            }
            [Val::F32(a), Val::F64(b)] if let Ok($func) = $getter.typed::<(f32, f64), f32>($($store)?) => {
                let $args = (f32::from_bits(*a), f64::from_bits(*b));
                $call.map(|a| $results[0] = a.into())
            }
            _ => $untyped,
        }
    };
}

pub(crate) use call_typed;

/// wasmtime's own async, which everything else is compared with.
pub(crate) enum Native {}

macro_rules! define_native {
    ($mode:ty, $linker:expr, $import:literal, ($($arg:ident: $ty:ty),*) -> $result:ty) => {
        $linker.func_wrap_async("host", concat!("h", $import), |caller: Caller<'_, World<()>>, ($($arg,)*): ($($ty,)*)| {
            Box::new(async move {
                typed_host_call::<Native, $result>(caller, $import, &[$($arg.into()),*]).await
            })
        })
    };
}

impl Mode for Native {
    type Stack = ();
    type Store = Store<World<()>>;

    fn stack() {}

    fn define_typed(linker: &mut Linker<World<()>>, import: usize) -> Result<()> {
        define_typed!(define_native, Native, linker, import)?;
        Ok(())
    }

    fn define_untyped(linker: &mut Linker<World<()>>, import: usize, ty: FuncType) -> Result<()> {
        linker.func_new_async("host", &format!("h{import}"), ty, move |mut caller, params, results| {
            Box::new(async move { host_call::<Self>(&mut caller, import, params, results).await })
        })?;
        Ok(())
    }

    fn define_blocking(linker: &mut Linker<World<()>>, import: usize, ty: FuncType) -> Result<()> {
        Self::define_untyped(linker, import, ty)
    }

    fn yield_at_deadline(store: &mut Store<World<()>>) {
        store.epoch_deadline_async_yield_and_update(FAR);
    }

    async fn instantiate(
        (): &mut (),
        store: &mut Store<World<()>>,
        linker: &Linker<World<()>>,
        module: &Module,
        _: Entry,
    ) -> Result<Instance> {
        linker.instantiate_async(store, module).await
    }

    async fn call(
        (): &mut (),
        store: &mut Store<World<()>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
        entry: Entry,
    ) -> Result<()> {
        match entry {
            Entry::Typed => call_typed!(func, (&mut *store), params, results,
                |func, args| func.call_async(store, args).await,
                else func.call_async(store, params, results).await),
            Entry::Untyped | Entry::Closure => func.call_async(store, params, results).await,
        }
    }

    async fn call_back(
        caller: &mut Caller<'_, World<()>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
    ) -> Result<()> {
        func.call_async(caller, params, results).await
    }

    async fn call_within(
        caller: &mut Caller<'_, World<()>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
        typed: bool,
    ) -> Result<()> {
        if !typed {
            return func.call_async(caller, params, results).await;
        }
        call_typed!(func, (&mut *caller), params, results,
            |func, args| func.call_async(caller, args).await,
            else func.call_async(caller, params, results).await)
    }

    async fn call_elsewhere(visit: &mut Visit<()>, pauses: u32) -> Option<i32> {
        let mut store = other_store(&visit.guest, &visit.timers);
        let mut linker = Linker::<Timers>::new(store.engine());
        linker
            .func_wrap_async("host", "wait", |caller, (times,): (i32,)| {
                Box::new(async move { wait(caller.data(), times).await })
            })
            .expect("the name is free");
        let instance = linker.instantiate_async(&mut store, &visit.guest).await.expect("starts nothing");
        let run = instance.get_typed_func::<i32, i32>(&mut store, "run").expect("is exported");
        run.call_async(&mut store, pauses.cast_signed()).await.ok()
    }
}
