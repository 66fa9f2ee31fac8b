//! Mailboxes and Mailbox: LIST, LSUB, STATUS and what SELECT begins with.

use std::collections::BTreeSet;

use crate::answer::{Answer, MailboxInfo};
use crate::command::{NamedMailbox, OfMailbox};
use crate::ids::{AccountId, MailboxId, ModSeq, Uid, UidValidity};
use crate::name::MailboxName;
use crate::outcome::Refusal;
use crate::row::{self, KeywordsRow, MailboxRow, NodeRow};
use crate::rows::Source;
use crate::table::{self, Table};
use crate::tree;

pub(super) fn list(rows: &dyn Source, account: AccountId) -> Result<Answer, Refusal> {
    super::readable(rows, account)?;
    let mut subscribed = subscriptions(rows, account);
    let mut infos = Vec::new();
    // Depth first, children in order: so names come in order too.
    let mut open: Vec<(Vec<String>, u64)> = Vec::new();
    let push = |open: &mut Vec<(Vec<String>, u64)>, path: &[String], node: u64| {
        let children = tree::children(rows, account, node);
        let n_children = children.len();
        for (component, node) in children.into_iter().rev() {
            let mut path = path.to_vec();
            path.push(component);
            open.push((path, node));
        }
        n_children > 0
    };
    push(&mut open, &[], tree::ROOT);
    while let Some((path, node)) = open.pop() {
        let has_children = push(&mut open, &path, node);
        if let Some(name) = MailboxName::new(&path) {
            let is_subscribed = subscribed.remove(&name);
            let row = tree::load(rows, account, node);
            infos.push(info(rows, account, (name, row), (has_children, is_subscribed)));
        }
    }
    Ok(Answer::Mailboxes(infos, subscribed.into_iter().collect()))
}

pub(super) fn one(rows: &dyn Source, named: &NamedMailbox) -> Result<Answer, Refusal> {
    let account = named.account;
    super::readable(rows, account)?;
    let (node, row) = tree::find(rows, account, &named.name).ok_or(Refusal::NoSuchMailbox)?;
    let has_children = tree::has_children(rows, account, node);
    let is_subscribed = rows.row(&table::subscription(account, &named.name)).is_some();
    let of_name = (named.name.clone(), row);
    let mut info = info(rows, account, of_name, (has_children, is_subscribed));
    if info.selectable {
        let key = table::keywords(account, info.of.mailbox);
        let keywords: KeywordsRow = row::load(rows, &key).unwrap_or_default();
        info.keywords = keywords.keywords.into_iter().collect();
    }
    Ok(Answer::Mailbox(Box::new(info)))
}

/// Without keywords: those of all mailboxes may be ten times what an answer holds.
fn info(
    rows: &dyn Source,
    account: AccountId,
    (name, node): (MailboxName, NodeRow),
    (has_children, subscribed): (bool, bool),
) -> MailboxInfo {
    let row = node.mailbox.and_then(|mailbox| {
        let row: Option<MailboxRow> = row::load(rows, &table::mailbox(account, mailbox));
        row.map(|row| (mailbox, row))
    });
    let Some((mailbox, row)) = row else {
        return no_mailbox(account, name, (has_children, subscribed));
    };
    MailboxInfo {
        of: OfMailbox { account, mailbox },
        name,
        selectable: true,
        has_children,
        subscribed,
        special_use: row.special_use,
        uid_validity: row.uid_validity,
        uid_next: row.uid_next,
        highest_modseq: row.highest_modseq,
        n_messages: row.n_messages,
        n_unseen: row.n_unseen,
        n_deleted: row.n_deleted,
        n_recent: row.n_recent,
        first_recent: row.first_recent,
        size_bytes: row.size_bytes,
        deleted_bytes: row.deleted_bytes,
        keywords: Vec::new(),
    }
}

/// A name without a mailbox: its numbers mean nothing.
fn no_mailbox(
    account: AccountId,
    name: MailboxName,
    (has_children, subscribed): (bool, bool),
) -> MailboxInfo {
    MailboxInfo {
        of: OfMailbox { account, mailbox: MailboxId(0) },
        name,
        selectable: false,
        has_children,
        subscribed,
        special_use: None,
        uid_validity: UidValidity(std::num::NonZeroU32::MIN),
        uid_next: Uid::FIRST,
        highest_modseq: ModSeq::FIRST,
        n_messages: 0,
        n_unseen: 0,
        n_deleted: 0,
        n_recent: 0,
        first_recent: Uid::FIRST,
        size_bytes: 0,
        deleted_bytes: 0,
        keywords: Vec::new(),
    }
}

fn subscriptions(rows: &dyn Source, account: AccountId) -> BTreeSet<MailboxName> {
    let prefix = table::table(account, Table::Subscription);
    let mut names = BTreeSet::new();
    rows.scan(&prefix, &table::end_of(&prefix), &mut |key, _| {
        let joined = String::from_utf8_lossy(&key[prefix.len()..]);
        names.extend(MailboxName::parse(&joined, '\0'));
        true
    });
    names
}
