//! The `rookery` binary: storage node, frontend, operator's tool and demo in one.

mod demo;
mod descriptors;
mod logging;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Replicated mailbox storage: mail survives disk failures.
#[derive(Parser)]
#[command(name = "rookery", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a storage node
    Node(serve::NodeArgs),
    /// Run a frontend (IMAP, POP3, LMTP)
    Frontend(serve::FrontendArgs),
    /// Operate a cluster
    Ctl(admin::Ctl),
    /// Run a whole cluster on this machine, to try and to test
    Demo(demo::DemoArgs),
    /// Rehearse failures: hurt a cluster under load, and prove that no mail was harmed
    Drill(drill::Drill),
}

fn main() -> ExitCode {
    bound_memory();
    // Why: several packages bring rustls providers; the choice is made once, here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match Cli::parse().verb {
        Verb::Node(args) => serve::node(args),
        Verb::Frontend(args) => serve::frontend(args),
        Verb::Ctl(args) => admin::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Drill(args) if args.demo => demo::drill(args.options),
        Verb::Drill(args) => drill::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rookery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives large buffers back to the system when they are freed. Without it the allocator raises the size
/// from which it does so to that of the largest buffer it saw, and keeps one arena per thread:
/// a 50 MB message would leave its chunks behind in every process it passed.
fn bound_memory() {
    const LARGE_BYTES: i32 = 128 * 1024;
    const ARENAS: i32 = 2;
    // SAFETY: mallopt(3) takes two numbers; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
