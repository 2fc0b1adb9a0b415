//! Async host functions of every signature, and calls with every type.

use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{export, export_of, guest, passes_on, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use std::cell::Cell;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use wasmtime::{Caller, ExternRef, Func, FuncType, HeapType, RefType, Result, V128, Val, ValType};
use wasmtime_async::{FuncExt, Store};

matrix!(every_arity, what_can_be_a_host_function, untyped, state_of_closures, futures_borrow);
matrix!(anything: closures_in_use_several_times_at_once);

/// A sum that depends on the order of its terms.
fn weigh(values: &[i32]) -> i32 {
    values.iter().zip(1..).map(|(value, place)| value * (place * place + 1)).sum()
}

/// 1, 2, 3, …
#[derive(Default)]
struct Counter(Cell<i32>);

impl Counter {
    fn next(&self, _of: &str) -> i32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

macro_rules! i32_for {
    ($arg:ident) => {
        i32
    };
}

macro_rules! arities {
    ($($wrap:ident $get:ident $($arg:ident)*;)*) => {
        fn every_arity<K: Kind>(code: Code) -> Result<()> {
            let mut stack = stack::<K>();
            $({
                fn functions(store: &mut Store<Host>, local: bool) -> Vec<Func> {
                    let mut functions = vec![
                        Func::wrap_suspending_send(&mut *store, |$($arg: i32),*| async move {
                            pending(1).await;
                            1000 + weigh(&[$($arg),*])
                        }),
                        Func::wrap_suspending_send(&mut *store, |caller: Caller<'_, Host>, $($arg: i32),*| {
                            let id = caller.data().id;
                            async move {
                                pending(1).await;
                                id + weigh(&[$($arg),*])
                            }
                        }),
                        Func::wrap_suspending_boxed(
                            &mut *store,
                            |caller: Caller<'_, Host>, ($($arg,)*): ($(i32_for!($arg),)*)| {
                                Box::new(async move {
                                    pending(1).await;
                                    caller.data().id + weigh(&[$($arg),*])
                                })
                            },
                        ),
                        // Futures that are ready at once need not be `Send`.
                        <Func as FuncExt>::wrap_async(&mut *store, async |$($arg: i32),*| 1000 + weigh(&[$($arg),*])),
                        Func::$wrap(&mut *store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                            caller.data().id + weigh(&[$($arg),*])
                        }),
                    ];
                    if local {
                        functions.extend([
                            Func::$wrap(&mut *store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                                pending(1).await;
                                caller.data().id + weigh(&[$($arg),*])
                            }),
                            Func::wrap_suspending(&mut *store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                                pending(1).await;
                                caller.data().id + weigh(&[$($arg),*])
                            }),
                            Func::wrap_suspending(&mut *store, async |$($arg: i32),*| {
                                pending(1).await;
                                1000 + weigh(&[$($arg),*])
                            }),
                            FuncExt::wrap_async(&mut *store, async |$($arg: i32),*| 1000 + weigh(&[$($arg),*])),
                            FuncExt::wrap_async(&mut *store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                                caller.data().id + weigh(&[$($arg),*])
                            }),
                        ]);
                    }
                    functions
                }

                let mut store = store(code);
                store.data_mut().id = 1000;
                let next = Counter::default();
                let params = ($(next.next(stringify!($arg)),)*);
                let values: &[i32] = &(1..=next.0.get()).collect::<Vec<_>>();
                let text = passes_on(&"i32;".repeat(values.len()), "i32");
                for function in functions(&mut store, !K::MOVES) {
                    let run = runner(&mut store, &text, [function])?;
                    let typed = run.get_async(&store).$get::<$(i32_for!($arg),)* i32>()?;
                    for _ in 0..2 {
                        assert_eq!(finish(typed.call(&mut stack, &mut store, params))?, 1000 + weigh(values));
                    }
                    let params: Vec<_> = values.iter().copied().map(Val::I32).collect();
                    let mut results = [Val::I32(0)];
                    finish(run.call_on(&mut stack, &mut store, &params, &mut results))?;
                    assert_eq!(results[0].unwrap_i32(), 1000 + weigh(values));
                }
            })*
            Ok(())
        }
    };
}

arities! {
    wrap_async0 get0;
    wrap_async1 get1 a;
    wrap_async2 get2 a b;
    wrap_async3 get3 a b c;
    wrap_async4 get4 a b c d;
    wrap_async5 get5 a b c d e;
    wrap_async6 get6 a b c d e f;
    wrap_async7 get7 a b c d e f g;
    wrap_async8 get8 a b c d e f g h;
    wrap_async9 get9 a b c d e f g h i;
    wrap_async10 get10 a b c d e f g h i j;
    wrap_async11 get11 a b c d e f g h i j k;
    wrap_async12 get12 a b c d e f g h i j k l;
    wrap_async13 get13 a b c d e f g h i j k l m;
    wrap_async14 get14 a b c d e f g h i j k l m n;
    wrap_async15 get15 a b c d e f g h i j k l m n o;
}

async fn doubles(n: i32) -> i32 {
    pending(1).await;
    n * 2
}

async fn adds_id(caller: Caller<'_, Host>, n: i32) -> Result<i32> {
    pending(1).await;
    Ok(caller.data().id + n)
}

fn is_ready(n: i32) -> Ready<i32> {
    ready(n * 2)
}

fn returns_a_future(n: i32) -> impl Future<Output = i32> + Send {
    let twice = n * 2;
    async move {
        pending(1).await;
        twice
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of a host function")]
fn adds_id_of_all(caller: Caller<'_, Host>, n: i32) -> Pin<Box<dyn Future<Output = Result<i32>> + Send>> {
    let id = caller.data().id;
    Box::pin(async move {
        pending(1).await;
        Ok(id + n)
    })
}

fn boxed(caller: Caller<'_, Host>, (n,): (i32,)) -> Box<dyn Future<Output = Result<i32>> + Send + '_> {
    Box::new(adds_id(caller, n))
}

fn what_can_be_a_host_function<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    store.data_mut().id = 21;
    let mut functions = vec![
        Func::wrap_suspending_send(&mut store, doubles),
        Func::wrap_suspending_send(&mut store, is_ready),
        Func::wrap_suspending_send(&mut store, returns_a_future),
        Func::wrap_suspending_send(&mut store, adds_id_of_all),
        Func::wrap_suspending_send(&mut store, |n: i32| async move { n * 2 }),
        Func::wrap_suspending_send(&mut store, |n: i32| Box::pin(doubles(n))),
        Func::wrap_suspending_boxed(&mut store, boxed),
        Func::wrap_suspending(&mut store, is_ready),
        Func::wrap_suspending(&mut store, |n: i32| async move { n * 2 }),
    ];
    if !K::MOVES {
        functions.extend([
            Func::wrap_suspending(&mut store, doubles),
            Func::wrap_suspending(&mut store, adds_id),
            Func::wrap_suspending(&mut store, returns_a_future),
            Func::wrap_suspending(&mut store, |n: i32| Box::pin(doubles(n))),
            Func::wrap_async1(&mut store, adds_id),
            // Futures need not be `Send`.
            Func::wrap_suspending(&mut store, async |n: i32| {
                let cell = std::rc::Rc::new(Cell::new(n));
                pending(1).await;
                cell.get() * 2
            }),
        ]);
    }
    for function in functions {
        let run = runner(&mut store, &passes_on("i32", "i32"), [function])?.get_async(&store).get1::<i32, i32>()?;
        assert_eq!(finish(run.call(&mut stack, &mut store, (21,)))?, 42);
        // Without a guest in between.
        let run = function.get_async(&store).get1::<i32, i32>()?;
        assert_eq!(finish(run.call(&mut stack, &mut store, (21,)))?, 42);
    }
    Ok(())
}

fn untyped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    store.data_mut().id = 5;
    let externref = ValType::Ref(RefType::new(true, HeapType::Extern));
    let types = [ValType::I32, ValType::I64, ValType::F32, ValType::F64, ValType::V128, ValType::FUNCREF, externref];
    let ty = FuncType::new(store.engine(), types.clone(), types.iter().rev().cloned());
    let mut functions = vec![Func::new_suspending_boxed(&mut store, ty.clone(), |mut caller, params, results| {
        Box::new(async move {
            for (param, result) in params.iter().rev().zip(results) {
                *result = *param;
                caller.data_mut().id = 5;
                pending(1).await;
            }
            Ok(())
        })
    })];
    if !K::MOVES {
        functions.extend([
            Func::new_suspending(&mut store, ty.clone(), async |caller, params, results| {
                pending(params.len()).await;
                assert_eq!(caller.data().id, 5);
                results.clone_from_slice(params);
                results.reverse();
                Ok(())
            }),
            <Func as FuncExt>::new_async(&mut store, ty, async |mut caller, params, results| {
                for (param, result) in params.iter().rev().zip(results) {
                    *result = *param;
                    caller.data_mut().id = 5;
                    pending(1).await;
                }
                Ok(())
            }),
        ]);
    }
    let external = ExternRef::new(&mut store, 77_u8)?;
    let func = Func::wrap(&mut store, || 1);
    let params = [
        Val::I32(-1),
        Val::I64(-2),
        Val::F32(3),
        Val::F64(4),
        Val::from(V128::from(5)),
        Val::from(func),
        Val::from(external),
    ];
    let text = passes_on("i32;i64;f32;f64;v128;funcref;externref", "externref funcref v128 f64 f32 i64 i32");
    for function in functions {
        let run = runner(&mut store, &text, [function])?;
        for callee in [run, function] {
            let mut results = [Val::I32(0); 7];
            let mut call = callee.call_on(&mut stack, &mut store, &params, &mut results);
            for _ in 0..7 {
                assert!(poll_once(&mut call).is_pending());
            }
            finish(call)?;
            assert_eq!(results[6].unwrap_i32(), -1);
            assert_eq!(results[5].unwrap_i64(), -2);
            assert_eq!(results[4].unwrap_f32().to_bits(), 3);
            assert_eq!(results[3].unwrap_f64().to_bits(), 4);
            assert_eq!(results[2].unwrap_v128().as_u128(), 5);
            let func = results[1].unwrap_funcref().expect("is not null").typed::<(), i32>(&store)?;
            assert_eq!(func.call(&mut store, ())?, 1);
            let external = results[0].unwrap_externref().expect("is not null").data(&store)?;
            assert_eq!(external.and_then(|data| data.downcast_ref::<u8>()), Some(&77));
        }
    }
    Ok(())
}

/// A closure keeps its captured values from call to call, and is dropped with its store.
fn state_of_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (first, second, third) = (Arc::clone(&seen), Arc::clone(&seen), Arc::clone(&seen));
    let mut functions = vec![
        Func::wrap_suspending_send(&mut store, move |n: i32| {
            let seen = Arc::clone(&first);
            async move {
                pending(1).await;
                seen.lock().expect("is not poisoned").push(n);
                n
            }
        }),
        Func::wrap_suspending_boxed(&mut store, move |_: Caller<'_, Host>, (n,): (i32,)| {
            second.lock().expect("is not poisoned").push(n);
            Box::new(async move {
                pending(1).await;
                n
            })
        }),
    ];
    if K::MOVES {
        drop(third);
    } else {
        functions.push(Func::wrap_suspending(&mut store, async move |n: i32| {
            pending(1).await;
            third.lock().expect("is not poisoned").push(n);
            n
        }));
    }
    for function in functions {
        let run = runner(&mut store, &passes_on("i32", "i32"), [function])?.get_async(&store).get1::<i32, i32>()?;
        for n in 0..4 {
            assert_eq!(finish(run.call(&mut stack, &mut store, (n,)))?, n);
        }
        assert_eq!(std::mem::take(&mut *seen.lock().expect("is not poisoned")), [0, 1, 2, 3]);
    }
    drop((store, stack));
    assert_eq!(Arc::strong_count(&seen), 1, "the closures go with their store");
    Ok(())
}

fn closures_in_use_several_times_at_once<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&seen);
    let host = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        inner.lock().expect("is not poisoned").push(n);
        pending(1).await;
        if n == 0 {
            return Ok(0);
        }
        let run = export_of(&mut caller, "run");
        let below = run.typed::<i32, i32>(&caller)?.call(&mut caller, n - 1)?;
        inner.lock().expect("is not poisoned").push(-n);
        Ok(below + n)
    });
    let instance = guest(&mut store, &passes_on("i32", "i32"), [host])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (4,)))?, 10);
    assert_eq!(*seen.lock().expect("is not poisoned"), [4, 3, 2, 1, 0, -1, -2, -3, -4]);
    Ok(())
}

/// Futures may hold the `Caller`, parameters, and references to locals. Futures of async closures may also hold what
/// the closure captured.
fn futures_borrow<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut functions = vec![Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        Box::new(async move {
            let (greeting, n) = (&String::from("hello"), &n);
            let data = caller.data_mut();
            for _ in 0..3 {
                pending(1).await;
                data.id += n;
                data.log.add(greeting.as_str());
            }
            data.id
        })
    })];
    if !K::MOVES {
        let greeting = String::from("hello");
        let borrows = async move |mut caller: Caller<'_, Host>, n: i32| {
            let (greeting, n) = (&greeting, &n);
            let data = caller.data_mut();
            for _ in 0..3 {
                pending(1).await;
                data.id += n;
                data.log.add(greeting.as_str());
            }
            data.id
        };
        functions.push(Func::wrap_suspending(&mut store, borrows));
    }
    for host in functions {
        store.data_mut().id = 0;
        let run = runner(&mut store, &passes_on("i32", "i32"), [host])?.get_async(&store).get1::<i32, i32>()?;
        assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 15);
        assert_eq!(store.data().log.take(), ["hello"; 3]);
    }
    Ok(())
}
