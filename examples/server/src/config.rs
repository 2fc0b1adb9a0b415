//! The server's arguments.

use std::net::SocketAddr;
use std::time::Duration;

/// How the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// Where guests run.
    pub guests: Where,
    /// How many guests run at a time, each on a stack.
    pub stacks: usize,
    /// How many requests may wait for a stack at a time. The server refuses further ones.
    pub waiting: usize,
    /// How long a request may take, waiting included.
    pub deadline: Duration,
    /// The other server, which guests ask. Without one, the server starts its own.
    pub service: Option<SocketAddr>,
}

/// Which runtime polls the guests' calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The server's runtime. This needs the fewest switches between threads.
    Shared,
    /// A runtime of their own. Guests that compute take no threads from the server.
    Own,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            guests: Where::Shared,
            stacks: 100,
            waiting: 1000,
            deadline: Duration::from_secs(2),
            service: None,
        }
    }
}

impl Config {
    /// How to use the program.
    pub const USAGE: &str = "usage: server-example [--address IP:PORT] [--runtime shared|own] [--stacks N] [--waiting N] \
                             [--deadline-ms N] [--service IP:PORT]";

    /// Parses the arguments, without the program's name. `None` if they make no sense.
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut config = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match &*name {
                "--address" => config.address = value.parse().ok()?,
                "--runtime" if value == "shared" => config.guests = Where::Shared,
                "--runtime" if value == "own" => config.guests = Where::Own,
                "--stacks" => config.stacks = value.parse().ok().filter(|stacks| *stacks > 0)?,
                "--waiting" => config.waiting = value.parse().ok()?,
                "--deadline-ms" => config.deadline = Duration::from_millis(value.parse().ok()?),
                "--service" => config.service = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(config)
    }
}
