//! The lines that are printed.

use crate::case::Case;
use crate::load::Sample;
use crate::variants::NAMES;

/// The samples of one case at one number of connections.
pub(crate) struct Report {
    case: Case,
    connections: usize,
    /// The variants, in the order of the first round, each with one sample per round.
    samples: Vec<(String, Vec<Sample>)>,
}

impl Report {
    pub(crate) fn new(case: Case, connections: usize) -> Self {
        Self { case, connections, samples: Vec::new() }
    }

    pub(crate) fn add(&mut self, label: &str, sample: Sample) {
        match self.samples.iter_mut().find(|(of, _)| of == label) {
            Some((_, samples)) => samples.push(sample),
            None => self.samples.push((label.to_owned(), vec![sample])),
        }
    }

    pub(crate) fn print(&self) {
        let (_, base) = self.samples.iter().find(|(label, _)| label == NAMES[0]).expect("is measured");
        for (label, samples) in &self.samples {
            let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
            println!(
                "case={} connections={} variant={label} cpu_us={:.1} p50_ms={:.2} p99_ms={:.2} rps={:.0} rss_mb={:.0} \
                 ratio={:.2}",
                self.case.name(),
                self.connections,
                of(|sample| sample.cpu_us),
                of(|sample| sample.p50_ms),
                of(|sample| sample.p99_ms),
                of(|sample| sample.rps),
                of(|sample| sample.rss_mb),
                median(samples.iter().zip(base).map(|(sample, base)| sample.cpu_us / base.cpu_us)),
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
