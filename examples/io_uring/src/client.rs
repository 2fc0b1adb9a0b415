//! Clients of the echo server.

use compio::BufResult;
use compio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use compio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

/// The length of a message, in bytes.
pub(crate) const MESSAGE: usize = 32;

pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// Sends messages, and counts the answers that differ from what was sent.
pub(crate) async fn talk(mut stream: TcpStream, client: u64, messages: usize) -> io::Result<usize> {
    let mut wrong = 0;
    for message in 0..messages {
        let sent = format!("{client:>20}{message:>12}").into_bytes();
        let BufResult(result, sent) = stream.write_all(sent).await;
        result?;
        let BufResult(result, received) = stream.read_exact(vec![0; MESSAGE]).await;
        result?;
        wrong += usize::from(sent != received);
    }
    // This tells the guest that there are no more messages.
    stream.shutdown().await?;
    Ok(wrong)
}
