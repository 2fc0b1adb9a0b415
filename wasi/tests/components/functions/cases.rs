//! Calls that wait, and what they wait for.

use super::{Guest, Host, OnStack};
use crate::common::{dir, keep_busy, runtime};
use crate::stacks::Kind;
use std::net::SocketAddr;
use std::sync::mpsc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::{FsPerms, WasiCtx};

/// Where names lie in the guest's memory, and how long they are.
pub(super) const FILE: [u64; 2] = [0, 4];
pub(super) const OTHER: [u64; 2] = [16, 5];
pub(super) const LINK: [u64; 2] = [32, 4];
pub(super) const EMPTY: [u64; 2] = [48, 5];
/// Some bytes to write.
pub(super) const BYTES: u64 = 64;
/// A list of one pollable.
pub(super) const POLLABLES: u64 = 80;

/// 127.0.0.1 and a port, with what IPv6 would need.
pub(super) fn loopback(port: u16) -> [u64; 12] {
    [0, port.into(), 127, 0, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// Writes names and bytes into the guest's memory, and returns the handle of the directory.
pub(super) async fn prepare<H: Host>(guest: &mut Guest<H>) -> u64 {
    for ([at, _], name) in [(FILE, "file"), (OTHER, "other"), (LINK, "link"), (EMPTY, "empty"), ([BYTES, 5], "bytes")] {
        guest.poke(at, name.as_bytes()).await;
    }
    let at = guest.call("preopens-get-directories", []).await.u32(0);
    u64::from(u32::from_le_bytes(guest.peek(at, 4).await.try_into().unwrap()))
}

/// A guest that has something of everything open, and the other ends of it. Fields are dropped in this order.
pub(super) struct Scene<S> {
    /// Keeps the runtime's only thread for files busy.
    pub(super) busy: mpsc::Sender<()>,
    pub(super) guest: Guest<OnStack<S>>,
    pub(super) handles: Handles,
    pub(super) dir: TempDir,
    pub(super) other_ends: OtherEnds,
    pub(super) runtime: Runtime,
}

/// Of standard input and output, and of sockets.
pub(super) struct OtherEnds {
    pub(super) input: DuplexStream,
    pub(super) output: DuplexStream,
    pub(super) server: TcpStream,
    listener: SocketAddr,
    receiver: SocketAddr,
}

pub(super) struct Handles {
    dir: u64,
    file: u64,
    reader: u64,
    writer: u64,
    stdin: u64,
    stdout: u64,
    /// A pollable each.
    connection: u64,
    datagram: u64,
    input: u64,
    tomorrow: u64,
    /// The streams of a connection.
    answers: u64,
    questions: u64,
}

/// A call, and others before it that do not wait, but without which the call would not wait either.
pub(super) struct Case {
    pub(super) before: Vec<(&'static str, Vec<u64>)>,
    pub(super) name: String,
    pub(super) arguments: Vec<u64>,
}

impl<S: Kind> Scene<S> {
    pub(super) fn new() -> Self {
        let (runtime, dir) = (runtime(), dir());
        let entered = runtime.enter();
        let ((stdin, input), (stdout, output)) = (tokio::io::duplex(10), tokio::io::duplex(1));
        let mut wasi = WasiCtx::builder();
        wasi.preopened_dir(dir.path(), "/dir", FsPerms::ReadWrite).unwrap();
        wasi.inherit_network().allow_tcp(true).allow_udp(true);
        wasi.stdin(AsyncStdinStream::new(stdin)).stdout(AsyncStdoutStream::new(1, stdout));
        let (guest, handles, other_ends) = runtime.block_on(async {
            let mut guest = Guest::<OnStack<S>>::on_stack(wasi.build_p1()).await;
            let (connection, listener) = listener(&mut guest).await;
            let (datagram, receiver) = receiver(&mut guest).await;
            let (streams, server) = connection_to_server(&mut guest).await;
            let handles = Handles::open(&mut guest, connection, datagram, streams).await;
            (guest, handles, OtherEnds { input, output, server, listener, receiver })
        });
        drop(entered);
        Self { busy: keep_busy(&runtime), guest, handles, dir, other_ends, runtime }
    }
}

impl OtherEnds {
    /// Lets happen what the guest waits for. Ends with the guest.
    pub(super) async fn act(&mut self) {
        self.input.write_all(b"line").await.unwrap();
        let _connection = TcpStream::connect(self.listener).await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"datagram", self.receiver).await.unwrap();
        self.server.write_all(b"answer").await.unwrap();
        let (mut printed, mut asked) = (Vec::new(), Vec::new());
        let ends = futures::join!(self.output.read_to_end(&mut printed), self.server.read_to_end(&mut asked));
        _ = (ends.0.unwrap(), ends.1.unwrap());
    }
}

/// A pollable for a connection that comes, and where to connect to.
async fn listener<H: Host>(guest: &mut Guest<H>) -> (u64, SocketAddr) {
    let socket = guest.call("tcp-create-socket-create-tcp-socket", [0]).await.handle();
    let port = bind(guest, "tcp-tcp-socket", socket).await;
    for name in ["tcp-tcp-socket-start-listen", "tcp-tcp-socket-finish-listen"] {
        guest.call(name, [socket]).await;
    }
    (guest.call("tcp-tcp-socket-subscribe", [socket]).await.u32(0), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A pollable for a datagram that comes, and where to send it.
async fn receiver<H: Host>(guest: &mut Guest<H>) -> (u64, SocketAddr) {
    let socket = guest.call("udp-create-socket-create-udp-socket", [0]).await.handle();
    let port = bind(guest, "udp-udp-socket", socket).await;
    let mut from_anybody = vec![socket, 0];
    from_anybody.extend([0; 12]);
    let incoming = guest.call("udp-udp-socket-stream", from_anybody).await.handle();
    let arrived = guest.call("udp-incoming-datagram-stream-subscribe", [incoming]).await.u32(0);
    (arrived, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The guest's streams, and the other side, which takes little before it reads.
async fn connection_to_server<H: Host>(guest: &mut Guest<H>) -> ([u64; 2], TcpStream) {
    let server = TcpSocket::new_v4().unwrap();
    server.set_recv_buffer_size(4096).unwrap();
    server.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let server = server.listen(1).unwrap();
    let socket = guest.call("tcp-create-socket-create-tcp-socket", [0]).await.handle();
    guest.call("tcp-tcp-socket-set-send-buffer-size", [socket, 4096]).await;
    let network = guest.call("instance-network-instance-network", []).await.u32(0);
    let address = loopback(server.local_addr().unwrap().port());
    guest.call("tcp-tcp-socket-start-connect", [[socket, network].as_slice(), &address].concat()).await;
    let connected = guest.call("tcp-tcp-socket-subscribe", [socket]).await.u32(0);
    guest.call("poll-pollable-block", [connected]).await;
    let streams = guest.call("tcp-tcp-socket-finish-connect", [socket]).await;
    ([streams.handle(), streams.u32(8)], server.accept().await.unwrap().0)
}

/// Binds a socket to this machine, and returns the port.
pub(super) async fn bind<H: Host>(guest: &mut Guest<H>, kind: &str, socket: u64) -> u16 {
    let network = guest.call("instance-network-instance-network", []).await.u32(0);
    let arguments = [[socket, network].as_slice(), &loopback(0)].concat();
    guest.call(&format!("{kind}-start-bind"), arguments).await;
    guest.call(&format!("{kind}-finish-bind"), [socket]).await;
    let address = guest.call(&format!("{kind}-local-address"), [socket]).await;
    guest.wipe(8..10);
    u16::from_le_bytes([address.0[8], address.0[9]])
}

impl Handles {
    async fn open<H: Host>(
        guest: &mut Guest<H>,
        connection: u64,
        datagram: u64,
        [answers, questions]: [u64; 2],
    ) -> Self {
        let dir = prepare(guest).await;
        let file = guest.call("types-descriptor-open-at", [dir, 0, FILE[0], FILE[1], 0, 3]).await.handle();
        let stdin = guest.call("stdin-get-stdin", []).await.u32(0);
        let stdout = guest.call("stdout-get-stdout", []).await.u32(0);
        let handles = Self {
            dir,
            file,
            reader: guest.call("types-descriptor-read-via-stream", [file, 0]).await.handle(),
            writer: guest.call("types-descriptor-write-via-stream", [file, 0]).await.handle(),
            stdin,
            stdout,
            connection,
            datagram,
            input: guest.call("streams-input-stream-subscribe", [stdin]).await.u32(0),
            tomorrow: guest.call("monotonic-clock-subscribe-duration", [86_400_000_000_000]).await.u32(0),
            answers,
            questions,
        };
        guest.poke(POLLABLES, &u32::try_from(handles.input).unwrap().to_le_bytes()).await;
        handles
    }

    /// What cannot go on while other work keeps the thread busy on which files are read and written.
    fn at_files(&self) -> Vec<Case> {
        let Self { dir, file, reader, writer, .. } = *self;
        let at = |name: [u64; 2]| [dir, 0, name[0], name[1]].to_vec();
        let with = |name: [u64; 2], rest: &[u64]| [at(name).as_slice(), rest].concat();
        let mut cases: Vec<_> = [
            ("advise", vec![file, 0, 0, 0]),
            ("sync-data", vec![file]),
            ("get-flags", vec![file]),
            ("get-type", vec![file]),
            ("set-size", vec![file, 3]),
            ("set-times", vec![file, 1, 0, 0, 1, 0, 0]),
            ("read", vec![file, 5, 0]),
            ("write", vec![file, BYTES, 5, 0]),
            ("read-directory", vec![dir]),
            ("sync", vec![file]),
            ("create-directory-at", vec![dir, OTHER[0], OTHER[1]]),
            ("stat", vec![file]),
            ("stat-at", at(FILE)),
            ("set-times-at", with(FILE, &[1, 0, 0, 1, 0, 0])),
            ("link-at", with(FILE, &[dir, OTHER[0], OTHER[1]])),
            ("open-at", with(FILE, &[0, 1])),
            ("readlink-at", vec![dir, LINK[0], LINK[1]]),
            ("remove-directory-at", vec![dir, EMPTY[0], EMPTY[1]]),
            ("rename-at", vec![dir, FILE[0], FILE[1], dir, OTHER[0], OTHER[1]]),
            ("symlink-at", vec![dir, FILE[0], FILE[1], OTHER[0], OTHER[1]]),
            ("unlink-file-at", vec![dir, FILE[0], FILE[1]]),
            ("is-same-object", vec![file, dir]),
            ("metadata-hash", vec![file]),
            ("metadata-hash-at", at(FILE)),
        ]
        .map(|(name, arguments)| Case::new(&format!("types-descriptor-{name}"), arguments))
        .into();
        let reads = || [("streams-input-stream-read", vec![reader, 5])];
        let writes = || [("streams-output-stream-write", vec![writer, BYTES, 5])];
        cases.extend([
            Case::new("streams-input-stream-blocking-read", vec![reader, 5]),
            Case::new("streams-input-stream-blocking-skip", vec![reader, 5]),
            Case::new("streams-output-stream-blocking-write-and-flush", vec![writer, BYTES, 5]),
            Case::new("streams-output-stream-blocking-write-zeroes-and-flush", vec![writer, 5]),
            Case::new("streams-output-stream-blocking-splice", vec![writer, reader, 5]),
            Case::new("streams-input-stream-blocking-read", vec![reader, 5]).after(reads()),
            Case::new("streams-output-stream-blocking-flush", vec![writer]).after(writes()),
        ]);
        cases
    }

    /// What waits for the other end of a pipe or a socket.
    fn at_pipes_and_sockets(&self) -> Vec<Case> {
        let Self { stdin, stdout, connection, datagram, input, answers, questions, .. } = *self;
        let zeroes = |stream, len| {
            [
                ("streams-output-stream-check-write", vec![stream]),
                ("streams-output-stream-write-zeroes", vec![stream, len]),
            ]
        };
        vec![
            Case::new("streams-input-stream-blocking-read", vec![stdin, 5]),
            Case::new("streams-input-stream-blocking-skip", vec![stdin, 5]),
            Case::new("streams-output-stream-blocking-splice", vec![stdout, stdin, 1]),
            Case::new("streams-output-stream-blocking-write-and-flush", vec![stdout, BYTES, 5]),
            Case::new("streams-output-stream-blocking-write-zeroes-and-flush", vec![stdout, 5]),
            Case::new("streams-output-stream-blocking-flush", vec![stdout]).after(zeroes(stdout, 1)),
            Case::new("streams-input-stream-blocking-read", vec![answers, 5]),
            Case::new("streams-input-stream-blocking-skip", vec![answers, 5]),
            // More than the other side takes.
            Case::new("streams-output-stream-blocking-flush", vec![questions]).after(zeroes(questions, 65536)),
            Case::new("streams-drop-output-stream", vec![questions]).after(zeroes(questions, 65536)),
            Case::new("poll-pollable-block", vec![input]),
            Case::new("poll-pollable-block", vec![connection]),
            Case::new("poll-pollable-block", vec![datagram]),
            Case::new("poll-poll", vec![POLLABLES, 1]),
        ]
    }

    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = self.at_files();
        cases.extend(self.at_pipes_and_sockets());
        cases
    }

    pub(super) fn until_tomorrow(&self) -> Case {
        Case::new("poll-pollable-block", vec![self.tomorrow])
    }
}

impl Case {
    fn new(name: &str, arguments: Vec<u64>) -> Self {
        Self { before: Vec::new(), name: name.into(), arguments }
    }

    fn after(self, before: impl Into<Vec<(&'static str, Vec<u64>)>>) -> Self {
        Self { before: before.into(), ..self }
    }
}
