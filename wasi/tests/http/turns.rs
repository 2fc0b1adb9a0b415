//! A guest that asks again and again whether something has come gives way.

use crate::common::{Wakes, on_each_stack};
use crate::guests::{Data, ENGINE};
use crate::outgoing::listen;
use crate::stacks::{Kind, handle, on_one_thread, request};
use http_body_util::Empty;
use std::pin::pin;
use std::sync::Arc;
use wasmtime::component::Linker;
use wasmtime_async_wasi::http::{add_to_linker, exchange};
use wasmtime_async_wasi::{HOST_CALLS_IN_A_ROW, p2};

on_each_stack! { a_response_that_does_not_come trailers_that_do_not_come }

/// How often the guest asks.
const TIMES: u32 = 256;
const _: () = assert!(TIMES > HOST_CALLS_IN_A_ROW);

fn gives_way<S: Kind>(path: &str) {
    on_one_thread(async {
        let (_listener, address) = listen().await;
        let (responder, _answer) = exchange();
        let request = request("GET", format!("http://{address}{path}"), Empty::new());
        let mut guest = pin!(handle::<S>(responder, request));
        let wakes = Arc::new(Wakes::default());
        assert!(wakes.poll(guest.as_mut()).is_pending(), "it did not give way");
        assert_eq!(wakes.count(), 1, "woken");
        guest.await.unwrap();
    });
}

fn a_response_that_does_not_come<S: Kind>() {
    gives_way::<S>("/get");
}

fn trailers_that_do_not_come<S: Kind>() {
    gives_way::<S>("/finish");
}

/// The functions that give way replace others, which changes nothing in what the linker allows.
#[test]
fn shadowing() {
    let mut linker = Linker::<Data>::new(&ENGINE);
    p2::add_to_linker(&mut linker).unwrap();
    add_to_linker(&mut linker).unwrap();
    add_to_linker(&mut linker).unwrap_err();
    linker.allow_shadowing(true);
    add_to_linker(&mut linker).unwrap();
    add_to_linker(&mut linker).unwrap();
}
