//! Groups run in processes of their own, because a wrong library may abort its process, or hang.
//!
//! A worker reads a line for each group and answers with one.

use crate::cases::run::{Bench, Counts, Group};
use crate::cases::transcript::quiet_host_panics;
use std::env;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Makes a process a worker.
const VARIABLE: &str = "DIFFERENTIAL_WORKER";

impl Group {
    /// The group on one line.
    pub(crate) fn encode(&self) -> String {
        let mut line = format!("{:x}", self.order);
        for (sign, strings) in [('g', &self.guests), ('c', &self.cases)] {
            for bytes in strings {
                let _ = write!(line, " {sign}");
                for byte in bytes {
                    let _ = write!(line, "{byte:02x}");
                }
            }
        }
        line
    }

    pub(crate) fn decode(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut group = Self { order: u64::from_str_radix(words.next()?, 16).ok()?, ..Self::default() };
        for word in words {
            let digits = word.get(1..)?.as_bytes().chunks_exact(2);
            let bytes =
                digits.map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok()).collect::<Option<_>>()?;
            match word.as_bytes()[0] {
                b'g' => group.guests.push(bytes),
                b'c' => group.cases.push(bytes),
                _ => return None,
            }
        }
        (!group.guests.is_empty()).then_some(group)
    }
}

/// Works, if this process is a worker. Returns whether it is.
pub(crate) fn work() -> bool {
    if env::var_os(VARIABLE).is_none() {
        return false;
    }
    quiet_host_panics();
    let bench = Bench::new();
    for line in std::io::stdin().lines() {
        let line = line.expect("the parent writes text");
        let group = Group::decode(&line).expect("the parent encodes groups");
        let mut counts = Counts::default();
        let answer = match bench.run(&group, &mut counts) {
            Ok(()) => counts.0.iter().fold("same".to_owned(), |line, (name, n)| line + &format!(" {name}={n}")),
            Err(text) => format!("different {}", text.replace('\n', "\u{1}")),
        };
        println!("{answer}");
    }
    true
}

/// The result of a group.
pub(crate) enum Verdict {
    Same(Counts),
    Different(String),
}

/// The parent's handle of a worker.
pub(crate) struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    pub(crate) fn start(stderr: Stdio) -> Self {
        let program = env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("a worker can be started");
        let requests = child.stdin.take().expect("is piped");
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let (sender, answers) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, requests, answers }
    }

    /// Runs a group in the worker. No answer in this time is a difference, too. After an answer of `Different`, the
    /// worker may have ended.
    pub(crate) fn ask(&mut self, group: &Group, patience: Duration) -> Verdict {
        // If the worker has ended, the code below notices.
        let _ = writeln!(self.requests, "{}", group.encode());
        match self.answers.recv_timeout(patience) {
            Ok(line) => {
                if let Some(("different", text)) = line.split_once(' ') {
                    return Verdict::Different(text.replace('\u{1}', "\n"));
                }
                let mut counts = Counts::default();
                for (name, n) in line.split(' ').filter_map(|word| word.split_once('=')) {
                    counts.add(name, n.parse().expect("a worker counts"));
                }
                Verdict::Same(counts)
            }
            Err(RecvTimeoutError::Timeout) => Verdict::Different(format!("no answer after {patience:?}")),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().expect("a child can be waited for");
                Verdict::Different(format!("the process ended: {status}"))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already, waits for a request, or hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
