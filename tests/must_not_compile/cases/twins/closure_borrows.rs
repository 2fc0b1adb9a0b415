//! What the closure owns exists forever.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack, yield_now};

pub(crate) fn main() {
    let name = Arc::new("of the request".to_owned());
    let (go_on, told) = channel();
    let (tell, seen) = channel();
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let owned = Arc::clone(&name);
    let mut call = stack.run(&mut store, move |_| {
        let lent = owned.as_str();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                told.recv().unwrap();
                tell.send(lent.to_owned()).unwrap();
            });
            Ok(yield_now()?)
        })
    });
    assert!(pin!(&mut call).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    std::mem::forget(call);
    drop(name);
    go_on.send(()).unwrap();
    assert_eq!(seen.recv().unwrap(), "of the request");
}
