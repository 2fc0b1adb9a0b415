//! Guests get and give the same as on wasmtime-wasi-http's own functions.

use crate::common::on_each_stack;
use crate::guests::{Data, ENGINE, GUEST, Got};
use crate::outgoing::{listen, nowhere, read_body, read_header};
use crate::stacks::{Kind, get, handle, on_one_thread, request, send};
use bytes::Bytes;
use futures::future::join;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use wasmtime::component::Linker;
use wasmtime::{Result, Store};
use wasmtime_async_wasi::http::exchange;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

on_each_stack! { sent sent_with_a_body handled }

fn upstream_linker() -> Linker<Data> {
    let mut linker = Linker::new(&ENGINE);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
    linker
}

async fn upstream_send(authority: &str, blocks: u32) -> Result<Got> {
    let mut store = Store::new(&ENGINE, Data::default());
    let instance = upstream_linker().instantiate_async(&mut store, &GUEST).await?;
    let send = instance.get_typed_func::<(&str, u32), (Got,)>(&mut store, "send")?;
    Ok(send.call_async(&mut store, (authority, blocks)).await?.0)
}

/// Answers one request with these bytes, and closes the connection.
async fn serve_once(listener: TcpListener, bytes: &str) {
    let (mut socket, _) = listener.accept().await.unwrap();
    read_header(&mut socket).await;
    socket.write_all(bytes.as_bytes()).await.unwrap();
}

fn sent<S: Kind>() {
    on_one_thread(async {
        let responses = [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nto the end of the connection",
            "nonsense\r\n\r\n",
            "",
        ];
        for response in responses {
            let (listener, address) = listen().await;
            let (expected, ()) = join(upstream_send(&address, 0), serve_once(listener, response)).await;
            let (listener, address) = listen().await;
            let (got, ()) = join(get::<S>(&address), serve_once(listener, response)).await;
            assert_eq!(got.unwrap(), expected.unwrap(), "{response}");
        }
        let (_nobody, address) = nowhere();
        for address in [&address, "no such host:80", ""] {
            let (got, expected) = (get::<S>(address).await, upstream_send(address, 0).await);
            assert_eq!(got.map_err(|error| root(&error)), expected.map_err(|error| root(&error)), "{address}");
        }
    });
}

/// Returns the body that it got.
async fn serve_body(listener: TcpListener) -> Vec<u8> {
    let (mut socket, _) = listener.accept().await.unwrap();
    let header = read_header(&mut socket).await;
    assert!(header.starts_with("POST / HTTP/1.1\r\n"), "{header}");
    let body = read_body(&mut socket).await;
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    body
}

fn sent_with_a_body<S: Kind>() {
    on_one_thread(async {
        for blocks in [1, 500] {
            let (listener, address) = listen().await;
            let (expected, expected_body) = join(upstream_send(&address, blocks), serve_body(listener)).await;
            let (listener, address) = listen().await;
            let (got, body) = join(send::<S>(&address, blocks), serve_body(listener)).await;
            assert_eq!(got.unwrap(), expected.unwrap());
            assert!(body == expected_body && body.len() == 4096 * blocks as usize);
        }
    });
}

fn root(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

async fn upstream_handle(path: &str, body: &'static str) -> Result<Got> {
    let proxy = ProxyPre::new(upstream_linker().instantiate_pre(&GUEST)?)?;
    let mut store = Store::new(&ENGINE, Data::default());
    let (set, response) = tokio::sync::oneshot::channel();
    let request = request("POST", format!("http://host{path}"), Full::from(body));
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let set = store.data_mut().http().new_response_outparam(set)?;
    let guest = async {
        let proxy = proxy.instantiate_async(&mut store).await?;
        let ended = proxy.wasi_http_incoming_handler().call_handle(&mut store, request, set).await;
        // What sets a response is in the store.
        drop(store);
        ended
    };
    let client = async { Ok(collect(response.await??).await) };
    match join(guest, client).await {
        (Err(error), _) => Err(error),
        (Ok(()), got) => got,
    }
}

async fn collect<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Got {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok().expect("a whole body");
    (status, body.to_bytes().to_vec())
}

fn handled<S: Kind>() {
    on_one_thread(async {
        for (path, body) in
            [("/echo", "a body"), ("/echo", ""), ("/length", "a body"), ("/after", "a body"), ("/trap", "")]
        {
            let expected = upstream_handle(path, body).await.map_err(|error| root(&error));
            let (responder, answer) = exchange();
            let guest = handle::<S>(responder, request("POST", format!("http://host{path}"), Full::from(body)));
            let client = async { Ok(collect(answer.await?).await) };
            let (ended, got): (_, Result<Got>) = join(guest, client).await;
            let got = ended.and(got);
            assert_eq!(got.map_err(|error| root(&error)), expected, "{path}");
        }
    });
}
