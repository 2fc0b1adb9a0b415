//! How this crate runs a case, on each kind of stack.

use crate::cases::case::Entry;
use crate::cases::driver::Timers;
use crate::cases::elsewhere::{other_store, wait};
use crate::cases::host::{host_call, host_call_blocking};
use crate::cases::mode::{ExternArg, Mode, call_typed, define_typed, typed_host_call};
use crate::cases::world::{FAR, Visit, World};
use std::marker::PhantomData;
use wasmtime::{Caller, Func, FuncType, Instance, Linker, Module, Result, Val};
#[cfg(feature = "thread-backend")]
use wasmtime_async::ThreadStack;
use wasmtime_async::{
    Carries, DEFAULT_STACK_SIZE, FiberStack, FuncExt, InstancePreExt, LinkerExt, SendFiberStack, Stack, Store,
};

/// A kind of stack, and how async host functions are defined for it.
pub(crate) trait Kind: Sized + 'static {
    type Stack: Stack + Send + Carries<World<Self::Stack>> + Carries<Timers> + 'static;

    fn stack() -> Self::Stack {
        Self::Stack::new(DEFAULT_STACK_SIZE).expect("there is memory for a stack")
    }

    fn define_typed(linker: &mut Linker<World<Self::Stack>>, import: usize) -> Result<()> {
        define_typed!(define_ours, Self, linker, import)?;
        Ok(())
    }

    fn define_untyped(linker: &mut Linker<World<Self::Stack>>, import: usize, ty: FuncType) -> Result<()> {
        let body = async move |mut caller: Caller<'_, World<Self::Stack>>, params: &[Val], results: &mut [Val]| {
            host_call::<Ours<Self>>(&mut caller, import, params, results).await
        };
        linker.func_new_suspending("host", &format!("h{import}"), ty, body)?;
        Ok(())
    }

    /// Defines the host function of the other store's guest.
    fn define_wait(linker: &mut Linker<Timers>) -> Result<()> {
        linker.func_wrap_suspending("host", "wait", async |caller: Caller<'_, Timers>, times: i32| {
            wait(caller.data(), times).await
        })?;
        Ok(())
    }
}

macro_rules! define_ours {
    ($kind:ty, $linker:expr, $import:literal, ($($arg:ident: $ty:ty),*) -> $result:ty) => {
        $linker.func_wrap_suspending(
            "host",
            concat!("h", $import),
            async |caller: Caller<'_, World<<$kind as Kind>::Stack>>, $($arg: $ty),*| -> Result<$result> {
                typed_host_call::<Ours<$kind>, $result>(caller, $import, &[$($arg.into()),*]).await
            },
        )
    };
}
use define_ours;

/// `FiberStack`s that suspend only known frames.
pub(crate) enum Fiber {}

impl Kind for Fiber {
    type Stack = FiberStack;
}

/// `FiberStack`s that suspend anything.
pub(crate) enum Unchecked {}

impl Kind for Unchecked {
    type Stack = FiberStack;

    #[expect(unsafe_code, reason = "such stacks are what is to be tested")]
    fn stack() -> FiberStack {
        // SAFETY: only host functions of this test are suspended here. They neither borrow nor set a thread-local
        // variable, and hold no lock. No call is forgotten.
        unsafe { FiberStack::unchecked(DEFAULT_STACK_SIZE) }.expect("there is memory for a stack")
    }
}

/// `ThreadStack`s.
#[cfg(feature = "thread-backend")]
pub(crate) enum Thread {}

#[cfg(feature = "thread-backend")]
impl Kind for Thread {
    type Stack = ThreadStack;
}

/// `SendFiberStack`s.
pub(crate) enum SendFiber {}

macro_rules! define_send {
    ($kind:ty, $linker:expr, $import:literal, ($($arg:ident: $ty:ty),*) -> $result:ty) => {
        $linker.func_wrap_suspending_boxed(
            "host",
            concat!("h", $import),
            |caller: Caller<'_, World<SendFiberStack>>, ($($arg,)*): ($($ty,)*)| {
                Box::new(async move {
                    typed_host_call::<Ours<$kind>, $result>(caller, $import, &[$($arg.into()),*]).await
                })
            },
        )
    };
}

impl Kind for SendFiber {
    type Stack = SendFiberStack;

    fn define_typed(linker: &mut Linker<World<SendFiberStack>>, import: usize) -> Result<()> {
        define_typed!(define_send, Self, linker, import)?;
        Ok(())
    }

    fn define_untyped(linker: &mut Linker<World<SendFiberStack>>, import: usize, ty: FuncType) -> Result<()> {
        linker.func_new_suspending_boxed("host", &format!("h{import}"), ty, move |mut caller, params, results| {
            Box::new(async move { host_call::<Ours<Self>>(&mut caller, import, params, results).await })
        })?;
        Ok(())
    }

    fn define_wait(linker: &mut Linker<Timers>) -> Result<()> {
        linker.func_wrap_suspending_send("host", "wait", |caller: Caller<'_, Timers>, times: i32| {
            let timers = caller.data().clone();
            async move { wait(&timers, times).await }
        })?;
        Ok(())
    }
}

/// This crate, with this kind of stack.
pub(crate) struct Ours<K>(PhantomData<K>);

impl<K: Kind> Mode for Ours<K> {
    type Stack = K::Stack;
    type Store = Store<World<K::Stack>>;

    fn stack() -> K::Stack {
        K::stack()
    }

    fn define_typed(linker: &mut Linker<World<K::Stack>>, import: usize) -> Result<()> {
        K::define_typed(linker, import)
    }

    fn define_untyped(linker: &mut Linker<World<K::Stack>>, import: usize, ty: FuncType) -> Result<()> {
        K::define_untyped(linker, import, ty)
    }

    fn define_blocking(linker: &mut Linker<World<K::Stack>>, import: usize, ty: FuncType) -> Result<()> {
        linker.func_new("host", &format!("h{import}"), ty, move |mut caller, params, results| {
            host_call_blocking::<Self>(&mut caller, import, params, results)
        })?;
        Ok(())
    }

    fn yield_at_deadline(store: &mut Self::Store) {
        store.epoch_deadline_suspend_and_update(FAR);
    }

    async fn instantiate(
        stack: &mut K::Stack,
        store: &mut Self::Store,
        linker: &Linker<World<K::Stack>>,
        module: &Module,
        entry: Entry,
    ) -> Result<Instance> {
        match entry {
            Entry::Typed => linker.instantiate_pre(module)?.instantiate_on(stack, store).await,
            Entry::Untyped | Entry::Closure => linker.instantiate_on(stack, store, module).await,
        }
    }

    async fn call(
        stack: &mut K::Stack,
        store: &mut Self::Store,
        func: Func,
        params: &[Val],
        results: &mut [Val],
        entry: Entry,
    ) -> Result<()> {
        match entry {
            Entry::Typed => call_typed!(func.get_async(&*store), (), params, results,
                |func, args| func.call(stack, store, args).await,
                else func.call_on(stack, store, params, results).await),
            Entry::Untyped => func.call_on(stack, store, params, results).await,
            Entry::Closure => {
                let (params, mut values) = (params.to_vec(), results.to_vec());
                let call = stack.run_send(store, move |store| func.call(store, &params, &mut values).map(|()| values));
                results.clone_from_slice(&call.await?);
                Ok(())
            }
        }
    }

    async fn call_back(
        caller: &mut Caller<'_, World<K::Stack>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
    ) -> Result<()> {
        func.call(caller, params, results)
    }

    async fn call_within(
        caller: &mut Caller<'_, World<K::Stack>>,
        func: Func,
        params: &[Val],
        results: &mut [Val],
        typed: bool,
    ) -> Result<()> {
        if !typed {
            return func.call_within(caller, params, results).await;
        }
        call_typed!(func.get_async(&*caller), (), params, results,
            |func, args| func.call_within(caller, args).await,
            else func.call_within(caller, params, results).await)
    }

    async fn call_elsewhere(visit: &mut Visit<K::Stack>, pauses: u32) -> Option<i32> {
        let mut stack = visit.spare.take().unwrap_or_else(K::stack);
        let mut store = Store::from(other_store(&visit.guest, &visit.timers));
        let mut linker = Linker::<Timers>::new(store.engine());
        K::define_wait(&mut linker).expect("the name is free");
        let instance = linker.instantiate_on(&mut stack, &mut store, &visit.guest).await.ok()?;
        let run = instance.get_func(&mut store, "run").expect("is exported");
        let run = run.get_async(&store).get1::<i32, i32>().expect("has this type");
        let result = run.call(&mut stack, &mut store, (pauses.cast_signed(),)).await.ok();
        visit.spare = Some(stack);
        result
    }
}
