//! What a request costs in a server that calls a guest for it: with this crate, and with wasmtime's own async.
//!
//! This process sends requests, and starts itself once more for each variant of the server. The variants take turns within
//! each round, so that other work on the machine affects them all. The bench measures the processor time that the server's
//! process spends on a request. The ratio is that time divided by the time of wasmtime's own async with the pooling allocator,
//! in the same round. The bench prints the medians of the rounds.
//!
//! ```sh
//! cargo run --release -p server-bench -- --short
//! ```

mod case;
mod child;
mod host;
mod load;
mod report;
mod serve;
mod variants;

use case::Case;
use child::Child;
use report::Report;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::env;
use std::process::ExitCode;
use tokio::runtime::Builder;
use wasmtime::{Result, ensure};

/// How much is measured.
struct Plan {
    rounds: usize,
    /// How many requests there are, for each case and variant in each round.
    requests: usize,
    /// The variants to measure in addition to the first one. All of them if this is empty.
    only: Vec<String>,
    /// This program, built with the other way of parking.
    fiber_parking: Option<String>,
}

/// How many connections there are, each with one request after the other.
const CONNECTIONS: [usize; 2] = [64, 1000];

fn plan(mut arguments: impl Iterator<Item = String>) -> Option<Plan> {
    let mut plan = Plan { rounds: 7, requests: 20_000, only: Vec::new(), fiber_parking: None };
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--short" => (plan.rounds, plan.requests) = (5, 3_000),
            "--only" => plan.only.push(arguments.next().filter(|name| variants::NAMES.contains(&&**name))?),
            "--fiber-parking" => plan.fiber_parking = Some(arguments.next()?),
            _ => return None,
        }
    }
    Some(plan)
}

/// Lets this process and those that it starts have as many connections as the system allows.
fn allow_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If this fails, the present limit may be enough.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn measure(plan: &Plan) -> Result<()> {
    let echo = host::start_echo().await?;
    let mut servers = Vec::new();
    for name in variants::NAMES {
        if name != variants::NAMES[0] && !plan.only.is_empty() && !plan.only.iter().any(|only| only == name) {
            continue;
        }
        servers.push(Child::start(&env::current_exe()?, name, name, echo).await?);
    }
    if let Some(program) = &plan.fiber_parking {
        let label = "send_fiber_pooled_fiber_parking";
        let server = Child::start(program.as_ref(), "send_fiber_pooled", label, echo).await?;
        ensure!(server.parking == "Fiber", "{program} was built with the feature direct-parking");
        servers.push(server);
    }
    for case in Case::ALL {
        for connections in CONNECTIONS {
            let each = plan.requests / connections;
            let can = |server: &&Child| server.label != variants::SYNCHRONOUS || case.never_waits();
            let servers: Vec<_> = servers.iter().filter(can).collect();
            let mut report = Report::new(case, connections);
            for round in 0..plan.rounds {
                // Each server is first in some rounds.
                for index in 0..servers.len() {
                    let server = servers[(index + round) % servers.len()];
                    report.add(&server.label, load::measure(server.address, case, connections, each).await?);
                }
            }
            report.print();
        }
    }
    Ok(())
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [word, variant, echo] = &arguments[..]
        && word == "serve"
    {
        return serve::run(variant, echo.parse()?).map(|()| ExitCode::SUCCESS);
    }
    let Some(plan) = plan(arguments.into_iter()) else {
        eprintln!("usage: server-bench [--short] [--only VARIANT]... [--fiber-parking PROGRAM]");
        return Ok(ExitCode::from(2));
    };
    allow_files();
    // This uses one thread, to leave the other processors to the server.
    Builder::new_current_thread().enable_all().build()?.block_on(measure(&plan))?;
    Ok(ExitCode::SUCCESS)
}
