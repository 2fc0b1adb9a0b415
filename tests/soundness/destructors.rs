//! Destructors that wait, wherever they run.

use crate::{Checked, Ways, assert_usable, checked, finish, pending, poll_once, refused, run, stack};
use std::future::pending as never;
use std::sync::mpsc::{Receiver, Sender, channel};
use wasmtime::{Caller, Engine, ExternRef, Func, Result, RootScope};
use wasmtime_async::{Between, Carries, Error, FuncExt, Store, suspend_until};

checked!(
    of_the_data_of_a_store_that_goes_in_a_call,
    of_what_was_in_the_data_of_the_store_itself,
    of_what_references_refer_to,
    of_what_a_host_function_holds,
    of_what_a_cancelled_host_function_holds,
);

/// Waits when it is dropped, and reports the result.
struct Waits(Sender<Result<(), Error>>);

impl Waits {
    fn new() -> (Self, Receiver<Result<(), Error>>) {
        let (tell, outcomes) = channel();
        (Self(tell), outcomes)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // If the test has failed, nothing receives this.
        let _ = self.0.send(suspend_until(pending(1)));
    }
}

/// The result of the only drop so far.
fn only(outcomes: &Receiver<Result<(), Error>>) -> Result<(), Error> {
    let outcome = outcomes.try_recv().expect("was dropped");
    assert!(outcomes.try_recv().is_err(), "was dropped once");
    outcome
}

fn of_the_data_of_a_store_that_goes_in_a_call<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let (tell, outcomes) = channel();
    let host = Func::wrap(&mut store, move |caller: Caller<'_, ()>| {
        drop(Store::new(caller.engine(), Waits(tell.clone())));
    });
    run(&mut stack::<S>(), &mut store, host)?;
    assert_eq!(refused(only(&outcomes)), Between::HostCode);

    // The same outside of any call.
    let (waits, outcomes) = Waits::new();
    drop(Store::new(store.engine(), waits));
    assert!(matches!(only(&outcomes), Err(Error::NotOnStack)));
    Ok(())
}

fn of_what_was_in_the_data_of_the_store_itself<S: Checked + Carries<Option<Waits>>>() -> Result<()> {
    let (waits, outcomes) = Waits::new();
    let mut store = Store::new(&Engine::default(), Some(waits));
    let host = Func::wrap(&mut store, |mut caller: Caller<'_, Option<Waits>>| *caller.data_mut() = None);
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_eq!(refused(only(&outcomes)), Between::HostCode);
    assert_usable(&mut stack, &mut store)
}

fn of_what_references_refer_to<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let (waits, outcomes) = Waits::new();
    ExternRef::new(RootScope::new(&mut store), waits)?;
    let host = Func::wrap(&mut store, |mut caller: Caller<'_, ()>| caller.gc(None));
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_eq!(refused(only(&outcomes)), Between::HostCode);

    let (waits, outcomes) = Waits::new();
    let mut call = stack.run_send(&mut store, move |mut store| {
        ExternRef::new(RootScope::new(&mut store), waits)?;
        store.gc(None)
    });
    assert!(poll_once(&mut call).is_ready());
    drop(call);
    assert_eq!(refused(only(&outcomes)), Between::Closure);
    assert_usable(&mut stack, &mut store)
}

fn of_what_a_host_function_holds<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let (tell, outcomes) = channel();
    let host = Func::wrap_suspending_send(&mut store, move || {
        let waits = Waits(tell.clone());
        async move {
            let _held = waits;
            pending(1).await;
        }
    });
    let run = crate::calls(&mut store, host)?;
    let mut stack = stack::<S>();
    assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, 42);
    assert_eq!(refused(only(&outcomes)), Between::HostCode);
    assert_usable(&mut stack, &mut store)
}

fn of_what_a_cancelled_host_function_holds<S: Checked>() -> Result<()> {
    /// Calls the guest again, too.
    struct CallsAgain<'a>(Caller<'a, ()>, Ways, #[expect(dead_code, reason = "is dropped")] Waits);
    impl Drop for CallsAgain<'_> {
        fn drop(&mut self) {
            let error = self.1.again.call(&mut self.0, &[], &mut []).expect_err("it cannot wait");
            assert!(matches!(error.downcast_ref(), Some(Error::Cancelled)), "{error:?}");
        }
    }

    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let (tell, outcomes) = channel();
    let host = Func::wrap_suspending_boxed(&mut store, move |caller: Caller<'_, ()>, (): ()| {
        let held = CallsAgain(caller, ways.clone(), Waits(tell.clone()));
        Box::new(async move {
            let _held = held;
            never::<()>().await;
        })
    });
    let mut stack = stack::<S>();
    for _ in 0..2 {
        let mut call = host.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        drop(call);
        assert!(matches!(only(&outcomes), Err(Error::Cancelled)));
    }
    assert_usable(&mut stack, &mut store)
}
