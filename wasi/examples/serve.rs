//! Serves a component of the world `wasi:http/proxy`. Each request gets a store, an instance, and a stack from a pool.
//!
//! ```text
//! cargo run --release -p wasmtime-async-wasi --features http --example serve -- 127.0.0.1:8080 PROXY.wasm
//! ```
//!
//! The example `server` in the repository shows what else a server needs: deadlines, time slices for guests that compute for
//! long, and an end.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::env;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::error::Context as _;
use wasmtime::{Engine, Error, Result, format_err};
use wasmtime_async::{DEFAULT_STACK_SIZE, Pool, SendFiberStack, Store};
use wasmtime_async_wasi::{http, p2};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// How many guests run at once. Others wait for a stack.
const GUESTS: usize = 1000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err(format_err!("usage: serve ADDRESS PROXY.wasm"));
    };
    let server = Server::load(&path)?;
    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another with ADDRESS, which is IP:PORT"))?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // There may be too many connections.
                eprintln!("a connection: {error}");
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| server.answer(request));
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await {
                eprintln!("a connection: {error}");
            }
        });
    }
}

#[derive(Clone)]
struct Server {
    proxy: ProxyPre<Data>,
    stacks: Pool<SendFiberStack>,
}

impl Server {
    fn load(path: &str) -> Result<Self> {
        let engine = Engine::default();
        let mut linker = Linker::new(&engine);
        p2::add_to_linker_send(&mut linker)?;
        http::add_to_linker(&mut linker)?;
        let proxy = ProxyPre::new(linker.instantiate_pre(&Component::from_file(&engine, path)?)?)?;
        Ok(Self { proxy, stacks: Pool::new(GUESTS, DEFAULT_STACK_SIZE)? })
    }

    /// Lets a guest answer. hyper drops this future, or the body that it returns, when the client goes away, which cancels the
    /// guest.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<UnsyncBoxBody<Bytes, Error>>, Infallible> {
        // Here, and not in the task, so that a client that goes away does not wait for a stack any more.
        let mut stack = match self.stacks.get().await {
            Ok(stack) => stack,
            Err(error) => return Ok(failed(&error.into())),
        };
        let (responder, answer) = http::exchange();
        let proxy = self.proxy.clone();
        tokio::spawn(async move {
            let mut store = Store::new(proxy.engine(), Data::default());
            if let Err(error) = responder.handle(&mut *stack, &mut store, &proxy, Scheme::Http, request).await {
                eprintln!("a guest: {error:#}");
            }
        });
        Ok(match answer.await {
            Ok(response) => response.map(BodyExt::boxed_unsync),
            Err(error) => failed(&error),
        })
    }
}

fn failed(error: &Error) -> Response<UnsyncBoxBody<Bytes, Error>> {
    eprintln!("a response: {error:#}");
    let mut response = Response::new(Full::from("the guest failed\n").map_err(Error::from).boxed_unsync());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// What a guest has of its own. It may send requests and write to standard error, and nothing else.
struct Data {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
}

impl Default for Data {
    fn default() -> Self {
        let wasi = WasiCtx::builder().inherit_stderr().build();
        Self { wasi, http: WasiHttpCtx::new(), table: ResourceTable::new() }
    }
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Data {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
    }
}
