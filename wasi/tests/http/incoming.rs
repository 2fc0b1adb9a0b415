//! Guests behind a server of hyper's.

use crate::common::on_each_stack;
use crate::outgoing::{assert_closed, listen, read_header};
use crate::stacks::{Kind, handle, on_one_thread, request};
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::{FutureExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use wasmtime::Result;
use wasmtime_async::{SendFiberStack, ThreadStack};
use wasmtime_async_wasi::Error;
use wasmtime_async_wasi::http::exchange;
use wasmtime_wasi_http::io::TokioIo;

on_each_stack! { echo a_client_that_goes_away a_guest_that_traps }

/// Serves one connection. Returns the client's end, and what tells how each guest ended.
async fn connect<S: Kind>() -> (TcpStream, UnboundedReceiver<Result<()>>) {
    let (listener, address) = listen().await;
    let client = TcpStream::connect(address).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let (sender, ended) = unbounded();
    let service = service_fn(move |request: Request<Incoming>| {
        let (responder, answer) = exchange();
        let sender = sender.clone();
        spawn_local(async move {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let ended = handle::<S>(responder, request).await;
            sender.unbounded_send(ended).unwrap();
        });
        answer
    });
    spawn_local(http1::Builder::new().serve_connection(TokioIo::new(socket), service).map(drop));
    (client, ended)
}

async fn send(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
}

async fn assert_gets(client: &mut TcpStream, expected: &str) {
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
}

/// Each part of the request's body is in the response before the client sends the next. Two requests use the connection.
fn echo<S: Kind>() {
    on_one_thread(async {
        let (mut client, mut ended) = connect::<S>().await;
        for _ in 0..2 {
            send(&mut client, "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let header = read_header(&mut client).await;
            assert!(header.starts_with("HTTP/1.1 200 OK\r\n"), "{header}");
            for part in ["1\r\na\r\n", "2\r\nbc\r\n", "0\r\n\r\n"] {
                send(&mut client, part).await;
                assert_gets(&mut client, part).await;
            }
            ended.next().await.unwrap().unwrap();
        }
    });
}

/// The guest waits for a server that does not answer. It has not responded yet, or writes a body.
fn a_client_that_goes_away<S: Kind>() {
    on_one_thread(async {
        for path in ["/wait", "/stream"] {
            let (listener, address) = listen().await;
            let (mut client, mut ended) = connect::<S>().await;
            send(&mut client, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n")).await;
            let (mut socket, _) = listener.accept().await.unwrap();
            read_header(&mut socket).await;
            if path == "/stream" {
                read_header(&mut client).await;
                assert_gets(&mut client, "4\r\nhalf\r\n").await;
            }
            drop(client);
            let error = ended.next().await.unwrap().unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(Error::ClientGone)), "{error:?}");
            // The guest's own request does not go on.
            assert_closed(&mut socket).await;
        }
    });
}

/// The client sees that the response is not whole.
fn a_guest_that_traps<S: Kind>() {
    on_one_thread(async {
        let (mut client, mut ended) = connect::<S>().await;
        send(&mut client, "GET /half HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        // hyper may not have sent what came before the trap.
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert!(!got.ends_with("\r\n0\r\n\r\n"), "{got}");
        ended.next().await.unwrap().unwrap_err();
    });
}

/// Guests move from thread to thread.
#[test]
fn in_tasks_of_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = (0..20).map(|number| {
            let body = number.to_string();
            let (responder, answer) = exchange();
            let request = request("POST", "http://host/echo".into(), Full::from(body.clone()));
            if number % 2 == 0 {
                tokio::spawn(handle::<SendFiberStack>(responder, request));
            } else {
                tokio::spawn(handle::<ThreadStack>(responder, request));
            }
            tokio::spawn(async move {
                let response = answer.await.unwrap().into_body().collect().await.unwrap();
                assert_eq!(response.to_bytes(), body);
            })
        });
        for task in futures::future::join_all(tasks).await {
            task.unwrap();
        }
    });
}
