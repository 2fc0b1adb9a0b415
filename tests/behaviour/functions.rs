//! Async host functions of every signature, and calls with every type.

use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{assert_usable, guest, runner, stack, store};
use crate::support::{AnyStack, Code, Host, matrix};
use std::cell::Cell;
use std::fmt::Write;
use std::future::{Future, Ready, ready};
use std::sync::{Arc, Mutex};
use wasmtime::{
    AnyRef, ArrayRef, ArrayRefPre, ArrayType, Caller, EqRef, Error, ExternRef, FieldType, Func, FuncType, HeapType,
    I31, Mutability, RefType, Result, Rooted, StorageType, Store, StructRef, V128, Val, ValType,
};
use wasmtime_async::FuncExt;

matrix!(
    every_arity,
    sixteen_parameters,
    numbers,
    vectors,
    functions,
    external_references,
    garbage_collected_references,
    returns,
    what_can_be_a_host_function,
    untyped,
    state_of_closures,
    futures_borrow,
);

/// A guest that passes on what it gets, and gives back what it gets back.
fn passes_on(params: &str, results: &str) -> String {
    let mut gets = String::new();
    for n in 0..params.split_terminator(';').count() {
        write!(gets, "(local.get {n})").expect("strings take all");
    }
    let params = params.replace(';', " ");
    format!(
        r#"(module
            (import "" "" (func $host (param {params}) (result {results})))
            (func (export "run") (param {params}) (result {results}) (call $host {gets})))"#
    )
}

/// A sum that is another one in another order.
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
        fn every_arity<S: AnyStack>(code: Code) -> Result<()> {
            let mut stack = stack::<S>();
            $({
                let mut store = store(code);
                store.data_mut().id = 1000;
                let functions = [
                    Func::$wrap(&mut store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                        pending(1).await;
                        caller.data().id + weigh(&[$($arg),*])
                    }),
                    Func::wrap_suspending(&mut store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                        pending(1).await;
                        caller.data().id + weigh(&[$($arg),*])
                    }),
                    Func::wrap_suspending(&mut store, async |$($arg: i32),*| {
                        pending(1).await;
                        1000 + weigh(&[$($arg),*])
                    }),
                    <Func as FuncExt>::wrap_async(&mut store, async |$($arg: i32),*| 1000 + weigh(&[$($arg),*])),
                    <Func as FuncExt>::wrap_async(&mut store, async |caller: Caller<'_, Host>, $($arg: i32),*| {
                        caller.data().id + weigh(&[$($arg),*])
                    }),
                ];
                let next = Counter::default();
                let params = ($(next.next(stringify!($arg)),)*);
                let values: &[i32] = &(1..=next.0.get()).collect::<Vec<_>>();
                let text = passes_on(&"i32;".repeat(values.len()), "i32");
                for function in functions {
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

/// As many as wasmtime's tuples go.
fn sixteen_parameters<S: AnyStack>(code: Code) -> Result<()> {
    type Params = (i32, i64, i32, i64, i32, i64, i32, i64, i32, i64, i32, i64, i32, i64, i32, i64);
    let mut stack = stack::<S>();
    let mut store = store(code);
    let wait = Func::wrap_suspending(&mut store, async || pending(1).await);
    let text = r#"(module
        (import "" "" (func $wait))
        (func (export "run")
            (param i32 i64 i32 i64 i32 i64 i32 i64 i32 i64 i32 i64 i32 i64 i32 i64) (result i64 i32)
            (call $wait) (local.get 15) (local.get 14)))"#;
    let run = runner(&mut store, text, [wait])?.get_async(&store).typed::<Params, (i64, i32)>()?;
    let params = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
    assert_eq!(finish(run.call(&mut stack, &mut store, params))?, (16, 15));
    Ok(())
}

fn numbers<S: AnyStack>(code: Code) -> Result<()> {
    type Results = (u64, u32, f64, f32, i64, i32);
    let mut stack = stack::<S>();
    let mut store = store(code);
    let host = Func::wrap_suspending(&mut store, async |a: i32, b: i64, c: f32, d: f64, e: u32, f: u64| -> Results {
        pending(1).await;
        (f, e, d, c, b, a)
    });
    let text = passes_on("i32;i64;f32;f64;i32;i64", "i64 i32 f64 f32 i64 i32");
    let run = runner(&mut store, &text, [host])?;
    let run = run.get_async(&store).get6::<i32, i64, f32, f64, u32, u64, Results>()?;
    let cases = [
        (i32::MIN, i64::MIN, f32::MIN, f64::MIN, u32::MAX, u64::MAX),
        (i32::MAX, i64::MAX, f32::INFINITY, f64::NEG_INFINITY, 1 << 31, 1 << 63),
        (-1, -1, -0.0, -0.0, 0, 0),
        (0x1234_5678, 0x1234_5678_9abc_def0, f32::MIN_POSITIVE, f64::EPSILON, 0x9abc_def0, 0xfedc_ba98_7654_3210),
    ];
    for params in cases {
        let results = finish(run.call(&mut stack, &mut store, params))?;
        assert_eq!((results.0, results.1, results.4, results.5), (params.5, params.4, params.1, params.0));
        assert_eq!((results.2.to_bits(), results.3.to_bits()), (params.3.to_bits(), params.2.to_bits()));
    }
    Ok(())
}

fn vectors<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let host = Func::wrap_suspending(&mut store, async |a: V128, b: V128| -> (V128, V128) {
        pending(1).await;
        (b, a)
    });
    let run = runner(&mut store, &passes_on("v128;v128", "v128 v128"), [host])?;
    let typed = run.get_async(&store).get2::<V128, V128, (V128, V128)>()?;
    let (a, b) = (V128::from(0x0123_4567_89ab_cdef_0011_2233_4455_6677), V128::from(u128::MAX - 1));
    assert_eq!(finish(typed.call(&mut stack, &mut store, (a, b)))?, (b, a));
    let mut results = [Val::I32(0), Val::I32(0)];
    finish(run.call_on(&mut stack, &mut store, &[a.into(), b.into()], &mut results))?;
    assert_eq!((results[0].unwrap_v128(), results[1].unwrap_v128()), (b, a));
    Ok(())
}

fn functions<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let answer = Func::wrap_suspending(&mut store, async || {
        pending(1).await;
        42
    });
    let host = Func::wrap_suspending(&mut store, async |a: Option<Func>, b: Func| -> (Func, Option<Func>) {
        pending(1).await;
        (b, a)
    });
    let text = passes_on("funcref;(ref func)", "(ref func) funcref");
    let run = runner(&mut store, &text, [host])?;
    let run = run.get_async(&store).get2::<Option<Func>, Func, (Func, Option<Func>)>()?;
    for other in [None, Some(answer)] {
        let (back, other_back) = finish(run.call(&mut stack, &mut store, (other, answer)))?;
        assert_eq!(other_back.is_some(), other.is_some());
        for func in [Some(back), other_back].into_iter().flatten() {
            let func = func.get_async(&store).get0::<i32>()?;
            assert_eq!(finish(func.call(&mut stack, &mut store, ()))?, 42);
        }
    }
    Ok(())
}

fn external_references<S: AnyStack>(code: Code) -> Result<()> {
    type Maybe = Option<Rooted<ExternRef>>;
    let mut stack = stack::<S>();
    let mut store = store(code);
    let host = Func::wrap_suspending(&mut store, async |caller: Caller<'_, Host>, a: Maybe, b: Rooted<ExternRef>| {
        pending(2).await;
        let data = b.data(&caller)?.and_then(|data| data.downcast_ref::<String>());
        assert_eq!(data.map(String::as_str), Some("external"));
        Ok::<_, Error>((b, a))
    });
    let text = passes_on("externref;(ref extern)", "(ref extern) externref");
    let run = runner(&mut store, &text, [host])?;
    let run = run.get_async(&store).get2::<Maybe, Rooted<ExternRef>, (Rooted<ExternRef>, Maybe)>()?;
    for other in [None, Some(7_u64)] {
        let external = ExternRef::new(&mut store, String::from("external"))?;
        let number = other.map(|number| ExternRef::new(&mut store, number)).transpose()?;
        let (back, other_back) = finish(run.call(&mut stack, &mut store, (number, external)))?;
        assert!(Rooted::ref_eq(&store, &back, &external)?);
        let other_back = match &other_back {
            None => None,
            Some(back) => back.data(&store)?.and_then(|data| data.downcast_ref::<u64>()).copied(),
        };
        assert_eq!(other_back, other);
    }
    Ok(())
}

fn with_collector(code: Code) -> Result<Store<Host>> {
    let engine = wasmtime::Engine::new(code.config().wasm_function_references(true).wasm_gc(true))?;
    Ok(Store::new(&engine, Host::default()))
}

fn garbage_collected_references<S: AnyStack>(code: Code) -> Result<()> {
    type Any = Option<Rooted<AnyRef>>;
    let mut stack = stack::<S>();
    let mut store = with_collector(code)?;

    let host =
        Func::wrap_suspending(&mut store, async |a: Any, b: Rooted<AnyRef>, c: I31| -> (I31, Rooted<AnyRef>, Any) {
            pending(1).await;
            (c, b, a)
        });
    let text = passes_on("anyref;(ref any);(ref i31)", "(ref i31) (ref any) anyref");
    let run = runner(&mut store, &text, [host])?;
    let run = run.get_async(&store).get3::<Any, Rooted<AnyRef>, I31, (I31, Rooted<AnyRef>, Any)>()?;
    let any = AnyRef::from_i31(&mut store, I31::wrapping_u32(5));
    for other in [None, Some(any)] {
        let params = (other, any, I31::wrapping_i32(-3));
        let (number, back, other_back) = finish(run.call(&mut stack, &mut store, params))?;
        assert_eq!(number.get_i32(), -3);
        assert_eq!(back.unwrap_i31(&store)?.get_u32(), 5);
        assert_eq!(other_back.is_some(), other.is_some());
    }

    let (structs, arrays) = ("structref", "arrayref");
    let host = Func::wrap_suspending(
        &mut store,
        async |a: Option<Rooted<StructRef>>, b: Option<Rooted<ArrayRef>>, c: Option<Rooted<EqRef>>| {
            pending(1).await;
            (c, b, a)
        },
    );
    let text = passes_on(&format!("{structs};{arrays};eqref"), &format!("eqref {arrays} {structs}"));
    let run = runner(&mut store, &text, [host])?;
    let ty = ArrayType::new(store.engine(), FieldType::new(Mutability::Const, StorageType::ValType(ValType::I32)));
    let array = ArrayRefPre::new(&mut store, ty);
    let array = ArrayRef::new(&mut store, &array, &Val::I32(9), 3)?;
    let params = [Val::AnyRef(None), Val::from(array), Val::from(array.to_anyref())];
    let mut results = [Val::I32(0), Val::I32(0), Val::I32(0)];
    finish(run.call_on(&mut stack, &mut store, &params, &mut results))?;
    let back = results[1].unwrap_anyref().expect("is not null").unwrap_array(&store)?;
    assert_eq!(back.len(&store)?, 3);
    assert_eq!(back.get(&mut store, 2)?.unwrap_i32(), 9);
    assert!(results[2].unwrap_anyref().is_none());
    Ok(())
}

fn returns<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);

    macro_rules! check {
        ($function:expr, $text:literal, $ty:ty, $expected:expr) => {
            let function = Func::wrap_suspending(&mut store, $function);
            let run = runner(&mut store, &passes_on("i32", $text), [function])?.get_async(&store).get1::<i32, $ty>()?;
            match (finish(run.call(&mut stack, &mut store, (1,))), $expected) {
                (Ok(result), Ok::<$ty, ()>(expected)) => assert_eq!(result, expected),
                (Err(error), Err(())) => assert_eq!(error.root_cause().to_string(), "does not return"),
                (result, expected) => panic!("{result:?} for {expected:?}"),
            }
        };
    }
    let fails = || Error::msg("does not return");
    check!(async |_: i32| pending(1).await, "", (), Ok(()));
    check!(async |n: i32| n + 1, "i32", i32, Ok(2));
    check!(async |n: i32| (n,), "i32", i32, Ok(1));
    check!(async |n: i32| (n, i64::from(n) << 40), "i32 i64", (i32, i64), Ok((1, 1 << 40)));
    check!(async |n: i32| (n, n, n, n, 0.5), "i32 i32 i32 i32 f64", (i32, i32, i32, i32, f64), Ok((1, 1, 1, 1, 0.5)));
    check!(async |_: i32| Ok::<(), Error>(()), "", (), Ok(()));
    check!(async |n: i32| Ok::<i64, Error>(n.into()), "i64", i64, Ok(1));
    check!(async |n: i32| Ok::<_, Error>((n, n + 1)), "i32 i32", (i32, i32), Ok((1, 2)));
    check!(async move |_: i32| Err::<(), _>(fails()), "", (), Err(()));
    check!(async move |_: i32| Err::<i32, _>(fails()), "i32", i32, Err(()));
    check!(async move |_: i32| Err::<(i32, i64), _>(fails()), "i32 i64", (i32, i64), Err(()));
    assert_usable(&mut stack, &mut store)
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

fn returns_a_future(n: i32) -> impl Future<Output = i32> {
    let twice = n * 2;
    async move {
        pending(1).await;
        twice
    }
}

fn what_can_be_a_host_function<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    store.data_mut().id = 21;
    let functions = [
        Func::wrap_suspending(&mut store, doubles),
        Func::wrap_suspending(&mut store, adds_id),
        Func::wrap_suspending(&mut store, is_ready),
        Func::wrap_suspending(&mut store, returns_a_future),
        Func::wrap_suspending(&mut store, |n: i32| async move { n * 2 }),
        Func::wrap_suspending(&mut store, |n: i32| Box::pin(doubles(n))),
        Func::wrap_async1(&mut store, adds_id),
        // Futures need not be `Send`.
        Func::wrap_suspending(&mut store, async |n: i32| {
            let cell = std::rc::Rc::new(Cell::new(n));
            pending(1).await;
            cell.get() * 2
        }),
    ];
    for function in functions {
        let run = runner(&mut store, &passes_on("i32", "i32"), [function])?.get_async(&store).get1::<i32, i32>()?;
        assert_eq!(finish(run.call(&mut stack, &mut store, (21,)))?, 42);
        // Without a guest in between.
        let run = function.get_async(&store).get1::<i32, i32>()?;
        assert_eq!(finish(run.call(&mut stack, &mut store, (21,)))?, 42);
    }
    Ok(())
}

fn untyped<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    store.data_mut().id = 5;
    let externref = ValType::Ref(RefType::new(true, HeapType::Extern));
    let types = [ValType::I32, ValType::I64, ValType::F32, ValType::F64, ValType::V128, ValType::FUNCREF, externref];
    let ty = FuncType::new(store.engine(), types.clone(), types.iter().rev().cloned());
    let functions = [
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
    ];
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

/// A closure keeps what it captured, and can be in use several times at once, in one call.
fn state_of_closures<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&seen);
    let host = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        inner.lock().expect("is not poisoned").push(n);
        pending(1).await;
        if n == 0 {
            return Ok(0);
        }
        let run = caller.get_export("run").and_then(wasmtime::Extern::into_func).expect("is exported");
        let below = run.typed::<i32, i32>(&caller)?.call(&mut caller, n - 1)?;
        inner.lock().expect("is not poisoned").push(-n);
        Ok(below + n)
    });
    let instance = guest(&mut store, &passes_on("i32", "i32"), [host])?;
    let run = crate::support::guest::export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (4,)))?, 10);
    assert_eq!(*seen.lock().expect("is not poisoned"), [4, 3, 2, 1, 0, -1, -2, -3, -4]);
    drop((store, stack));
    assert_eq!(Arc::strong_count(&seen), 1, "the closure goes with its store");
    Ok(())
}

/// The futures of async closures may hold on to the `Caller`, to parameters, and to locals by reference.
fn futures_borrow<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let greeting = String::from("hello");
    let host = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>, n: i32| {
        let (greeting, n) = (&greeting, &n);
        let data = caller.data_mut();
        for _ in 0..3 {
            pending(1).await;
            data.id += n;
            data.log.add(greeting.as_str());
        }
        data.id
    });
    let run = runner(&mut store, &passes_on("i32", "i32"), [host])?.get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 15);
    assert_eq!(store.data().log.take(), ["hello"; 3]);
    Ok(())
}
