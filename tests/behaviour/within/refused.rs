//! Nested calls of host functions whose callers would be suspended although they must not be.

use super::{RUN, assert_is, call_back, end, func, program, program_of};
use crate::common::futures::{finish, pending};
use crate::support::guest::{assert_refused, assert_usable, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{Between, Error, FuncExt, Stack, suspend_until};

matrix!(within_synchronous_nested_calls, within_closures);

mod send {
    #[cfg(fiber_stack)]
    mod send_fiber_stack {
        crate::support::matrix!(@code SendFiber [super::super::super] of_functions_that_are_not_send);
    }
}

/// A host function calls the guest synchronously. The host function that this guest calls makes a nested call.
fn within_synchronous_nested_calls<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let calls_again = |caller: &mut Caller<'_, Host>, n: i32| {
        let again = func(caller, "again");
        again.as_typed().call(caller, n)
    };
    let functions = [
        Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
            Box::new(async move {
                if caller.data().id == 0 {
                    caller.data_mut().id = 1;
                    pending(1).await;
                    return calls_again(&mut caller, n);
                }
                call_back(&mut caller, "inner", n).await
            })
        }),
        Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
            if caller.data().id == 0 {
                caller.data_mut().id = 1;
                // Before there is a future.
                let result = calls_again(&mut caller, n);
                return Box::new(async move { result });
            }
            Box::new(async move { call_back(&mut caller, "inner", n).await })
        }),
    ];
    for function in functions {
        let run = program_of(&mut store, function)?;
        for n in 0..3 {
            store.data_mut().id = 0;
            let result = end(&mut run.call(&mut stack, &mut store, n)).1;
            if K::IN_PLACE {
                assert_eq!(result?, 10 * n + 1 + 1 + RUN);
            } else {
                assert_refused(result, Between::NestedCall);
            }
            assert_usable(&mut stack, &mut store)?;
        }
    }
    Ok(())
}

/// The closure of `run` calls the guest, or makes a nested call itself.
fn within_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run =
        program(&mut store, |mut caller, (n,)| Box::new(async move { call_back(&mut caller, "inner", n).await }))?;
    for n in 0..3 {
        let typed = run.as_typed().clone();
        let result = finish(stack.run_send(&mut store, move |store| typed.call(store, n)));
        if K::ANYTHING {
            assert_eq!(result?, 10 * n + 1 + RUN);
        } else {
            assert_refused(result, Between::Closure);
        }
        let run = run.clone();
        let result =
            finish(stack.run_send(&mut store, move |mut store| suspend_until(run.call_within(&mut store, n))?));
        match (K::IN_PLACE, K::ANYTHING) {
            (true, _) => assert_eq!(result?, 10 * n + 1 + RUN),
            // There is no host function that a guest has called.
            (false, true) => assert_refused(result, Between::NestedCall),
            (false, false) => assert_refused(result, Between::Closure),
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// On a `SendFiberStack` a host function must have been registered as `Send` to make nested calls.
#[cfg(fiber_stack)]
fn of_functions_that_are_not_send<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let back = Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        let _local = caller.data().log.on_drop("left host function");
        call_back(&mut caller, if n == 0 { "nothing" } else { "inner" }, n).await
    });
    let run = program_of(&mut store, back)?;
    for n in 0..3 {
        // This holds even if the nested guest does not wait.
        let result = end(&mut run.call(&mut stack, &mut store, n)).1;
        assert_is(result, |error| matches!(error, Error::NotSend));
        assert_eq!(log.take(), ["left host function"]);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
