//! Runs a WASI program on stacks: one, or many copies at once on one thread.
//!
//! ```text
//! cargo run --release -p wasmtime-async-wasi --example run -- [OPTIONS] PROGRAM.wasm [ARGUMENTS…]
//! ```

mod arguments;
mod copies;
mod program;

use arguments::{Arguments, Command, HELP};
use program::Program;
use std::io::{Write as _, stdout};
use std::process::exit;
use wasmtime::error::Context as _;

/// The exit code if the program could not be run, so that none of its code ran.
const NOT_RUN: i32 = 1;
/// The exit code if the command line is wrong.
const USAGE: i32 = 2;
/// The exit code after the timeout, as of the command `timeout`.
const TIMED_OUT: i32 = 124;
/// The exit code after a trap, as a shell reports it for a process that aborted.
const TRAPPED: i32 = 134;

fn main() {
    let ended = match Arguments::parse() {
        Ok(Command::Run(arguments)) => Program::load(&arguments).and_then(|program| copies::run(&program, &arguments)),
        Ok(Command::Help) => print(HELP).map(|()| 0),
        Err(error) => {
            complain(&format!("{error} (see --help)"));
            Ok(USAGE)
        }
    };
    let code = ended.unwrap_or_else(|error| {
        complain(&in_one_line(&error));
        NOT_RUN
    });
    // This does not wait for threads that still read standard input or a pipe for a program that is gone.
    exit(code);
}

/// An error with its causes.
fn in_one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn print(text: &str) -> wasmtime::Result<()> {
    let mut output = stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("cannot write to standard output")
}

fn complain(message: &str) {
    eprintln!("run: {message}");
}
