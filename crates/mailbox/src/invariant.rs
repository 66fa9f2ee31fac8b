//! What must hold of a shard's rows between any two commands. Counters are counted again, references
//! are followed, the digest is computed anew. Tests call it after every command; an operator can
//! ask for it. It reads every row once and some twice, and changes nothing.

mod account;

use std::collections::BTreeMap;

use crate::answer::GroupRecord;
use crate::chunk::{ChunkRef, Digest};
use crate::ids::{AccountId, UploadId};
use crate::moving::{self, Moving};
use crate::row::{self, ChunkRow, PieceRow, SessionRow, ShardRow, StagingRow, UploadRow};
use crate::rows::{RowDigest, Source};
use crate::table::{self, Fields};

/// What is wrong, in words.
type Verdict = Result<(), String>;

/// How often an account refers to a chunk, and its length.
type References = BTreeMap<(Digest, AccountId), (u64, u32)>;

/// Checks all rows; `kept` is the digest kept with them.
pub fn check(rows: &dyn Source, kept: RowDigest) -> Result<(), String> {
    check_digest(rows, kept)?;
    check_sessions(rows)?;
    let mut references = References::new();
    check_uploads(rows, &mut references)?;
    check_directory(rows)?;
    for account in accounts(rows).into_iter().filter(|account| !is_arriving(rows, *account)) {
        account::check(rows, account, &mut references)
            .map_err(|wrong| format!("account {account}: {wrong}"))?;
    }
    check_chunks(rows, &references)
}

/// False is told in words.
fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(wrong()) }
}

/// All rows whose keys begin with a prefix.
fn all(rows: &dyn Source, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
    rows.scan(prefix, &table::end_of(prefix), &mut |key, value| {
        visit(key, value);
        true
    });
}

fn check_digest(rows: &dyn Source, kept: RowDigest) -> Verdict {
    let mut digest = RowDigest::default();
    rows.scan(&[], &[u8::MAX; 64], &mut |key, value| {
        digest.add(key, value);
        true
    });
    ensure(digest == kept, || format!("the rows' digest is {digest}, kept is {kept}"))
}

fn check_sessions(rows: &dyn Source) -> Verdict {
    let mut n_outcomes: BTreeMap<[u8; 16], u32> = BTreeMap::new();
    all(rows, &table::all_outcomes(), &mut |key, _| {
        *n_outcomes.entry(Fields(key).id(1)).or_default() += 1;
    });
    let mut verdict = Ok(());
    all(rows, &table::sessions(), &mut |key, value| {
        let session: SessionRow = row::read(value);
        let n = n_outcomes.remove(&Fields(key).id(1)).unwrap_or(0);
        if n != session.n_outcomes {
            verdict = Err(format!("{n} outcomes are kept, counted {}", session.n_outcomes));
        }
    });
    verdict?;
    ensure(n_outcomes.is_empty(), || "outcomes are kept for no session".into())
}

/// An address is an account's or a group's, never both.
fn check_directory(rows: &dyn Source) -> Verdict {
    let mut verdict = Ok(());
    all(rows, &table::groups(), &mut |_, value| {
        let GroupRecord { address, members } = row::read(value);
        if members.is_empty() || !members.is_sorted_by(|a, b| a < b) {
            verdict = Err(format!("the members of {address} are none or out of order"));
        }
        if rows.row(&table::address(&address)).is_some() {
            verdict = Err(format!("{address} is an account's and a group's"));
        }
    });
    verdict
}

fn check_uploads(rows: &dyn Source, references: &mut References) -> Verdict {
    let mut pieces: BTreeMap<(AccountId, UploadId), (u32, u64, u32)> = BTreeMap::new();
    all(rows, &table::all_pieces(), &mut |key, value| {
        let account = AccountId(Fields(key).id(1));
        let PieceRow { chunks } = row::read(value);
        let counted = pieces.entry((account, UploadId(Fields(key).id(17)))).or_default();
        counted.0 += 1;
        counted.1 += chunks.iter().map(|chunk| u64::from(chunk.raw_len)).sum::<u64>();
        counted.2 += chunks.len() as u32;
        refer(references, account, &chunks);
    });
    let (mut n_bytes, mut verdict) = (0, Ok(()));
    all(rows, &table::uploads(), &mut |key, value| {
        let upload: UploadRow = row::read(value);
        n_bytes += upload.size_bytes;
        let id = (AccountId(Fields(key).id(1)), UploadId(Fields(key).id(17)));
        let counted = pieces.remove(&id).unwrap_or_default();
        if counted != (upload.next_sequence, upload.size_bytes, upload.n_chunks) {
            verdict = Err(format!("upload {} has other pieces than it says", id.1));
        }
    });
    verdict?;
    ensure(pieces.is_empty(), || "pieces belong to no upload".into())?;
    let shard: ShardRow = row::load(rows, &table::shard()).unwrap_or_default();
    ensure(shard.upload_bytes == n_bytes, || {
        format!("uploads hold {n_bytes} octets, counted {}", shard.upload_bytes)
    })
}

fn check_chunks(rows: &dyn Source, references: &References) -> Verdict {
    let mut counted = References::new();
    all(rows, &table::chunks(), &mut |key, value| {
        let digest = Digest(key[1..33].try_into().expect("keys are written by this crate"));
        let ChunkRow { n_references, raw_len } = row::read(value);
        let account = AccountId(Fields(key).id(33));
        if !is_arriving(rows, account) {
            counted.insert((digest, account), (n_references, raw_len));
        }
    });
    for (at, references) in references {
        let counted = counted.remove(at);
        ensure(counted.as_ref() == Some(references), || {
            format!("chunk {} has {references:?} references, counted {counted:?}", at.0)
        })?;
    }
    ensure(counted.is_empty(), || format!("chunks nobody refers to: {counted:?}"))
}

fn accounts(rows: &dyn Source) -> Vec<AccountId> {
    let mut accounts: Vec<AccountId> = Vec::new();
    let mut from = table::accounts();
    let end = table::end_of(&from);
    loop {
        let mut next = None;
        rows.scan(&from, &end, &mut |key, _| {
            next = Some(AccountId(Fields(key).id(1)));
            false
        });
        let Some(account) = next else {
            return accounts;
        };
        accounts.push(account);
        from = table::end_of(&table::everything_of(account));
    }
}

fn refer(references: &mut References, account: AccountId, chunks: &[ChunkRef]) {
    for chunk in chunks {
        references.entry((chunk.digest, account)).or_insert((0, chunk.raw_len)).0 += 1;
    }
}

/// Its rows come from another shard, in no order, or came and are forgotten: nothing holds of them.
fn is_arriving(rows: &dyn Source, account: AccountId) -> bool {
    matches!(moving::of(rows, account), Some(Moving::Arriving { .. }))
        || rows.row(&table::forget(account)).is_some()
}

/// Unfinished COPYs of an account.
fn stagings(rows: &dyn Source, account: AccountId) -> BTreeMap<UploadId, StagingRow> {
    let mut stagings = BTreeMap::new();
    all(rows, &table::stagings_of(account), &mut |key, value| {
        stagings.insert(UploadId(Fields(key).id(17)), row::read(value));
    });
    stagings
}
