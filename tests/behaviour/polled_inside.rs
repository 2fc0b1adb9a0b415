//! A host function polls calls within other calls, in changing places.

use crate::common::futures::{cancel, finish, poll_once};
use crate::common::moving::elsewhere;
use crate::common::random::Random;
use crate::support::guest::{assert_usable, export, guest, runner, stack, store, waits};
use crate::support::{Code, Kind, matrix};
use std::task::Poll;
use wasmtime::{Caller, Engine, Func, Result, Trap};
use wasmtime_async::{Carries, FuncExt, Store};

matrix!(polled_inside_and_outside_other_calls, outlives_the_call_that_started_it);

/// The data of a store whose host function polls a call.
pub(crate) struct Holder<K: Kind> {
    call: Option<K::Boxed>,
    ended: Option<Result<i32>>,
    deeper: Option<Func>,
}

/// Where a call is polled.
#[derive(Clone, Copy, Debug)]
enum Place {
    Outside,
    /// In a host function of a guest that wasmtime's own functions entered.
    InPlainCall,
    /// In a host function of a guest on another stack.
    OnStack,
    /// The same, but the guest traps afterwards.
    BeforeTrap,
}

const PLACES: [Place; 4] = [Place::Outside, Place::InPlainCall, Place::OnStack, Place::BeforeTrap];

struct Outer<K: Kind> {
    stack: K::Stack,
    store: Store<Holder<K>>,
    run: Func,
    traps: Func,
}

impl<K: Kind<Stack: Carries<Holder<K>>>> Outer<K> {
    fn new(engine: &Engine) -> Result<Self> {
        let mut store = Store::new(engine, Holder::<K> { call: None, ended: None, deeper: None });
        let poll = Func::wrap(&mut store, |mut caller: Caller<'_, Holder<K>>| -> Result<()> {
            // One level deeper, so that the store has two activations.
            if let Some(deeper) = caller.data_mut().deeper.take() {
                return deeper.call(&mut caller, &[], &mut []);
            }
            let data = caller.data_mut();
            let call = data.call.as_mut().expect("there is one to poll");
            if let Poll::Ready(result) = poll_once(call) {
                data.ended = Some(result);
            }
            Ok(())
        });
        let text = r#"(module
            (import "" "" (func $poll))
            (func (export "run") (call $poll))
            (func (export "traps") (call $poll) unreachable))"#;
        let instance = guest(&mut store, text, [poll])?;
        let (run, traps) = (export(&mut store, &instance, "run"), export(&mut store, &instance, "traps"));
        Ok(Self { stack: stack::<K>(), store, run, traps })
    }

    fn poll(&mut self, place: Place) -> Option<Result<i32>> {
        elsewhere(|| self.poll_here(place))
    }

    fn poll_here(&mut self, place: Place) -> Option<Result<i32>> {
        match place {
            Place::Outside => {
                let call = self.store.data_mut().call.as_mut().expect("there is one to poll");
                if let Poll::Ready(result) = poll_once(call) {
                    return Some(result);
                }
            }
            Place::InPlainCall => {
                self.store.data_mut().deeper = Some(self.run);
                self.run.call(&mut self.store, &[], &mut []).expect("polls");
            }
            Place::OnStack => {
                finish(self.run.call_on(&mut self.stack, &mut self.store, &[], &mut [])).expect("polls");
            }
            Place::BeforeTrap => {
                let result = finish(self.traps.call_on(&mut self.stack, &mut self.store, &[], &mut []));
                assert_eq!(result.unwrap_err().downcast_ref(), Some(&Trap::UnreachableCodeReached));
            }
        }
        self.store.data_mut().ended.take()
    }
}

/// A guest that waits twice and then ends as `ending` says.
fn waits_and_ends<K: Kind>(code: Code, ending: i32) -> Result<K::Boxed> {
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, 1);
    let text = r#"(module
        (import "" "" (func $wait))
        (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
        (func (export "run") (param i32) (result i32)
            (call $wait)
            (call $wait)
            (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
            (if (i32.eq (local.get 0) (i32.const 2)) (then (return (call $recurse (i32.const 0)))))
            (i32.const 42)))"#;
    let run = runner(&mut store, text, [wait])?.get_async(&store).typed::<i32, i32>()?;
    Ok(K::boxed(stack::<K>(), store, run, ending))
}

pub(crate) fn check_end(ending: i32, result: &Result<i32>) {
    match (ending, result) {
        (0, Ok(42)) => (),
        (1, Err(error)) => assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}"),
        (2, Err(error)) => assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "{error:?}"),
        (ending, result) => panic!("{ending} ended in {result:?}"),
    }
}

/// Makes each of a call's three polls in each of the places.
fn polled_inside_and_outside_other_calls<K: Kind<Stack: Carries<Holder<K>>>>(code: Code) -> Result<()> {
    let mut outer = Outer::<K>::new(&code.engine())?;
    for first in PLACES {
        for second in PLACES {
            for third in PLACES {
                let ending = third as i32 % 3;
                outer.store.data_mut().call = Some(waits_and_ends::<K>(code, ending)?);
                assert!(outer.poll(first).is_none());
                assert!(outer.poll(second).is_none());
                let end = outer.poll(third).unwrap_or_else(|| panic!("not ended: {first:?}, {second:?}, {third:?}"));
                check_end(ending, &end);
            }
            // The same, but the call is dropped.
            outer.store.data_mut().call = Some(waits_and_ends::<K>(code, 0)?);
            assert!(outer.poll(first).is_none());
            outer.store.data_mut().call.take().into_iter().for_each(cancel);
        }
    }
    assert_usable(&mut outer.stack, &mut outer.store)
}

/// One call polls several other calls first. They continue when it has ended, all at the same time.
fn outlives_the_call_that_started_it<K: Kind<Stack: Carries<Holder<K>>>>(code: Code) -> Result<()> {
    let engine = code.engine();
    let mut random = Random::from_environment();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        for ending in 0..3 {
            let mut outer = Outer::<K>::new(&engine)?;
            outer.store.data_mut().call = Some(waits_and_ends::<K>(code, ending)?);
            assert!(outer.poll(*random.pick(&PLACES)).is_none());
            waiting.push((ending, outer.store.data_mut().call.take()));
        }
    }
    let mut outer = Outer::<K>::new(&engine)?;
    while !waiting.is_empty() {
        let chosen = random.below(waiting.len());
        let (ending, call) = &mut waiting[chosen];
        outer.store.data_mut().call = call.take();
        let end = outer.poll(*random.pick(&PLACES));
        *call = outer.store.data_mut().call.take();
        if let Some(result) = end {
            check_end(*ending, &result);
            waiting.swap_remove(chosen);
        }
    }
    Ok(())
}
