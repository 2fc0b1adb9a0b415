//! Sends requests, and measures.

use crate::case::Case;
use futures::future::try_join_all;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasmtime::{Result, ensure, format_err};

/// What was measured of one server in one round.
pub(crate) struct Sample {
    /// The processor time for each request, in microseconds.
    pub(crate) cpu_us: f64,
    /// The time that half the requests stay below, in milliseconds. `p99_ms` is the same for 99 in 100.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Requests per second.
    pub(crate) rps: f64,
    /// The memory of the process, in MB.
    pub(crate) rss_mb: f64,
}

/// Sends `each` requests on each of the connections. A sample is a number of requests instead of a time, so that it is as large
/// on a busy machine as on an idle one.
pub(crate) async fn measure(server: SocketAddr, case: Case, connections: usize, each: usize) -> Result<Sample> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(server).await?);
    }
    let mut control = Client::connect(server).await?;
    // Warms up, with all connections in use.
    run(&mut clients, case, each.div_ceil(5)).await?;
    let (cpu_before, _) = control.usage().await?;
    let begun = Instant::now();
    let mut times = run(&mut clients, case, each).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    let (cpu_after, rss_mb) = control.usage().await?;

    times.sort_unstable();
    let requests = f64::from(u32::try_from(times.len())?);
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    let (p50_ms, p99_ms) = (at(50), at(99));
    Ok(Sample { cpu_us: (cpu_after - cpu_before) / 1e3 / requests, p50_ms, p99_ms, rps: requests / elapsed, rss_mb })
}

/// Sends the requests. Returns the time of each.
async fn run(clients: &mut [Client], case: Case, each: usize) -> Result<Vec<Duration>> {
    let (path, expected) = (format!("/{}", case.name()), case.answer().to_string());
    let runs = clients.iter_mut().map(|client| {
        let (path, expected) = (&path, &expected);
        async move {
            let mut times = Vec::with_capacity(each);
            for _ in 0..each {
                let begun = Instant::now();
                let answer = client.get(path).await?;
                ensure!(answer == expected, "{path} was answered with {answer}");
                times.push(begun.elapsed());
            }
            wasmtime::error::Ok(times)
        }
    });
    Ok(try_join_all(runs).await?.concat())
}

/// A connection that sends one request after the other.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn connect(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(1024) })
    }

    /// The processor time that the server has used, in nanoseconds, and its memory, in MB.
    async fn usage(&mut self) -> Result<(f64, f64)> {
        let (cpu, memory) = self.get("/usage").await?.split_once(' ').ok_or_else(|| format_err!("no usage"))?;
        Ok((cpu.parse()?, memory.parse::<f64>()? / 1024.0))
    }

    /// The body of an answer.
    async fn get(&mut self, path: &str) -> Result<&str> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.received.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server has closed the connection");
            if let Some(body) = body(&self.received)? {
                return Ok(std::str::from_utf8(&self.received[body..])?);
            }
        }
    }
}

/// Where the body begins, if it is complete.
fn body(received: &[u8]) -> Result<Option<usize>> {
    let Some(head) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&received[..head])?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "{}", String::from_utf8_lossy(received));
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.ok_or_else(|| format_err!("an answer without a length"))?.parse()?;
    Ok((received.len() == head + 4 + length).then_some(head + 4))
}
