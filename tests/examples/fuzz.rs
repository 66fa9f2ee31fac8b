//! The long run: `fuzz INPUTS [TARGET...]`. Each target gets so many inputs, on all processors.

use std::thread::available_parallelism;

use tests::fuzz::counting::Counting;
use tests::fuzz::{Report, run, targets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let n_inputs = arguments.next().and_then(|text| text.parse::<u64>().ok());
    let Some(n_inputs) = n_inputs else {
        eprintln!("usage: fuzz INPUTS [TARGET...]");
        std::process::exit(2);
    };
    let wanted: Vec<String> = arguments.collect();
    let n_threads = available_parallelism().map_or(1, |n| n.get() as u64);
    for target in &targets::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == target.name) {
            continue;
        }
        let share = n_inputs.div_ceil(n_threads);
        let mut sum = Report::default();
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..n_threads)
                .map(|i| scope.spawn(move || run(target, i * share..(i + 1) * share)))
                .collect();
            for part in parts {
                let report = part.join().unwrap_or_else(|_| std::process::exit(1));
                sum.n_inputs += report.n_inputs;
                sum.slowest = sum.slowest.max(report.slowest);
                sum.most_bytes = sum.most_bytes.max(report.most_bytes);
            }
        });
        println!("{}: {sum:?}", target.name);
    }
}
