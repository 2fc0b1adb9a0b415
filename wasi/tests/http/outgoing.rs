//! Requests that guests send: a guest that waits leaves its thread to others, and closes its connection when it is dropped.

use crate::common::{on_each_stack, poll_and_drop, stays_pending};
use crate::guests::{ENGINE, GUEST, Got, REFUSED};
use crate::stacks::{Kind, get, on_one_thread, send};
use futures::future::{Either, join, join_all, select};
use std::io::{ErrorKind, Read, Write};
use std::pin::{Pin, pin};
use std::rc::Rc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wasmtime::Result;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_async::component::{AsyncFunc, LinkerExt};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};
use wasmtime_async_wasi::{http, p2};
use wasmtime_wasi::{WasiCtx, WasiCtxView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView};

on_each_stack! { waits_at_each_step many_at_once dropped body_that_nobody_reads dropped_with_a_body refused without_tokio }

const RESPONSE: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 6\r\n\r\nanswer";

/// A server of this machine, and its address.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Where nobody listens, and an address of that. The socket keeps the port from other tests, which might listen there.
pub(crate) fn nowhere() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// The other side has closed the connection. The system resets it if something that was sent there has not been read.
pub(crate) async fn assert_closed(socket: &mut TcpStream) {
    match socket.read(&mut [0; 10]).await {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the guest's connection is open: {other:?}"),
    }
}

/// Reads to the end of a header.
pub(crate) async fn read_header(socket: &mut TcpStream) -> String {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        header.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(header).unwrap()
}

/// Reads a chunked body, whose header has been read.
pub(crate) async fn read_body(socket: &mut TcpStream) -> Vec<u8> {
    let mut socket = BufReader::new(socket);
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await.unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let begin = body.len();
        body.resize(begin + size, 0);
        socket.read_exact(&mut body[begin..]).await.unwrap();
        assert_eq!(socket.read_u16().await.unwrap().to_be_bytes(), *b"\r\n");
        if size == 0 {
            return body;
        }
    }
}

async fn accept(listener: &TcpListener, method: &str) -> TcpStream {
    let (mut socket, _) = listener.accept().await.unwrap();
    let header = read_header(&mut socket).await;
    assert!(header.starts_with(&format!("{method} / HTTP/1.1\r\n")), "{header}");
    socket
}

/// The guest can come to the next step, but not beyond it.
fn waits_at_each_step<S: Kind>() {
    on_one_thread(async {
        let (listener, address) = listen().await;
        let mut guest = Box::pin(get::<S>(&address));
        stays_pending(guest.as_mut()).await;
        let mut socket = accept(&listener, "GET").await;
        let steps =
            ["HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n", "3\r\nans\r\n", "3\r\nwer\r\n", "0\r\n"];
        for step in steps {
            stays_pending(guest.as_mut()).await;
            socket.write_all(step.as_bytes()).await.unwrap();
        }
        stays_pending(guest.as_mut()).await;
        socket.write_all(b"trailer: x\r\n\r\n").await.unwrap();
        assert_eq!(guest.await.unwrap(), (201, b"answer".into()));
    });
}

/// The server answers when all have asked.
fn many_at_once<S: Kind>() {
    const GUESTS: usize = 20;
    on_one_thread(async {
        let (listener, address) = listen().await;
        let guests = join_all((0..GUESTS).map(|_| get::<S>(&address)));
        let server = async {
            let mut sockets = Vec::new();
            while sockets.len() < GUESTS {
                sockets.push(accept(&listener, "GET").await);
            }
            for socket in &mut sockets {
                socket.write_all(RESPONSE).await.unwrap();
            }
            sockets
        };
        let (all, _) = join(guests, server).await;
        assert!(all.into_iter().all(|got| got.unwrap() == (201, b"answer".into())));
    });
}

fn dropped<S: Kind>() {
    on_one_thread(async {
        // Nothing of the response has come, or its header has.
        for sent in ["", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nan"] {
            let (listener, address) = listen().await;
            let mut guest = Box::pin(get::<S>(&address));
            let mut socket = tokio::select! {
                ended = guest.as_mut() => panic!("the guest did not wait for the response: {ended:?}"),
                socket = accept(&listener, "GET") => socket,
            };
            socket.write_all(sent.as_bytes()).await.unwrap();
            stays_pending(guest.as_mut()).await;
            poll_and_drop(guest);
            assert_closed(&mut socket).await;
        }
    });
}

/// More than the system keeps for a server that does not read, in blocks.
const TOO_MUCH: u32 = 4096;

/// A guest that is stuck in its request's body, and its server's end of the connection.
async fn stuck<S: Kind>() -> (Pin<Box<impl Future<Output = Result<Got>>>>, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut guest = Box::pin(async move { send::<S>(&address, TOO_MUCH).await });
    tokio::select! {
        ended = guest.as_mut() => panic!("the guest did not wait for the response: {ended:?}"),
        socket = accept(&listener, "POST") => (guest, socket),
    }
}

/// Another guest comes and goes in the meantime.
fn body_that_nobody_reads<S: Kind>() {
    on_one_thread(async {
        let (guest, mut socket) = stuck::<S>().await;
        let (listener, address) = listen().await;
        let server = async { accept(&listener, "GET").await.write_all(RESPONSE).await };
        let other = pin!(join(get::<S>(&address), server));
        let guest = match select(guest, other).await {
            Either::Left((ended, _)) => panic!("nobody has read the body: {ended:?}"),
            Either::Right(((got, _), guest)) => {
                assert_eq!(got.unwrap(), (201, b"answer".into()));
                guest
            }
        };
        let server = async {
            let body = read_body(&mut socket).await;
            socket.write_all(RESPONSE).await.unwrap();
            body
        };
        let (got, body) = join(guest, server).await;
        assert_eq!(got.unwrap(), (201, b"answer".into()));
        let numbers = body.chunks(4096).map(|block| u32::from_le_bytes(*block.first_chunk().unwrap()));
        assert!(numbers.eq(0..TOO_MUCH));
        assert_eq!(body.len(), 4096 * TOO_MUCH as usize);
    });
}

fn dropped_with_a_body<S: Kind>() {
    on_one_thread(async {
        let (mut guest, mut socket) = stuck::<S>().await;
        stays_pending(guest.as_mut()).await;
        drop(guest);
        let mut sent = Vec::new();
        // The connection was reset, or it ends before the body does.
        drop(socket.read_to_end(&mut sent).await);
        assert!(sent.len() < 4096 * TOO_MUCH as usize);
        assert!(!sent.ends_with(b"0\r\n\r\n"));
    });
}

fn refused<S: Kind>() {
    let got = on_one_thread(async {
        let (_nobody, address) = nowhere();
        get::<S>(&address).await
    });
    assert_eq!(got.unwrap(), (0, vec![REFUSED]));
}

/// Another executor than tokio's polls the guest.
fn without_tokio<S: Kind>() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            header.extend(byte);
        }
        socket.write_all(RESPONSE).unwrap();
        socket
    });
    assert_eq!(futures::executor::block_on(get::<S>(&address)).unwrap(), (201, b"answer".into()));
    server.join().unwrap();
}

/// Data that is not `Send`.
struct Local {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    seen: Rc<()>,
}

impl p2::View for Local {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl http::View for Local {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
    }
}

#[test]
fn data_that_is_not_send() {
    on_one_thread(async {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker(&mut linker).unwrap();
        http::add_to_linker(&mut linker).unwrap();
        let seen = Rc::new(());
        let data = Local { wasi: WasiCtx::default(), http: WasiHttpCtx::new(), table: ResourceTable::new(), seen };
        let mut store = Store::new(&ENGINE, data);
        let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
        let instance = linker.instantiate_on(&mut stack, &mut store, &GUEST).await.unwrap();
        let send = instance.get_typed_func::<(String, u32), (Got,)>(&mut store, "send").unwrap();
        let (_nobody, address) = nowhere();
        let got = AsyncFunc::from(send).call(&mut stack, &mut store, (address, 0)).await;
        assert_eq!(got.unwrap(), ((0, vec![REFUSED]),));
        assert_eq!(Rc::strong_count(&store.data().seen), 1);
    });
}
