//! Starts the processes of the servers, from the process that sends requests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{self, Command};
use wasmtime::{Result, format_err};

/// A server in a process of its own, which ends when this is dropped.
pub(crate) struct Child {
    /// Its name in the report.
    pub(crate) label: String,
    pub(crate) address: SocketAddr,
    /// How it parks calls.
    pub(crate) parking: String,
    _process: process::Child,
}

impl Child {
    pub(crate) async fn start(program: &Path, variant: &str, label: &str, echo: SocketAddr) -> Result<Self> {
        let mut process = Command::new(program)
            .args(["serve", variant, &echo.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("is piped")).read_line(&mut line).await?;
        let (address, parking) = line.trim().split_once(' ').ok_or_else(|| format_err!("{label} did not start"))?;
        Ok(Self { label: label.into(), address: address.parse()?, parking: parking.into(), _process: process })
    }
}
