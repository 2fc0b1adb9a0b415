//! Sockets: a guest that waits for an answer leaves its thread to others, and closes its socket when its call is dropped.

use crate::common::{on_each_stack, poll_and_drop};
use crate::guests::ENGINE;
use crate::stacks::Kind;
use std::sync::LazyLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use wasmtime::Result;
use wasmtime::component::Component;
use wasmtime_async::Store;
use wasmtime_async::component::{AsyncFunc, LinkerExt};
use wasmtime_wasi::WasiCtx;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

on_each_stack! { tcp udp cancelled }

/// The guest in `sockets.wat`.
static GUEST: LazyLock<Component> = LazyLock::new(|| {
    let mut wit = Resolve::default();
    let package = wit.push_str("sockets.wit", include_str!("sockets.wit")).unwrap();
    let world = wit.select_world(&[package], None).unwrap();
    let mut module = wat::parse_str(include_str!("sockets.wat")).unwrap();
    embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8).unwrap();
    let component = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    Component::from_binary(&ENGINE, &component).unwrap()
});

async fn call<S: Kind>(function: &str, port: u16) -> Result<u32> {
    let mut wasi = WasiCtx::builder();
    wasi.inherit_network().allow_tcp(true).allow_udp(true);
    let mut store = Store::new(&ENGINE, wasi.build_p1());
    let mut stack = S::new_stack();
    let instance = S::linker().instantiate_on(&mut stack, &mut store, &GUEST).await?;
    let function = AsyncFunc::from(instance.get_typed_func::<(u16,), (u32,)>(&mut store, function)?);
    Ok(function.call(&mut stack, &mut store, (port,)).await?.0)
}

fn on_one_thread<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// Guest and server are on one thread.
fn tcp<S: Kind>() {
    on_one_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guest = call::<S>("tcp", listener.local_addr().unwrap().port());
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut ping = [0; 4];
            socket.read_exact(&mut ping).await.unwrap();
            assert_eq!(&ping, b"ping");
            socket.write_all(b"an answer").await.unwrap();
        };
        let (len, ()) = futures::join!(guest, server);
        assert_eq!(len.unwrap(), 9);
    });
}

fn udp<S: Kind>() {
    on_one_thread(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let guest = call::<S>("udp", socket.local_addr().unwrap().port());
        let server = async {
            let mut ping = [0; 10];
            let (len, guest) = socket.recv_from(&mut ping).await.unwrap();
            assert_eq!(&ping[..len], b"ping");
            socket.send_to(b"answer", guest).await.unwrap();
        };
        let (len, ()) = futures::join!(guest, server);
        assert_eq!(len.unwrap(), 6);
    });
}

fn cancelled<S: Kind>() {
    on_one_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut guest = Box::pin(call::<S>("tcp", listener.local_addr().unwrap().port()));
        let mut server = Box::pin(async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut ping = [0; 4];
            socket.read_exact(&mut ping).await.unwrap();
            socket
        });
        let mut socket = tokio::select! {
            ended = guest.as_mut() => panic!("the guest did not wait for the answer: {ended:?}"),
            socket = server.as_mut() => socket,
        };
        poll_and_drop(guest);
        assert_eq!(socket.read(&mut [0; 10]).await.unwrap(), 0, "the guest's socket is open");
    });
}
