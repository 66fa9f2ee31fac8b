//! LMTP at a path of the file system, and what is counted.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod client;
mod house;
#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;
mod store;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use client::{Client, PATIENCE};
use frontend::{Frontend, Protocol};
use house::{House, config};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

fn at(path: &Path) -> String {
    format!("lmtp_unix = {{ path = '{}', mode = '0606' }}", path.display())
}

async fn deliver(path: &Path) -> String {
    let mut lmtp = Client::over(UnixStream::connect(path).await.unwrap());
    assert!(lmtp.line().await.starts_with("220"));
    lmtp.send(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nBDAT 6 LAST\r\nA: 1\r\n")
        .await;
    loop {
        let line = lmtp.line().await;
        if !line.starts_with("250-") && line.contains("Delivered") {
            return line;
        }
        assert!(line.starts_with("250"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let _house = House::new(&format!("connections_max = 1\n{}", at(&path))).await;
    let mut first = Client::over(UnixStream::connect(&path).await.unwrap());
    assert!(first.line().await.starts_with("220"));
    let mut second = Client::over(UnixStream::connect(&path).await.unwrap());
    assert_eq!(second.line().await, "421 4.3.2 Too many connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_comes_in_through_a_file_that_is_there_as_long_as_the_frontend() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    // What a process left that ended without a word.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let house = House::new(&at(&path)).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o606);
    assert_eq!(deliver(&path).await, "250 2.1.5 Delivered");
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 1 messages"));
    assert!(pop3.say("RETR 1").await.starts_with("+OK"));
    let got = String::from_utf8(pop3.until_dot().await).unwrap();
    assert!(got.contains("Received: from c\r\n"), "{got}");
    drop(pop3);
    house.shutdown.cancel();
    timeout(PATIENCE, house.frontend.stopped()).await.expect("in time");
    assert!(!path.exists(), "the file goes with the frontend");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_somebody_else_s_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let start = async |path: &Path| {
        let house = House::new("").await;
        let store: Arc<dyn frontend::Store> = house.memory.clone();
        let second = config(&at(path));
        let started = Frontend::start_over(&second, store, CancellationToken::new()).await;
        started.err().map(|error| error.to_string())
    };
    let theirs = UnixListener::bind(&path).unwrap();
    let words = start(&path).await.expect("somebody listens there");
    assert!(words.contains("lmtp_unix") && words.contains("in use"), "{words}");
    assert!(path.exists());
    drop(theirs);
    let file = directory.path().join("file");
    std::fs::write(&file, "no socket").unwrap();
    let words = start(&file).await.expect("a file is no socket");
    assert!(words.contains("no socket"), "{words}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no socket");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_connections_logins_and_deliveries_and_name_nobody() {
    let house = House::new("connections_per_account_max = 1").await;
    assert_eq!(house.deliver(b"Subject: x\r\n\r\n").await, "250 2.1.5 Delivered");
    let mut right = house.client(Protocol::Pop3).await;
    assert!(right.log_in("secret").await.starts_with("+OK"));
    let mut wrong = house.client(Protocol::Pop3).await;
    assert!(wrong.log_in("guess").await.starts_with("-ERR"));
    let mut second = house.client(Protocol::Pop3).await;
    assert!(second.log_in("secret").await.starts_with("-ERR"));
    let mut http = house.client(Protocol::Http).await;
    http.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut all = String::new();
    loop {
        let line = http.line().await;
        if line.is_empty() && all.contains("le=\"+Inf\"") {
            break;
        }
        all += &format!("{line}\n");
    }
    for line in [
        "rookery_frontend_connections_open{protocol=\"pop3\"} 3",
        "rookery_frontend_connections_total{protocol=\"lmtp\"} 1",
        "rookery_frontend_logins_total{result=\"right\"} 1",
        "rookery_frontend_logins_total{result=\"wrong\"} 1",
        "rookery_frontend_logins_total{result=\"limit\"} 1",
        "rookery_frontend_deliveries_total{result=\"committed\"} 1",
        "rookery_frontend_store_seconds_count{kind=\"command\"} 1",
    ] {
        assert!(all.contains(&format!("{line}\n")), "{line} is not in\n{all}");
    }
    assert!(!all.contains('@'), "{all}");
}
