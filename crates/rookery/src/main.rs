//! The `rookery` binary: storage node, frontend, operator's tool and demo in one.

mod allocator;
mod demo;
mod descriptors;
mod logging;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why not the system's: it took a sixth of what a delivery costs in all processes.
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

unsafe extern "C" {
    /// mimalloc.h; the package leaves it out.
    fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
}

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

/// Gives memory back to the system soon after it is free. The allocator would wait a second, in which a
/// 50 MB message leaves its chunks behind in every process it passes. At once would be too soon: most of
/// what is freed is wanted again, and the system would clear it each time. (Page faults of a node for
/// each APPEND of 20 kB: 3.2 with 1 ms, 1.3 with this, 0.6 with 500 ms.)
///
/// Takes no huge pages, for which the allocator asks: of each, most stays unused. (A node without mail holds
/// 66 MiB in place of 151, one with 100,000 messages 450 in place of 530, and both are as fast.)
fn bound_memory() {
    /// `mi_option_purge_delay`, in milliseconds.
    const PURGE_DELAY: std::ffi::c_int = 15;
    const PURGE_DELAY_MS: std::ffi::c_long = 100;
    // SAFETY: they take numbers, and no other thread runs yet.
    unsafe {
        mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
        // Why the result is dropped: a system without it goes on with more memory.
        let (yes, no): (libc::c_ulong, libc::c_ulong) = (1, 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, yes, no, no, no);
    }
}
