//! The command line.

use lexopt::prelude::*;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Runs a WASI program on a stack of its own, or many copies of it at once on one thread.

Usage: run [OPTIONS] PROGRAM.wasm [ARGUMENTS...]

Options:
    --stack fiber|send|thread  the kind of stack (fiber); with `none`, copies run one after the other, without stacks, by
                               wasmtime-wasi's own synchronous functions, to compare with
    --dir HOST::GUEST          lets the program see the directory HOST, under the name GUEST
    --env NAME=VALUE           sets a variable in the program's environment, which is empty by default
    --copies N                 runs N copies, 10,000 at most, and says at the end how long they took together
    --timeout MS               stops what has not ended after so many milliseconds
    --trap-unknown-imports     lets a module import functions that are not there, which trap if they are called
    --help                     shows this

Everything after PROGRAM.wasm is passed to the program, including options. `--` ends the runner's options. A copy that runs
alone has the runner's standard input. If there are many, each has an empty one. All write to the runner's standard output and
error.

The exit code is the program's, or that of the first copy that failed. It is 1 if the program could not be run, 2 if the
command line is wrong, 124 if it was stopped by the timeout, or 134 if it trapped.
";

/// More would only run out of memory.
const MOST_COPIES: usize = 10_000;

pub(crate) enum Command {
    Run(Arguments),
    Help,
}

#[derive(Clone, Copy)]
pub(crate) enum StackKind {
    Fiber,
    Send,
    Thread,
    /// No stack: wasmtime-wasi's synchronous functions.
    Without,
}

pub(crate) struct Arguments {
    pub(crate) stack: StackKind,
    /// Directories: the path on the host, and the guest's name for it.
    pub(crate) dirs: Vec<(PathBuf, String)>,
    pub(crate) env: Vec<(String, String)>,
    /// `None` runs one copy, and prints nothing at the end.
    pub(crate) copies: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) trap_unknown_imports: bool,
    pub(crate) program: PathBuf,
    /// The program's own arguments, without its name.
    pub(crate) rest: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Command, lexopt::Error> {
        let mut parser = lexopt::Parser::from_env();
        let (mut stack, mut copies, mut timeout) = (StackKind::Fiber, None, None);
        let (mut dirs, mut env, mut trap_unknown_imports) = (Vec::new(), Vec::new(), false);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("stack") => stack = parser.value()?.parse_with(stack_kind)?,
                Long("dir") => dirs.push(parser.value()?.parse_with(dir)?),
                Long("env") => env.push(parser.value()?.parse_with(variable)?),
                Long("copies") => copies = Some(parser.value()?.parse_with(number_of_copies)?),
                Long("timeout") => timeout = Some(Duration::from_millis(parser.value()?.parse_with(number)?)),
                Long("trap-unknown-imports") => trap_unknown_imports = true,
                Long("help") | Short('h') => return Ok(Command::Help),
                Value(program) => {
                    if timeout.is_some() && matches!(stack, StackKind::Without) {
                        return Err("`--timeout` needs a stack: leave it out, or choose another `--stack`".into());
                    }
                    let rest = parser.raw_args()?.map(ValueExt::string).collect::<Result<_, _>>()?;
                    let program = program.into();
                    return Ok(Command::Run(Self {
                        stack,
                        dirs,
                        env,
                        copies,
                        timeout,
                        trap_unknown_imports,
                        program,
                        rest,
                    }));
                }
                other => return Err(other.unexpected()),
            }
        }
        Err("no program was named".into())
    }
}

fn stack_kind(name: &str) -> Result<StackKind, &'static str> {
    match name {
        "fiber" => Ok(StackKind::Fiber),
        "send" => Ok(StackKind::Send),
        "thread" => Ok(StackKind::Thread),
        "none" => Ok(StackKind::Without),
        _ => Err("the kinds of stack are fiber, send, thread and none"),
    }
}

fn dir(names: &str) -> Result<(PathBuf, String), &'static str> {
    match names.split_once("::") {
        Some((host, guest)) if !host.is_empty() && !guest.is_empty() => Ok((host.into(), guest.into())),
        _ => Err("expected HOST::GUEST, a directory and the program's name for it"),
    }
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE"),
    }
}

fn number_of_copies(text: &str) -> Result<usize, &'static str> {
    match number(text)? {
        copies if copies > MOST_COPIES => Err("at most 10,000 copies"),
        copies => Ok(copies),
    }
}

fn number<N: std::str::FromStr + Default + PartialEq>(text: &str) -> Result<N, &'static str> {
    match text.parse() {
        Ok(number) if number != N::default() => Ok(number),
        _ => Err("expected a whole number above 0"),
    }
}
