//! Metadata too large for a row: kept as chunks, found again whole, and gone with its message.

mod support;

use mailbox::chunk::{METADATA_BYTES_MAX, METADATA_ROW_BYTES_MAX, Stowed, stow, unstow};
use mailbox::command::{Deliver, OfMailbox};
use mailbox::query::{Messages, Search};
use mailbox::*;
use support::*;

/// A message of so many parts; each says which it is.
fn many_parts(n_parts: usize) -> Vec<u8> {
    let mut raw = b"From: Ann <ann@example.test>\r\nSubject: parts\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        .to_vec();
    for part in 0..n_parts {
        raw.extend(format!("--b\r\nContent-Type: text/plain\r\n\r\npart <{part}>\r\n").bytes());
    }
    raw.extend_from_slice(b"--b--\r\n");
    raw
}

fn with_metadata(of: OfMailbox) -> Messages {
    Messages { metadata: true, chunks: true, ..list(of) }
}

fn whole(shard: &Shard, record: &MessageRecord) -> Option<mime::Metadata> {
    let octets = record.metadata_chunks.iter().flat_map(|chunk| &shard.chunks[&chunk.digest]);
    unstow(record.metadata.as_ref()?, &octets.copied().collect::<Vec<u8>>())
}

fn found(shard: &Shard, key: SearchKey) -> UidSet {
    let query = Search { of: shard.of("INBOX"), among: UidSet::all(), key };
    match shard.ask(&Query::Search(query)) {
        Answer::Found(uids, _, None) => uids,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_row_holds_an_excerpt_and_the_chunks_the_whole() {
    let mut shard = Shard::with_account();
    let raw = many_parts(2000);
    for raw in [mail("before"), raw.clone(), mail("between"), raw.clone()] {
        assert!(matches!(shard.deliver(&raw), Outcome::Appended(_)));
    }
    let longest = shard.rows.values().map(Vec::len).max();
    assert!(longest < Some(METADATA_ROW_BYTES_MAX), "a row of {longest:?} octets");
    let records = shard.messages(with_metadata(shard.of("INBOX")));
    assert_eq!(records.len(), 4, "pages end at a large one and go on behind it");
    assert!(records[0].metadata_chunks.is_empty());
    assert_eq!(whole(&shard, &records[1]), Some(mime::scan(&raw)));
    assert_eq!(whole(&shard, &records[3]), Some(mime::scan(&raw)));
    let body = records[1].body.as_ref().expect("chunks were asked for");
    assert_eq!(body.digest, Digest::of_chunks(&body.chunks), "its own chunks only");
    let excerpt = records[1].metadata.as_ref().expect("metadata was asked for");
    assert_eq!(excerpt.envelope.subject.as_deref(), Some(&b"parts"[..]));
    assert_eq!(excerpt.sort, mime::scan(&raw).sort);
}

#[test]
fn an_envelope_is_told_alone_but_for_an_excerpts() {
    let mut shard = Shard::with_account();
    for raw in [mail("small"), many_parts(2000), mail("behind")] {
        shard.deliver(&raw);
    }
    let query = Messages { metadata: true, only_envelope: true, ..list(shard.of("INBOX")) };
    let records = shard.messages(query.clone());
    let [small, large, behind] = &records[..] else { panic!("{} messages", records.len()) };
    for (record, subject) in [(small, "small"), (behind, "behind")] {
        assert_eq!(record.metadata, None);
        let envelope = record.envelope.as_ref().expect("it was asked for").read();
        assert_eq!(envelope.subject, Some(subject.as_bytes()));
    }
    assert_eq!(large.envelope, None);
    assert_eq!(whole(&shard, large), Some(mime::scan(&many_parts(2000))));
    let all = shard.messages(Messages { only_envelope: false, ..query });
    assert!(all.iter().all(|record| record.metadata.is_some() && record.envelope.is_none()));
}

#[test]
fn a_page_ends_after_so_many_octets_of_metadata() {
    let mut shard = Shard::with_account();
    let subject = "s".repeat(METADATA_ROW_BYTES_MAX / 2);
    let n_messages = 2 * query::METADATA_PAGE_BYTES_MAX / subject.len();
    for _ in 0..n_messages {
        shard.deliver(format!("Subject: {subject}\r\n\r\nx\r\n").as_bytes());
    }
    let query = Messages { metadata: true, ..list(shard.of("INBOX")) };
    let first = shard.ask(&Query::Messages(query.clone()));
    let Answer::Messages(records, Some(_)) = first else { panic!("all came at once") };
    assert!(records.len() > n_messages / 4 && records.len() < n_messages, "{}", records.len());
    assert_eq!(shard.messages(query).len(), n_messages);
}

#[test]
fn trace_fields_in_front_shift_the_whole() {
    let mut shard = Shard::with_account();
    let (raw, prefix) = (many_parts(2000), b"Return-Path: <a@example.test>\r\n");
    let (message, inline) = shard.message(&raw);
    let stored = |chunk: &ChunkRef| StoredChunk::raw(shard.chunks[&chunk.digest].clone());
    let metadata = message.metadata.read().expect("just made").into();
    let draft = Draft { message, metadata, inline: inline.iter().map(stored).collect() };
    let (message, inline) = draft.with_prefix(prefix.to_vec().into());
    let refs: Vec<_> = inline.iter().map(|stored| stored.chunk).collect();
    let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
    let outcome = shard.apply(Command::Deliver(deliver), &refs).outcome;
    assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
    let records = shard.messages(with_metadata(shard.of("INBOX")));
    assert_eq!(whole(&shard, &records[0]), Some(mime::scan(&[&prefix[..], &raw].concat())));
}

#[test]
fn search_reads_the_whole() {
    let mut shard = Shard::with_account();
    shard.deliver(&mail("small"));
    shard.deliver(&many_parts(2000));
    assert_eq!(found(&shard, SearchKey::Body("part <1999>".into())), set(&[2]));
    let many: Vec<String> = (0..3000).map(|i| format!("r{i}@example.test")).collect();
    let raw = format!("From: a@example.test\r\nTo: {}\r\n\r\nx\r\n", many.join(",\r\n "));
    shard.deliver(raw.as_bytes());
    assert_eq!(found(&shard, SearchKey::Header("to".into(), "r2999@".into())), set(&[3]));
    // Without a good copy of the whole, the excerpt is what there is.
    shard.chunks.clear();
    assert_eq!(found(&shard, SearchKey::Header("to".into(), "r2999@".into())), set(&[]));
    assert_eq!(found(&shard, SearchKey::Header("to".into(), "r0@".into())), set(&[3]));
}

#[test]
fn it_goes_with_its_message() {
    let mut shard = Shard::with_account();
    let (message, inline) = shard.message(&many_parts(2000));
    let whole = message.metadata_chunks[0].digest;
    let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
    shard.apply(Command::Deliver(deliver), &inline);
    let (inbox, sent) = (shard.of("INBOX"), shard.of("Sent"));
    shard.run(copy(inbox, sent, set(&[1]), 1));
    shard.run(expunge(inbox, set(&[1]), false));
    shard.clean();
    assert!(is_chunk_live(&shard.rows, &whole), "its copy has it");
    shard.run(expunge(sent, set(&[1]), false));
    shard.clean();
    assert!(!is_chunk_live(&shard.rows, &whole));
    shard.deliver(&many_parts(2000));
    assert!(is_chunk_live(&shard.rows, &whole));
    shard.run(Command::DeleteAccount(ACCOUNT));
    shard.clean();
    assert!(!is_chunk_live(&shard.rows, &whole));
}

#[test]
fn a_chunk_of_it_that_is_not_at_hand_refuses_the_message() {
    let mut shard = Shard::with_account();
    let (message, inline) = shard.message(&many_parts(2000));
    let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
    let outcome = shard.apply(Command::Deliver(deliver), &inline[..inline.len() - 1]).outcome;
    assert_eq!(outcome, Outcome::Refused(Refusal::ChunkMissing));
}

#[test]
fn nothing_a_message_holds_is_too_much() {
    let header = |field: &str, n: usize| format!("{field}: {}\r\n", "a,".repeat(n / 2));
    let wide =
        ["From", "To", "Cc", "Bcc", "Reply-To", "Sender"].map(|field| header(field, 250_000));
    let long = ["Subject", "Message-Id", "In-Reply-To", "Date"]
        .map(|field| format!("{field}: {}\r\n", "x".repeat(250_000)));
    let parts = "--b\r\nContent-Type: text/plain; name=\"n\"\r\nContent-Description: d\r\n\r\n\r\n";
    let parted =
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned() + &parts.repeat(9_000);
    for raw in [wide.concat() + &long.concat() + "\r\nx", parted] {
        let Stowed { metadata: row, packed, whole } = stow(mime::scan(raw.as_bytes()));
        assert_eq!(packed.read().ok().as_ref(), Some(&row));
        let n_octets = packed.octets().len();
        assert!(n_octets < 2 * METADATA_ROW_BYTES_MAX, "{n_octets} octets in a row");
        assert!(whole.len() <= METADATA_BYTES_MAX);
        assert_eq!(whole.is_empty(), row.excerpt.is_none());
        assert_eq!(row.size, raw.len() as u64);
    }
}
