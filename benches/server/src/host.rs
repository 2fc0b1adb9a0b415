//! What host functions wait for. It is the same for all variants.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wasmtime::Result;

/// The data of each store.
pub(crate) type Data = Arc<Host>;

/// What the host functions share.
pub(crate) struct Host {
    echo: SocketAddr,
    /// Connections that are not in use.
    idle: Mutex<Vec<TcpStream>>,
}

impl Host {
    pub(crate) fn new(echo: SocketAddr) -> Data {
        Arc::new(Self { echo, idle: Mutex::default() })
    }

    pub(crate) async fn ready() -> i32 {
        ready(1).await
    }

    pub(crate) async fn sleep(ms: u32) {
        tokio::time::sleep(Duration::from_millis(ms.into())).await;
    }

    pub(crate) async fn yield_now() {
        tokio::task::yield_now().await;
    }

    pub(crate) async fn echo(self: Arc<Self>, n: i32) -> Result<i32> {
        let idle = self.idle.lock().expect("nothing panics").pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect(self.echo).await?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(&n.to_le_bytes()).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        self.idle.lock().expect("nothing panics").push(stream);
        Ok(i32::from_le_bytes(answer))
    }
}

/// Starts the server that host functions talk to, in this process. It sends back what it receives.
pub(crate) async fn start_echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4];
                while stream.read_exact(&mut bytes).await.is_ok() && stream.write_all(&bytes).await.is_ok() {}
            });
        }
    });
    Ok(address)
}
