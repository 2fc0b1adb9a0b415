//! Parameters and results of every type, through async host functions and calls.

use crate::common::futures::{finish, pending};
use crate::support::guest::{assert_usable, passes_on, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::{
    AnyRef, ArrayRef, ArrayRefPre, ArrayType, Caller, EqRef, Error, ExternRef, FieldType, Func, I31, Mutability,
    Result, Rooted, StorageType, StructRef, V128, Val, ValType,
};
use wasmtime_async::{FuncExt, Store};

matrix!(
    sixteen_parameters,
    numbers,
    vectors,
    functions,
    external_references,
    garbage_collected_references,
    structures_and_arrays,
    returns,
);

/// A host function that is pending once, registered in every way that works with this kind of stack.
macro_rules! each_way {
    ($kind:ident, $store:ident, |$($arg:ident: $ty:ty),+| -> $result:ty { $body:expr }) => {{
        let mut functions = vec![
            Func::wrap_suspending_send(&mut $store, |$($arg: $ty),+| async move {
                pending(1).await;
                let result: $result = $body;
                result
            }),
            Func::wrap_suspending_boxed(&mut $store, |_: Caller<'_, Host>, ($($arg,)+): ($($ty,)+)| {
                Box::new(async move {
                    pending(1).await;
                    let result: $result = $body;
                    result
                })
            }),
        ];
        if !$kind::MOVES {
            functions.push(Func::wrap_suspending(&mut $store, async |$($arg: $ty),+| -> $result {
                pending(1).await;
                $body
            }));
        }
        functions
    }};
}

/// As many parameters as wasmtime's tuples allow.
fn sixteen_parameters<K: Kind>(code: Code) -> Result<()> {
    type Params = (i32, i64, i32, i64, i32, i64, i32, i64, i32, i64, i32, i64, i32, i64, i32, i64);
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, 1);
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

fn numbers<K: Kind>(code: Code) -> Result<()> {
    type Results = (u64, u32, f64, f32, i64, i32);
    let mut stack = stack::<K>();
    let mut store = store(code);
    let hosts = each_way!(K, store, |a: i32, b: i64, c: f32, d: f64, e: u32, f: u64| -> Results { (f, e, d, c, b, a) });
    let text = passes_on("i32;i64;f32;f64;i32;i64", "i64 i32 f64 f32 i64 i32");
    let cases = [
        (i32::MIN, i64::MIN, f32::MIN, f64::MIN, u32::MAX, u64::MAX),
        (i32::MAX, i64::MAX, f32::INFINITY, f64::NEG_INFINITY, 1 << 31, 1 << 63),
        (-1, -1, -0.0, -0.0, 0, 0),
        (0x1234_5678, 0x1234_5678_9abc_def0, f32::MIN_POSITIVE, f64::EPSILON, 0x9abc_def0, 0xfedc_ba98_7654_3210),
    ];
    for host in hosts {
        let run = runner(&mut store, &text, [host])?;
        let run = run.get_async(&store).get6::<i32, i64, f32, f64, u32, u64, Results>()?;
        for params in cases {
            let results = finish(run.call(&mut stack, &mut store, params))?;
            assert_eq!((results.0, results.1, results.4, results.5), (params.5, params.4, params.1, params.0));
            assert_eq!((results.2.to_bits(), results.3.to_bits()), (params.3.to_bits(), params.2.to_bits()));
        }
    }
    Ok(())
}

fn vectors<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for host in each_way!(K, store, |a: V128, b: V128| -> (V128, V128) { (b, a) }) {
        let run = runner(&mut store, &passes_on("v128;v128", "v128 v128"), [host])?;
        let typed = run.get_async(&store).get2::<V128, V128, (V128, V128)>()?;
        let (a, b) = (V128::from(0x0123_4567_89ab_cdef_0011_2233_4455_6677), V128::from(u128::MAX - 1));
        assert_eq!(finish(typed.call(&mut stack, &mut store, (a, b)))?, (b, a));
        let mut results = [Val::I32(0), Val::I32(0)];
        finish(run.call_on(&mut stack, &mut store, &[a.into(), b.into()], &mut results))?;
        assert_eq!((results[0].unwrap_v128(), results[1].unwrap_v128()), (b, a));
    }
    Ok(())
}

fn functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let answer = Func::wrap_suspending_send(&mut store, || async {
        pending(1).await;
        42
    });
    let text = passes_on("funcref;(ref func)", "(ref func) funcref");
    for host in each_way!(K, store, |a: Option<Func>, b: Func| -> (Func, Option<Func>) { (b, a) }) {
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
    }
    Ok(())
}

fn external_references<K: Kind>(code: Code) -> Result<()> {
    type Maybe = Option<Rooted<ExternRef>>;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut hosts = vec![Func::wrap_suspending_boxed(
        &mut store,
        |caller: Caller<'_, Host>, (a, b): (Maybe, Rooted<ExternRef>)| {
            Box::new(async move {
                pending(2).await;
                let data = b.data(&caller)?.and_then(|data| data.downcast_ref::<String>());
                assert_eq!(data.map(String::as_str), Some("external"));
                Ok::<_, Error>((b, a))
            })
        },
    )];
    if !K::MOVES {
        hosts.push(Func::wrap_suspending(
            &mut store,
            async |caller: Caller<'_, Host>, a: Maybe, b: Rooted<ExternRef>| {
                pending(2).await;
                let data = b.data(&caller)?.and_then(|data| data.downcast_ref::<String>());
                assert_eq!(data.map(String::as_str), Some("external"));
                Ok::<_, Error>((b, a))
            },
        ));
    }
    let text = passes_on("externref;(ref extern)", "(ref extern) externref");
    for host in hosts {
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
    }
    Ok(())
}

fn with_collector(code: Code) -> Result<Store<Host>> {
    let engine = wasmtime::Engine::new(code.config().wasm_function_references(true).wasm_gc(true))?;
    Ok(Store::new(&engine, Host::default()))
}

fn garbage_collected_references<K: Kind>(code: Code) -> Result<()> {
    type Any = Option<Rooted<AnyRef>>;
    let mut stack = stack::<K>();
    let mut store = with_collector(code)?;

    let any = AnyRef::from_i31(&mut store, I31::wrapping_u32(5));
    let text = passes_on("anyref;(ref any);(ref i31)", "(ref i31) (ref any) anyref");
    for host in each_way!(K, store, |a: Any, b: Rooted<AnyRef>, c: I31| -> (I31, Rooted<AnyRef>, Any) { (c, b, a) }) {
        let run = runner(&mut store, &text, [host])?;
        let run = run.get_async(&store).get3::<Any, Rooted<AnyRef>, I31, (I31, Rooted<AnyRef>, Any)>()?;
        for other in [None, Some(any)] {
            let params = (other, any, I31::wrapping_i32(-3));
            let (number, back, other_back) = finish(run.call(&mut stack, &mut store, params))?;
            assert_eq!(number.get_i32(), -3);
            assert_eq!(back.unwrap_i31(&store)?.get_u32(), 5);
            assert_eq!(other_back.is_some(), other.is_some());
        }
    }
    Ok(())
}

fn structures_and_arrays<K: Kind>(code: Code) -> Result<()> {
    type Struct = Option<Rooted<StructRef>>;
    type Array = Option<Rooted<ArrayRef>>;
    type Eq = Option<Rooted<EqRef>>;
    let mut stack = stack::<K>();
    let mut store = with_collector(code)?;
    let ty = ArrayType::new(store.engine(), FieldType::new(Mutability::Const, StorageType::ValType(ValType::I32)));
    let array = ArrayRefPre::new(&mut store, ty);
    let array = ArrayRef::new(&mut store, &array, &Val::I32(9), 3)?;
    let text = passes_on("structref;arrayref;eqref", "eqref arrayref structref");
    for host in each_way!(K, store, |a: Struct, b: Array, c: Eq| -> (Eq, Array, Struct) { (c, b, a) }) {
        let run = runner(&mut store, &text, [host])?;
        let params = [Val::AnyRef(None), Val::from(array), Val::from(array.to_anyref())];
        let mut results = [Val::I32(0), Val::I32(0), Val::I32(0)];
        finish(run.call_on(&mut stack, &mut store, &params, &mut results))?;
        let back = results[1].unwrap_anyref().expect("is not null").unwrap_array(&store)?;
        assert_eq!(back.len(&store)?, 3);
        assert_eq!(back.get(&mut store, 2)?.unwrap_i32(), 9);
        assert!(results[2].unwrap_anyref().is_none());
    }
    Ok(())
}

fn returns<K: Kind>(code: Code) -> Result<()> {
    type Five = (i32, i32, i32, i32, f64);
    let mut stack = stack::<K>();
    let mut store = store(code);

    macro_rules! check {
        ($text:literal, $ty:ty, $returned:ty, |$n:ident| $body:expr, $expected:expr) => {
            for function in each_way!(K, store, |$n: i32| -> $returned { $body }) {
                let run = runner(&mut store, &passes_on("i32", $text), [function])?;
                let run = run.get_async(&store).get1::<i32, $ty>()?;
                match (finish(run.call(&mut stack, &mut store, (1,))), $expected) {
                    (Ok(result), Ok::<$ty, ()>(expected)) => assert_eq!(result, expected),
                    (Err(error), Err(())) => assert_eq!(error.root_cause().to_string(), "does not return"),
                    (result, expected) => panic!("{result:?} for {expected:?}"),
                }
            }
        };
    }
    check!("", (), (), |_n| (), Ok(()));
    check!("i32", i32, i32, |n| n + 1, Ok(2));
    check!("i32", i32, (i32,), |n| (n,), Ok(1));
    check!("i32 i64", (i32, i64), (i32, i64), |n| (n, i64::from(n) << 40), Ok((1, 1 << 40)));
    check!("i32 i32 i32 i32 f64", Five, Five, |n| (n, n, n, n, 0.5), Ok((1, 1, 1, 1, 0.5)));
    check!("", (), Result<()>, |_n| Ok(()), Ok(()));
    check!("i64", i64, Result<i64>, |n| Ok(n.into()), Ok(1));
    check!("i32 i32", (i32, i32), Result<(i32, i32)>, |n| Ok((n, n + 1)), Ok((1, 2)));
    check!("", (), Result<()>, |_n| Err(Error::msg("does not return")), Err(()));
    check!("i32", i32, Result<i32>, |_n| Err(Error::msg("does not return")), Err(()));
    check!("i32 i64", (i32, i64), Result<(i32, i64)>, |_n| Err(Error::msg("does not return")), Err(()));
    assert_usable(&mut stack, &mut store)
}
