#![allow(missing_docs)]
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::*;
use std::time::Instant;
use wasmtime::*;
use wasmtime_async::{DEFAULT_SIZE, DefaultStack, FiberStack, FuncExt, LinkerExt, Stack};
fn run<F: Future>(f: F) -> F::Output {
    let mut f = pin!(f);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(r) = f.as_mut().poll(&mut cx) {
            return r;
        }
    }
}
fn once() -> impl Future<Output = ()> {
    let mut d = false;
    poll_fn(move |_| {
        if d {
            Poll::Ready(())
        } else {
            d = true;
            Poll::Pending
        }
    })
}
const W: &str = r#"(module (import "" "ready" (func $r)) (import "" "pend" (func $p))
 (func (export "nop"))
 (func (export "ready") (local $i i32) (local.set $i (i32.const 1000)) (loop (call $r) (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))))
 (func (export "pend") (local $i i32) (local.set $i (i32.const 1000)) (loop (call $p) (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))))"#;
fn time(name: &str, per: u32, mut f: impl FnMut()) -> f64 {
    let mut v = vec![];
    for _ in 0..15 {
        let n = 200_000 / per / if per > 1 { 1 } else { 2 };
        let t = Instant::now();
        for _ in 0..n {
            f()
        }
        v.push(t.elapsed().as_nanos() as f64 / f64::from(n * per));
    }
    v.sort_by(f64::total_cmp);
    println!("{name} {:.1}", v[7]);
    v[7]
}
fn main() {
    let engine = Engine::default();
    let module = Module::new(&engine, W).unwrap();
    println!("{:?}", FiberStack::parking());
    let mut nl = Linker::<()>::new(&engine);
    nl.func_wrap_async("", "ready", |_, (): ()| Box::new(async {})).unwrap();
    nl.func_wrap_async("", "pend", |_, (): ()| Box::new(once())).unwrap();
    let mut ns = Store::new(&engine, ());
    let ni = run(nl.instantiate_async(&mut ns, &module)).unwrap();
    let mut ol = Linker::<()>::new(&engine);
    ol.func_wrap_suspending("", "ready", async || {}).unwrap();
    ol.func_wrap_suspending("", "pend", || once()).unwrap();
    let mut os = Store::new(&engine, ());
    let mut stack = DefaultStack::new(DEFAULT_SIZE).unwrap();
    let oi = run(ol.instantiate_on(&mut stack, &mut os, &module)).unwrap();
    for (n, per) in [("nop", 1), ("ready", 1000), ("pend", 1000)] {
        let nf = ni.get_typed_func::<(), ()>(&mut ns, n).unwrap();
        let of = oi.get_func(&mut os, n).unwrap().get_async(&os).get0::<()>().unwrap();
        let a = time(&format!("{n} native"), per, || run(nf.call_async(&mut ns, ())).unwrap());
        let b = time(&format!("{n} ours"), per, || run(of.call(&mut stack, &mut os, ())).unwrap());
        println!("   ratio {:.3}", b / a);
    }
    let a = time("request native", 1, || {
        let mut s = Store::new(&engine, ());
        run(async {
            let i = nl.instantiate_async(&mut s, &module).await.unwrap();
            let f = i.get_typed_func::<(), ()>(&mut s, "nop").unwrap();
            f.call_async(&mut s, ()).await.unwrap()
        })
    });
    let b = time("request ours", 1, || {
        let mut s = Store::new(&engine, ());
        let st = &mut stack;
        run(async {
            let i = ol.instantiate_on(st, &mut s, &module).await.unwrap();
            let f = i.get_func(&mut s, "nop").unwrap().get_async(&s).get0::<()>().unwrap();
            f.call(st, &mut s, ()).await.unwrap()
        })
    });
    println!("   ratio {:.3}", b / a);
}
