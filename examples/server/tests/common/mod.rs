//! A server in this process, a client for it, and a service whose answers wait until they are let go.
#![allow(dead_code, reason = "each test uses a part of it")]

use server_example::{App, Config, Snapshot, serve};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(crate) struct Server {
    pub(crate) app: Arc<App>,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    served: JoinHandle<io::Result<Snapshot>>,
}

impl Server {
    pub(crate) async fn start(config: Config) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there are ports");
        let address = listener.local_addr().expect("is bound");
        let app = App::new(config).await.expect("the server can start");
        let (end, ended) = oneshot::channel();
        let served = tokio::spawn(serve(listener, app.clone(), async move { _ = ended.await }));
        Self { app, address, end, served }
    }

    /// Sends a request.
    pub(crate) async fn send(&self, function: &str, n: i32) -> Request {
        let mut stream = TcpStream::connect(self.address).await.expect("the server listens");
        let text = format!("GET /call/{function}?n={n} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.expect("the server reads");
        Request(stream)
    }

    /// Sends half a request. It is longer than what the system keeps, so the server has begun to read it.
    pub(crate) async fn send_half(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        socket.set_send_buffer_size(4096).expect("can be set");
        let mut stream = socket.connect(self.address).await.expect("the server listens");
        let text = format!("GET /call/visits HTTP/1.1\r\nhost: {}", "a".repeat(300_000));
        stream.write_all(text.as_bytes()).await.expect("the server reads");
        stream
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn get(&self, function: &str, n: i32) -> (u16, String) {
        self.send(function, n).await.answer().await
    }

    /// Waits until the counters are like this.
    pub(crate) async fn until(&self, condition: impl Fn(Snapshot) -> bool) {
        let begun = Instant::now();
        while !condition(self.app.snapshot()) {
            assert!(begun.elapsed() < Duration::from_mins(5), "{:?}", self.app.snapshot());
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Tells the server to end.
    pub(crate) fn end(self) -> JoinHandle<io::Result<Snapshot>> {
        self.end.send(()).expect("the server runs");
        self.served
    }

    /// Ends the server, and checks that nothing is left.
    pub(crate) async fn end_with_nothing_left(self) -> Snapshot {
        assert_nothing_left(self.end()).await
    }
}

pub(crate) async fn assert_nothing_left(served: JoinHandle<io::Result<Snapshot>>) -> Snapshot {
    let left = served.await.expect("does not panic").expect("does not fail");
    assert_eq!((left.in_flight, left.stores, left.stacks_in_use, left.waiting), (0, 0, 0, 0), "{left:?}");
    left
}

/// A request that was sent. Dropped, its client is gone.
pub(crate) struct Request(TcpStream);

impl Request {
    /// The status code and the body.
    pub(crate) async fn answer(mut self) -> (u16, String) {
        let mut text = String::new();
        self.0.read_to_string(&mut text).await.expect("the server answers");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status: {head}")), body.trim_end().to_owned())
    }
}

/// What guests ask in `double`. Guests wait for as long as a test wants them to.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Service {
    /// Starts one that answers nobody yet.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there are ports");
        let address = listener.local_addr().expect("is bound");
        let (open, is_open) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_once_open(stream, is_open.clone()));
            }
        });
        Self { address, open }
    }

    /// Answers all who have asked and will.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}

async fn answer_once_open(mut stream: TcpStream, mut open: watch::Receiver<bool>) -> io::Result<()> {
    let question = stream.read_i32().await?;
    if open.wait_for(|open| *open).await.is_ok() {
        stream.write_i32(question.wrapping_mul(2)).await?;
    }
    Ok(())
}
