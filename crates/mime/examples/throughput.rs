//! Prints how fast the scanner is: `cargo run --release -p mime --example throughput`.

use std::time::Instant;

use mime::Scanner;

const SIZE: usize = 50 * 1024 * 1024;

fn main() {
    let line = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\r\n";
    let head = "Content-Type: multipart/mixed; boundary=bound\r\n\r\n--bound\r\n\r\n";
    let deep: String = (0..99)
        .map(|level| {
            let boundary = format!("{}{level}", "b".repeat(60));
            format!("Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n--{boundary}\r\n")
        })
        .collect();
    let lookalike = format!("--{}x\r\n", "b".repeat(60));
    measure("plain body", "Subject: x\r\n\r\n", line);
    measure("body in a multipart", head, line);
    measure("lines with dashes", head, "--\r\n");
    measure("lines with no delimiter", head, "\r\n--bounds");
    measure("delimiters", head, "--bound\r\n");
    measure("100 deep, lookalikes", &format!("{deep}\r\n"), &lookalike);
    measure("header lines", "Subject: x\r\n", "X-A: 1\r\n");
    measure("one folded field", "Subject: x\r\n", " y\r\n");
}

fn measure(what: &str, head: &str, repeated: &str) {
    let raw = [head.as_bytes(), &repeated.as_bytes().repeat(SIZE / repeated.len())].concat();
    let start = Instant::now();
    let mut scanner = Scanner::new();
    raw.chunks(64 * 1024).for_each(|piece| scanner.feed(piece));
    let metadata = scanner.finish();
    let took = start.elapsed();
    let rate = raw.len() as f64 / 1e6 / took.as_secs_f64();
    println!("{what:24} {rate:8.0} MB/s  {took:?} for {} octets", metadata.size);
}
