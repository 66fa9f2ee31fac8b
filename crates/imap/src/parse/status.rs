//! STATUS (RFC 9051 6.3.11 and the extensions that add items).

use mailbox::MailboxName;

use super::cursor::{Cursor, Fault, Parsed};

/// STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) name: MailboxName,
    pub(crate) items: Vec<StatusItem>,
}

/// What STATUS can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    Deleted,
    DeletedStorage,
    Size,
    HighestModSeq,
    MailboxId,
    AppendLimit,
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Parsed<Status> {
    let name = cursor.mailbox()?;
    cursor.space()?;
    let items = items(cursor)?;
    Ok(Status { name, items })
}

/// At least one item between parentheses, each once.
pub(super) fn items(cursor: &mut Cursor<'_>) -> Parsed<Vec<StatusItem>> {
    let mut items = Vec::new();
    cursor.list(|cursor| {
        let item = item(cursor)?;
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    if items.is_empty() { Err(Fault::Bad("status item expected")) } else { Ok(items) }
}

fn item(cursor: &mut Cursor<'_>) -> Parsed<StatusItem> {
    Ok(match cursor.word("status item expected")?.as_str() {
        "MESSAGES" => StatusItem::Messages,
        "RECENT" if !cursor.is_rev2_enabled() => StatusItem::Recent,
        "UIDNEXT" => StatusItem::UidNext,
        "UIDVALIDITY" => StatusItem::UidValidity,
        "UNSEEN" => StatusItem::Unseen,
        "DELETED" => StatusItem::Deleted,
        "DELETED-STORAGE" => StatusItem::DeletedStorage,
        "SIZE" => StatusItem::Size,
        "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
        "MAILBOXID" => StatusItem::MailboxId,
        "APPENDLIMIT" => StatusItem::AppendLimit,
        _ => return Err(Fault::Bad("unknown status item")),
    })
}
