//! The kinds of stack, which host functions each has, and the guest on one.

use crate::common::NewStack;
use crate::guests::{Data, ENGINE, GUEST, Got};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;
use wasmtime::Result;
use wasmtime::component::Linker;
use wasmtime_async::component::{AsyncFunc, LinkerExt};
use wasmtime_async::{Carries, FiberStack, SendFiberStack, Store, ThreadStack};
use wasmtime_async_wasi::http::{self as wasi_http, Responder};
use wasmtime_async_wasi::p2;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

pub(crate) trait Kind: NewStack + Carries<Data> + 'static {
    fn linker() -> Linker<Data> {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker(&mut linker).unwrap();
        wasi_http::add_to_linker(&mut linker).unwrap();
        linker
    }
}

impl Kind for FiberStack {}

impl Kind for ThreadStack {}

impl Kind for SendFiberStack {
    fn linker() -> Linker<Data> {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker_send(&mut linker).unwrap();
        wasi_http::add_to_linker(&mut linker).unwrap();
        linker
    }
}

/// A guest sends a request without a body.
pub(crate) async fn get<S: Kind>(authority: &str) -> Result<Got> {
    send::<S>(authority, 0).await
}

/// A guest sends a request, with a body if there are blocks.
pub(crate) async fn send<S: Kind>(authority: &str, blocks: u32) -> Result<Got> {
    let mut store = Store::new(&ENGINE, Data::default());
    let mut stack = S::new_stack();
    let instance = S::linker().instantiate_on(&mut stack, &mut store, &GUEST).await?;
    let send = AsyncFunc::from(instance.get_typed_func::<(&str, u32), (Got,)>(&mut store, "send")?);
    Ok(send.call(&mut stack, &mut store, (authority, blocks)).await?.0)
}

pub(crate) type RequestBody = UnsyncBoxBody<Bytes, wasmtime_wasi_http::Error>;

/// A guest handles a request.
pub(crate) async fn handle<S: Kind>(responder: Responder, request: Request<RequestBody>) -> Result<()> {
    let proxy = ProxyPre::new(S::linker().instantiate_pre(&GUEST)?)?;
    let mut store = Store::new(&ENGINE, Data::default());
    let mut stack = S::new_stack();
    responder.handle(&mut stack, &mut store, &proxy, Scheme::Http, request).await
}

pub(crate) fn request<B>(method: &str, uri: String, body: B) -> Request<RequestBody>
where
    B: http_body::Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
{
    Request::builder().method(method).uri(uri).body(body.map_err(Into::into).boxed_unsync()).unwrap()
}

/// Tasks of the test need not be `Send`. What hangs fails.
pub(crate) fn on_one_thread<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Compiling does not count.
    LazyLock::force(&GUEST);
    let test = async { timeout(Duration::from_mins(10), test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, test)
}
