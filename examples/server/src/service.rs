//! Another server, which the guests ask. It doubles numbers.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts the service in this runtime.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // If the client goes away, the task fails, and nobody needs to know.
                Ok((stream, _)) => drop(tokio::spawn(answer(stream))),
                Err(error) => {
                    tracing::warn!("the service could not accept a connection: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let question = stream.read_i32().await?;
    stream.write_i32(question.wrapping_mul(2)).await
}
