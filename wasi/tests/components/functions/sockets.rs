//! What a guest does with sockets, all on this machine and all its own, and with the names of machines.

use super::cases::{BYTES, bind, loopback, prepare};
use super::{Guest, Host};

/// Where names to look up lie.
const NAMES: u64 = 256;
/// The number of the error `connection-refused`.
const REFUSED: u8 = 14;
/// A datagram to send.
const DATAGRAM: u64 = 512;

/// A connection: both sides, and what comes of it when one shuts down.
pub(super) async fn tcp<H: Host>(guest: &mut Guest<H>) {
    prepare(guest).await;
    let network = guest.call("instance-network-instance-network", []).await.u32(0);
    let listener = guest.call("tcp-create-socket-create-tcp-socket", [0]).await.handle();
    guest.call("tcp-tcp-socket-finish-bind", [listener]).await;
    guest.call("tcp-tcp-socket-accept", [listener]).await;
    let port = bind(guest, "tcp-tcp-socket", listener).await;
    guest.call("tcp-tcp-socket-set-listen-backlog-size", [listener, 5]).await;
    guest.call("tcp-tcp-socket-start-listen", [listener]).await;
    guest.call("tcp-tcp-socket-finish-listen", [listener]).await;
    guest.call("tcp-tcp-socket-is-listening", [listener]).await;
    guest.call("tcp-tcp-socket-accept", [listener]).await;
    let connected = guest.call("tcp-tcp-socket-subscribe", [listener]).await.u32(0);

    let client = guest.call("tcp-create-socket-create-tcp-socket", [0]).await.handle();
    options(guest, client).await;
    let connect = [[client, network].as_slice(), &loopback(port)].concat();
    guest.call("tcp-tcp-socket-start-connect", &connect).await;
    guest.log.last_mut().unwrap().0 = "start-connect".into();
    let ready = guest.call("tcp-tcp-socket-subscribe", [client]).await.u32(0);
    for pollable in [ready, connected] {
        guest.call("poll-pollable-block", [pollable]).await;
        guest.call("poll-drop-pollable", [pollable]).await;
    }
    let streams = guest.call("tcp-tcp-socket-finish-connect", [client]).await;
    let server = guest.call("tcp-tcp-socket-accept", [listener]).await;
    addresses(guest, "tcp-tcp-socket", client).await;
    let (input, output) = (streams.handle(), streams.u32(8));
    let (server, far_input, far_output) = (server.handle(), server.u32(8), server.u32(12));

    guest.call("streams-output-stream-blocking-write-and-flush", [output, BYTES, 5]).await;
    let read = guest.call("streams-input-stream-blocking-read", [far_input, 5]).await;
    guest.peek(read.u32(4), read.u32(8)).await;
    guest.call("streams-output-stream-blocking-write-zeroes-and-flush", [far_output, 3]).await;
    guest.call("streams-input-stream-blocking-skip", [input, 3]).await;
    guest.call("tcp-tcp-socket-shutdown", [server, 1]).await;
    // Nothing comes any more, so this waits for the end.
    guest.call("streams-input-stream-blocking-read", [input, 5]).await;
    guest.call("streams-output-stream-blocking-write-and-flush", [far_output, BYTES, 5]).await;
    for how in [0, 2] {
        guest.call("tcp-tcp-socket-shutdown", [client, how]).await;
    }
    guest.call("tcp-tcp-socket-shutdown", [listener, 2]).await;
    for stream in [input, far_input] {
        guest.call("streams-drop-input-stream", [stream]).await;
    }
    for stream in [output, far_output] {
        guest.call("streams-drop-output-stream", [stream]).await;
    }
    for socket in [client, server, listener] {
        guest.call("tcp-drop-tcp-socket", [socket]).await;
    }
    refused(guest, network).await;
    guest.call("network-drop-network", [network]).await;
}

/// Nobody listens at a socket that is only bound. It keeps the port from other tests.
async fn refused<H: Host>(guest: &mut Guest<H>, network: u64) {
    let silent = guest.call("tcp-create-socket-create-tcp-socket", [0]).await.handle();
    let port = bind(guest, "tcp-tcp-socket", silent).await;
    let socket = guest.call("tcp-create-socket-create-tcp-socket", [0]).await.handle();
    let connect = [[socket, network].as_slice(), &loopback(port)].concat();
    guest.call("tcp-tcp-socket-start-connect", &connect).await;
    guest.log.last_mut().unwrap().0 = "start-connect".into();
    let ready = guest.call("tcp-tcp-socket-subscribe", [socket]).await.u32(0);
    guest.call("poll-pollable-block", [ready]).await;
    // `connection-refused`
    let refused = guest.call("tcp-tcp-socket-finish-connect", [socket]).await;
    assert_eq!((refused.0[0], refused.0[4]), (1, REFUSED), "is refused");
}

/// What can be set and asked.
async fn options<H: Host>(guest: &mut Guest<H>, socket: u64) {
    for (name, value) in [
        ("keep-alive-enabled", 1),
        ("keep-alive-idle-time", 5_000_000_000),
        ("keep-alive-interval", 6_000_000_000),
        ("keep-alive-count", 7),
        ("hop-limit", 8),
        ("receive-buffer-size", 10_000),
        ("send-buffer-size", 10_000),
    ] {
        guest.call(&format!("tcp-tcp-socket-set-{name}"), [socket, value]).await;
        guest.call(&format!("tcp-tcp-socket-{name}"), [socket]).await;
    }
}

/// The socket's own address and the other's, without the ports.
async fn addresses<H: Host>(guest: &mut Guest<H>, kind: &str, socket: u64) {
    guest.call(&format!("{kind}-address-family"), [socket]).await;
    for address in ["local-address", "remote-address"] {
        guest.call(&format!("{kind}-{address}"), [socket]).await;
        guest.wipe(8..10);
    }
}

/// A datagram from one socket to another.
pub(super) async fn udp<H: Host>(guest: &mut Guest<H>) {
    prepare(guest).await;
    let receiver = guest.call("udp-create-socket-create-udp-socket", [0]).await.handle();
    let port = bind(guest, "udp-udp-socket", receiver).await;
    let sender = guest.call("udp-create-socket-create-udp-socket", [0]).await.handle();
    for (name, value) in [("unicast-hop-limit", 8), ("receive-buffer-size", 10_000), ("send-buffer-size", 10_000)] {
        guest.call(&format!("udp-udp-socket-set-{name}"), [sender, value]).await;
        guest.call(&format!("udp-udp-socket-{name}"), [sender]).await;
    }
    let own_port = bind(guest, "udp-udp-socket", sender).await;
    let stream = async |guest: &mut Guest<H>, socket: u64, remote: Option<u16>| {
        let remote = [[socket, remote.is_some().into()].as_slice(), &loopback(remote.unwrap_or(0))].concat();
        let streams = guest.call("udp-udp-socket-stream", remote).await;
        guest.log.last_mut().unwrap().0 = "stream".into();
        (streams.handle(), streams.u32(8))
    };
    let (incoming, unused) = stream(guest, receiver, Some(own_port)).await;
    let (also_unused, outgoing) = stream(guest, sender, None).await;
    addresses(guest, "udp-udp-socket", receiver).await;
    addresses(guest, "udp-udp-socket", sender).await;
    let subscribe = guest.call("udp-udp-socket-subscribe", [sender]).await.u32(0);
    let writable = guest.call("udp-outgoing-datagram-stream-subscribe", [outgoing]).await.u32(0);
    let readable = guest.call("udp-incoming-datagram-stream-subscribe", [incoming]).await.u32(0);
    guest.call("udp-incoming-datagram-stream-receive", [incoming, 5]).await;
    for pollable in [subscribe, writable] {
        guest.call("poll-pollable-block", [pollable]).await;
    }
    datagram(guest, port).await;
    guest.call("udp-outgoing-datagram-stream-check-send", [outgoing]).await;
    guest.call("udp-outgoing-datagram-stream-send", [outgoing, DATAGRAM, 1]).await;
    guest.call("poll-pollable-block", [readable]).await;
    let datagrams = guest.call("udp-incoming-datagram-stream-receive", [incoming, 5]).await;
    assert_eq!(datagrams.u32(8), 1, "datagrams");
    let at = guest.peek(datagrams.u32(4), 8).await;
    let [at, len] = [0, 4].map(|n| u64::from(u32::from_le_bytes(at[n..n + 4].try_into().unwrap())));
    guest.peek(at, len).await;
    for pollable in [subscribe, writable, readable] {
        guest.call("poll-drop-pollable", [pollable]).await;
    }
    for stream in [outgoing, unused] {
        guest.call("udp-drop-outgoing-datagram-stream", [stream]).await;
    }
    for stream in [incoming, also_unused] {
        guest.call("udp-drop-incoming-datagram-stream", [stream]).await;
    }
    for socket in [receiver, sender] {
        guest.call("udp-drop-udp-socket", [socket]).await;
    }
}

/// Writes one to this port.
async fn datagram<H: Host>(guest: &mut Guest<H>, port: u16) {
    let [low, high] = port.to_le_bytes();
    let address = [[1, 0, 0, 0].as_slice(), &[0, 0, 0, 0], &[low, high, 127, 0, 0, 1]].concat();
    guest.poke(DATAGRAM, &[u32::try_from(BYTES).unwrap(), 5].map(u32::to_le_bytes).concat()).await;
    guest.poke(DATAGRAM + 8, &address).await;
}

/// Looks up names, an address among them, and what is no name.
pub(super) async fn names<H: Host>(guest: &mut Guest<H>) {
    let network = guest.call("instance-network-instance-network", []).await.u32(0);
    for name in ["localhost", "127.0.0.1", "::1", "not a name"] {
        guest.poke(NAMES, name.as_bytes()).await;
        let found = guest.call("ip-name-lookup-resolve-addresses", [network, NAMES, name.len() as u64]).await;
        if found.0[0] != 0 {
            continue;
        }
        let found = found.handle();
        let ready = guest.call("ip-name-lookup-resolve-address-stream-subscribe", [found]).await.u32(0);
        guest.call("poll-pollable-block", [ready]).await;
        guest.call("poll-drop-pollable", [ready]).await;
        while guest.call("ip-name-lookup-resolve-address-stream-resolve-next-address", [found]).await.0[2] == 1 {}
        guest.call("ip-name-lookup-drop-resolve-address-stream", [found]).await;
    }
}
