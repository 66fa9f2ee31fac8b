//! Uids: which messages a mailbox has, without reading them.

use crate::answer::Answer;
use crate::gaps;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::Uids;
use crate::rows::Source;
use crate::uid_set::UidSet;

/// Limit: ranges in one answer, about 1 MiB of it; a mailbox without gaps is one range.
pub const UID_RANGES_MAX: usize = 100_000;

pub(super) fn answer(rows: &dyn Source, query: &Uids) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    if let Some((uids, next)) = gaps::present(rows, (query.of, &row), query.from, UID_RANGES_MAX) {
        return Ok(Answer::Uids(uids, next));
    }
    let messages = Messages::of(rows, query.of, &row);
    let mut uids = UidSet::new();
    let mut next = None;
    messages.visit(rows, (query.from, Uid::LAST), &mut |uid, _| {
        uids.push(uid);
        if uids.ranges().len() > UID_RANGES_MAX {
            next = uid.value().checked_add(1).and_then(Uid::new);
        }
        next.is_none()
    });
    Ok(Answer::Uids(uids, next))
}
