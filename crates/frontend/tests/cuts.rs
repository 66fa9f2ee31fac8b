//! Where a message is cut into chunks.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod client;
mod house;
#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;
mod store;

use frontend::Protocol;
use house::House;
use mailbox::answer::Body;
use mailbox::chunk::{CHUNK_BYTES_MAX, SEAMS_MAX};
use mailbox::query::Messages;
use mailbox::{Answer, ChunkRef, Digest, Query, UidSet};

const HEAD: &str =
    "Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n";
const TEXT: &str = "--x\r\nContent-Type: text/plain\r\n\r\nto be read\r\n";
const FILE_HEAD: &str = "--x\r\nContent-Type: application/octet-stream\r\n\r\n";
/// More than the trace fields take here.
const TRACE_BYTES: usize = 300;
const END: &str = "\r\n--x--\r\n";

/// Octets that no other part has.
fn file(name: &str, n_bytes: usize) -> String {
    let lines = (0..).map(|n| format!("{}\r\n", Digest::of(format!("{name} {n}").as_bytes())));
    lines.take(n_bytes / 66).collect()
}

/// The chunks of each message of the one account, which were so long when they were delivered. What was
/// put in front of them does not count.
fn chunks<const N: usize>(house: &House, sizes: [usize; N]) -> [Vec<ChunkRef>; N] {
    let account = house.memory.account("jo@example.test");
    house.memory.with(|state| {
        let Answer::Mailboxes(mailboxes, _) = state.shard.query(&Query::Mailboxes(account)) else {
            panic!("no mailboxes");
        };
        let inbox = mailboxes.iter().find(|mailbox| mailbox.n_messages > 0).unwrap();
        let wanted = Messages {
            of: inbox.of,
            uids: UidSet::all(),
            changed_since: None,
            metadata: false,
            chunks: true,
            expunged: false,
            only_envelope: false,
            recent_to: None,
        };
        let Answer::Messages(records, _) = state.shard.query(&Query::Messages(wanted)) else {
            panic!("no messages");
        };
        assert_eq!(records.len(), N);
        let mut bodies = records.into_iter().map(|record| record.body.unwrap());
        sizes.map(|size| without_trace(bodies.next().unwrap(), size))
    })
}

fn without_trace(body: Body, size: usize) -> Vec<ChunkRef> {
    let mut chunks = body.chunks;
    let whole: u32 = chunks.iter().map(|chunk| chunk.raw_len).sum();
    chunks[0].raw_len -= whole - size as u32;
    chunks
}

fn lengths(chunks: &[ChunkRef]) -> Vec<usize> {
    chunks.iter().map(|chunk| chunk.raw_len as usize).collect()
}

/// Gives how many octets that were.
async fn deliver(house: &House, raw: &str) -> usize {
    assert_eq!(house.deliver(raw.as_bytes()).await, "250 2.1.5 Delivered");
    raw.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_into_one_chunk_is_one() {
    let house = House::new("").await;
    let file = file("a", 100_000);
    let raw = format!("{HEAD}{TEXT}{FILE_HEAD}{file}{END}");
    let with_trace = deliver(&house, &raw).await + TRACE_BYTES;
    let full = raw.clone() + &"x".repeat(CHUNK_BYTES_MAX - with_trace - 2) + "\r\n";
    let chunks = chunks(&house, [raw.len(), deliver(&house, &full).await]);
    assert_eq!(chunks.map(|chunks| chunks.len()), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_text_and_file_lie_in_chunks_of_their_own() {
    let house = House::new("").await;
    let file = file("a", 600_000);
    let footer = "to be read too\r\n";
    let sizes = [
        deliver(&house, &format!("{HEAD}{TEXT}{FILE_HEAD}{file}{END}")).await,
        deliver(&house, &format!("To: b\r\n{HEAD}{FILE_HEAD}{file}\r\n{TEXT}{footer}{END}")).await,
        deliver(&house, &format!("Subject: text\r\n\r\n{file}")).await,
    ];
    let chunks = chunks(&house, sizes);
    let rest = file.len() - 2 * CHUNK_BYTES_MAX;
    let full = CHUNK_BYTES_MAX;
    let (header, text) = (HEAD.len(), TEXT.len() + FILE_HEAD.len());
    assert_eq!(lengths(&chunks[0]), [header, text, full, full, rest + END.len()]);
    let header = "To: b\r\n".len() + HEAD.len() + FILE_HEAD.len();
    let text_begins = TEXT.len() - "to be read\r\n".len();
    let text = TEXT.len() - text_begins + footer.len();
    let rest_and_head = rest + "\r\n".len() + text_begins;
    assert_eq!(lengths(&chunks[1]), [header, full, full, rest_and_head, text + END.len()]);
    assert_eq!(lengths(&chunks[2]), ["Subject: text\r\n\r\n".len(), full, full, rest]);
    assert_eq!(chunks[0][2..4], chunks[1][1..3], "one file is the same chunks");
    assert_eq!(chunks[0][2..4], chunks[2][1..3], "one file is the same chunks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_many_parts_has_few_chunks_more_and_comes_back() {
    let house = House::new("").await;
    let parts = (0..40).map(|n| format!("{FILE_HEAD}{}\r\n", file(&n.to_string(), 100_000)));
    let raw = format!("{HEAD}{}{END}", parts.collect::<String>());
    deliver(&house, &raw).await;
    let [chunks] = chunks(&house, [raw.len()]);
    let lengths = lengths(&chunks);
    let n_full = raw.len().div_ceil(CHUNK_BYTES_MAX);
    assert!((n_full + 1..=n_full + SEAMS_MAX).contains(&lengths.len()), "{lengths:?}");
    let n_short = lengths.iter().filter(|length| **length < CHUNK_BYTES_MAX).count();
    assert_eq!(n_short, SEAMS_MAX + 1, "{lengths:?}");
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 1 messages"));
    assert!(pop3.say("RETR 1").await.starts_with("+OK"));
    assert!(pop3.until_dot().await.strip_suffix(b".\r\n").unwrap().ends_with(raw.as_bytes()));
}
