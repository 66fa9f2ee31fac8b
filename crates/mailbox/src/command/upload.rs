//! Upload: the next piece of a message too large for one entry.

use super::store;
use crate::command::Upload;
use crate::content::{self, CHUNKS_MAX, Inline};
use crate::ids::{LogTime, UploadId};
use crate::ledger::Ledger;
use crate::outcome::{Outcome, Refusal};
use crate::row::{self, PieceRow, ShardRow, UploadRow};
use crate::rows::Source;
use crate::table;
use crate::uid_set::UidSet;

/// Limit: raw octets in all open uploads of a shard: forty of the largest messages at once.
pub const UPLOAD_BYTES_MAX: u64 = 2 << 30;
/// Limit: an account has in its own at most what is left for all others, divided by this, so that no few of
/// them keep all others' large mail out. One that is alone has 512 MiB, ten of the largest messages, as an
/// MTA that delivers twenty at once may bring; nine that take what they can leave 150 MiB,
const ACCOUNT_SHARE: u64 = 3;
/// and has so many uploads.
const ACCOUNT_UPLOADS_MAX: usize = 256;
/// Where so much is taken, uploads that are not continued
const SCARCE_BYTES: u64 = UPLOAD_BYTES_MAX / 4 * 3;
/// are dropped so much earlier, until less is taken: after five minutes in place of ten. Why not sooner: one
/// that has all its pieces waits for the others of its APPEND, which come over a slow line.
const SCARCE_EARLIER_MS: u64 = 5 * 60 * 1000;

pub(crate) fn apply(
    ledger: &mut Ledger<'_, '_>,
    cmd: &Upload,
    inline: &Inline,
) -> Result<Outcome, Refusal> {
    if cmd.sequence == Upload::GIVEN_UP {
        drop_upload(ledger, cmd.upload);
        return Ok(Outcome::Done);
    }
    let key = table::upload(ledger.account, cmd.upload);
    let row: Option<UploadRow> = row::load(ledger.rows, &key);
    let next = row.as_ref().map_or(0, |row| row.next_sequence);
    if cmd.sequence != next {
        return Err(Refusal::UploadGap);
    }
    let n_chunks = cmd.chunks.len() + row.as_ref().map_or(0, |row| row.n_chunks as usize);
    if n_chunks > CHUNKS_MAX || next as usize >= CHUNKS_MAX {
        return Err(Refusal::Limit("chunks of an upload".into()));
    }
    content::check_chunks(ledger, &cmd.chunks, inline)?;
    let bytes: u64 = cmd.chunks.iter().map(|chunk| u64::from(chunk.raw_len)).sum();
    let size_bytes = bytes + row.as_ref().map_or(0, |row| row.size_bytes);
    if let Some(replaced) = cmd.replaces {
        let only = UidSet::range(replaced.uid, replaced.uid);
        let found = store::slice(ledger, replaced.mailbox, &only, 1);
        // RFC 8508 3.4: the quota is asked for the difference. That it is gone is told by the APPEND.
        for found in found.iter().flat_map(|(found, _)| found) {
            ledger.will_go(found.state.size);
        }
    }
    ledger.check_quota(size_bytes, 1)?;
    let shard: ShardRow = row::load(ledger.rows, &table::shard()).unwrap_or_default();
    if shard.upload_bytes + bytes > UPLOAD_BYTES_MAX {
        return Err(Refusal::Limit("open uploads".into()));
    }
    let n_left = UPLOAD_BYTES_MAX - shard.upload_bytes - bytes;
    if !has_room(ledger, bytes, row.is_none(), n_left / ACCOUNT_SHARE) {
        return Err(Refusal::Limit("open uploads of one account".into()));
    }
    let row = UploadRow {
        next_sequence: next + 1,
        size_bytes,
        n_chunks: n_chunks as u32,
        touched: ledger.now,
    };
    row::save(ledger.rows, key, &row);
    let piece = PieceRow { chunks: cmd.chunks.clone() };
    row::save(ledger.rows, table::piece(ledger.account, cmd.upload, next), &piece);
    for chunk in &cmd.chunks {
        ledger.refer(chunk.digest, chunk.raw_len, 1);
    }
    ledger.change_upload_bytes(bytes.cast_signed());
    Ok(Outcome::Done)
}

/// Whether so many octets more may be in the account's open uploads, those of a new one or of one that is
/// counted already, if there may be so many in all.
fn has_room(ledger: &Ledger<'_, '_>, bytes: u64, is_new: bool, n_bytes_max: u64) -> bool {
    let uploads = table::uploads_of(ledger.account);
    let (mut n_uploads, mut n_bytes) = (usize::from(is_new), bytes);
    ledger.rows.scan(&uploads, &table::end_of(&uploads), &mut |_, value| {
        n_uploads += 1;
        n_bytes += row::read::<UploadRow>(value).size_bytes;
        n_uploads <= ACCOUNT_UPLOADS_MAX
    });
    n_uploads <= ACCOUNT_UPLOADS_MAX && n_bytes <= n_bytes_max
}

/// Uploads not continued since are dropped when those not continued since `before` are to be.
pub(crate) fn dropped_before(rows: &dyn Source, before: LogTime) -> LogTime {
    let shard: ShardRow = row::load(rows, &table::shard()).unwrap_or_default();
    match shard.upload_bytes >= SCARCE_BYTES {
        true => LogTime(before.0.saturating_add(SCARCE_EARLIER_MS)),
        false => before,
    }
}

/// An upload is no longer needed: its message arrived, or nobody continued it.
pub(crate) fn drop_upload(ledger: &mut Ledger<'_, '_>, upload: UploadId) {
    let key = table::upload(ledger.account, upload);
    let Some(row) = row::load::<UploadRow>(ledger.rows, &key) else {
        return;
    };
    let pieces = table::pieces(ledger.account, upload);
    for key in row::first_keys(ledger.rows, &pieces, CHUNKS_MAX) {
        let piece: Option<PieceRow> = row::load(ledger.rows, &key);
        for chunk in piece.iter().flat_map(|piece| &piece.chunks) {
            ledger.refer(chunk.digest, chunk.raw_len, -1);
        }
        ledger.rows.remove(&key);
    }
    ledger.rows.remove(&key);
    ledger.change_upload_bytes(-row.size_bytes.cast_signed());
}
