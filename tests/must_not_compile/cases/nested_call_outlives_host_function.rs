//! A nested call holds the caller of its host function, and only exists while that function runs.

use std::pin::Pin;
use std::sync::Mutex;
use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{FuncExt, Store};

static KEPT: Mutex<Option<Pin<Box<dyn Future<Output = Result<i32>> + Send>>>> = Mutex::new(None);

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let double = Func::wrap(&mut store, |n: i32| n * 2).get_async(&store).typed::<i32, i32>().unwrap();
    Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, ()>, (n,): (i32,)| {
        let double = double.clone();
        Box::new(async move {
            *KEPT.lock().unwrap() = Some(Box::pin(async move { double.call_within(&mut caller, n).await }));
        })
    });
}
