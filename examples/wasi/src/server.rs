//! The server that the programs talk to, on the same thread. It sends each program a word, and gets the word back in the end.

use crate::GUESTS;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};

pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    asleep: Rc<Asleep>,
    visits: RefCell<Vec<JoinHandle<io::Result<Visit>>>>,
}

#[derive(Default)]
struct Asleep {
    guests: Cell<usize>,
    changed: Notify,
}

/// What the server knows about a connection that has ended.
pub struct Visit {
    /// What the guest was sent, with the end of the line.
    pub word: String,
    /// Whether it sent the word back.
    pub is_complete: bool,
}

impl Server {
    pub async fn new() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, asleep: Rc::default(), visits: RefCell::default() })
    }

    /// Connects the next guest, and returns its socket.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let (near, far) = tokio::join!(TcpStream::connect(self.address), self.listener.accept());
        let mut visits = self.visits.borrow_mut();
        let visit = visit(far?.0, visits.len(), Rc::clone(&self.asleep));
        visits.push(spawn_local(visit));
        near
    }

    /// Waits until every guest is about to sleep.
    pub async fn all_sleep(&self) {
        while self.asleep.guests.get() < GUESTS {
            self.asleep.changed.notified().await;
        }
    }

    /// Waits until all connections have ended, and resets the server.
    pub async fn take_visits(&self, limit: Duration) -> Result<Vec<Visit>, Box<dyn Error>> {
        let mut visits = Vec::new();
        for visit in self.visits.take() {
            visits.push(tokio::time::timeout(limit, visit).await???);
        }
        self.asleep.guests.set(0);
        Ok(visits)
    }
}

async fn visit(socket: TcpStream, guest: usize, asleep: Rc<Asleep>) -> io::Result<Visit> {
    let mut socket = BufReader::new(socket);
    let word = format!("word {}\n", guest * 7919 % 1000);
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    if line != format!("hello from guest-{guest}\n") {
        return Err(io::Error::other(format!("guest {guest} said {line:?}")));
    }
    socket.write_all(word.as_bytes()).await?;
    line.clear();
    socket.read_line(&mut line).await?;
    if line == "sleeping\n" {
        asleep.guests.set(asleep.guests.get() + 1);
        asleep.changed.notify_one();
    }
    let mut rest = String::new();
    // A connection that is cut off ends, too.
    _ = socket.read_to_string(&mut rest).await;
    Ok(Visit { is_complete: rest == word, word })
}
