//! Differential testing: random guests with random host functions, once through wasmtime's own async and once on each
//! of this crate's stacks.
#![cfg_attr(feature = "loom", allow(dead_code, unused))]

mod case;
mod choices;
mod driver;
mod guest;
mod host;
mod mode;
mod run;
mod transcript;

fn main() {
    let bench = run::Bench::new();
    let mut counts = run::Counts::default();
    let n: u64 = std::env::args().nth(1).map_or(100, |n| n.parse().unwrap());
    let start = std::time::Instant::now();
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<transcript::HostPanic>().is_none() {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
        }
    }));
    for seed in 0..n {
        let group = run::Group::random(seed);
        eprintln!("seed {seed} {:?}", start.elapsed());
        if let Err(text) = bench.run(&group, &mut counts) {
            println!("{group}\n{text}");
            return;
        }
    }
    for (name, n) in &counts.0 {
        println!("{name}={n}");
    }
}
