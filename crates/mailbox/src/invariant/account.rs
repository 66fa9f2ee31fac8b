//! The rows of one account.

use std::collections::{BTreeMap, BTreeSet};

use mime::{Metadata, Relations};

use super::{References, Verdict, all, ensure, refer, stagings};
use crate::command::{AccountState, OfMailbox};
use crate::content::thread_ids;
use crate::gaps;
use crate::ids::{AccountId, EmailId, MailboxId, Uid, UploadId};
use crate::message::Messages;
use crate::row::{
    self, AccountRow, ContentRow, ExtentRow, GoneRow, KeywordsRow, MailboxRow, NodeRow, ThreadRow,
    UsageRow,
};
use crate::rows::Source;
use crate::state::State;
use crate::table::{self, Fields, Table};

/// How many messages have a content.
type Contents = BTreeMap<EmailId, u32>;

pub(super) fn check(rows: &dyn Source, account: AccountId, references: &mut References) -> Verdict {
    let mut contents = BTreeMap::new();
    all(rows, &table::table(account, Table::Content), &mut |key, value| {
        let content: ContentRow = row::read(value);
        refer(references, account, &content.chunks);
        contents.insert(EmailId(Fields(key).u64(18)), content);
    });
    let row: AccountRow =
        row::load(rows, &table::account(account)).ok_or("rows of no account are left")?;
    if row.state == AccountState::Deleting {
        // Being reclaimed: what is left holds on to nothing but chunks.
        return Ok(());
    }
    let usage: UsageRow = row::load(rows, &table::usage(account)).unwrap_or_default();
    let mailboxes = check_tree(rows, account, &usage)?;
    let mut used = Contents::new();
    let (mut n_messages, mut storage_bytes) = (0, 0);
    for (id, row) in &mailboxes {
        let of = OfMailbox { account, mailbox: *id };
        check_mailbox(rows, of, (row, &usage), &mut used)
            .map_err(|wrong| format!("mailbox {}: {wrong}", id.0))?;
        if !row.deleted {
            n_messages += u64::from(row.n_messages);
            storage_bytes += row.size_bytes;
        }
    }
    ensure((n_messages, storage_bytes) == (usage.n_messages, usage.storage_bytes), || {
        format!("has {n_messages} messages of {storage_bytes} octets, counted {usage:?}")
    })?;
    check_staged(rows, account, &mailboxes, &mut used)?;
    check_contents(rows, account, &contents, &used)
}

/// Names, nodes, mailboxes and special uses belong together.
fn check_tree(
    rows: &dyn Source,
    account: AccountId,
    usage: &UsageRow,
) -> Result<BTreeMap<MailboxId, MailboxRow>, String> {
    let mut nodes: BTreeMap<u64, NodeRow> = BTreeMap::new();
    all(rows, &table::table(account, Table::Node), &mut |key, value| {
        nodes.insert(Fields(key).u64(18), row::read(value));
    });
    let mut names = BTreeSet::new();
    all(rows, &table::table(account, Table::Name), &mut |key, value| {
        let component = String::from_utf8_lossy(&key[26..]).into_owned();
        names.insert((Fields(key).u64(18), component, row::read::<u64>(value)));
    });
    let expected: BTreeSet<_> =
        nodes.iter().map(|(id, node)| (node.parent, node.component.clone(), *id)).collect();
    ensure(names == expected, || format!("names {names:?} are not those of nodes {nodes:?}"))?;
    let mut mailboxes: BTreeMap<MailboxId, MailboxRow> = BTreeMap::new();
    all(rows, &table::table(account, Table::Mailbox), &mut |key, value| {
        mailboxes.insert(MailboxId(Fields(key).u64(18)), row::read(value));
    });
    for (id, node) in &nodes {
        ensure(node.parent == 0 || nodes.contains_key(&node.parent), || "lost parent".into())?;
        if let Some(mailbox) = node.mailbox {
            let row = mailboxes.get(&mailbox).filter(|row| row.node == *id && !row.deleted);
            ensure(row.is_some(), || format!("node {id} has no mailbox {}", mailbox.0))?;
        }
    }
    let last_validity: u32 = row::load(rows, &table::uid_validity(account)).unwrap_or(0);
    for (id, row) in &mailboxes {
        let node = nodes.get(&row.node).and_then(|node| node.mailbox);
        ensure(row.deleted || node == Some(*id), || format!("mailbox {} has no name", id.0))?;
        ensure(row.uid_validity.0.get() <= last_validity, || "UIDVALIDITY not counted".into())?;
        ensure(id.0 <= usage.mailbox, || "mailbox id not counted".into())?;
        if let Some(special_use) = row.special_use {
            let has = row::load::<u64>(rows, &table::special_use(account, special_use));
            ensure(has == Some(id.0), || format!("{special_use:?} is another mailbox's"))?;
        }
    }
    let (mut n_subscriptions, mut subscriptions_bytes) = (0, 0);
    let prefix = table::table(account, Table::Subscription);
    all(rows, &prefix, &mut |key, _| {
        n_subscriptions += 1;
        subscriptions_bytes += (key.len() - prefix.len()) as u64;
    });
    let known = [usage.names_bytes, usage.subscriptions_bytes];
    let there = [names_bytes(&nodes), subscriptions_bytes];
    let is_known = known.iter().zip(&there).all(|(known, there)| known.is_none_or(|n| n == *there));
    ensure(is_known, || format!("names have {there:?} octets, counted {usage:?}"))?;
    let counted = (nodes.len() as u32, n_subscriptions);
    ensure(counted == (usage.n_nodes, usage.n_subscriptions), || {
        format!("has {counted:?} names and subscriptions, counted {usage:?}")
    })?;
    Ok(mailboxes)
}

/// Octets of all names, each with those above it.
fn names_bytes(nodes: &BTreeMap<u64, NodeRow>) -> u64 {
    let of_name = |node: &NodeRow| {
        let above = std::iter::successors(nodes.get(&node.parent), |node| nodes.get(&node.parent));
        let above: usize = above.map(|node| node.component.len() + 1).sum();
        (node.component.len() + above) as u64
    };
    nodes.values().map(of_name).sum()
}

fn check_mailbox(
    rows: &dyn Source,
    of: OfMailbox,
    (row, usage): (&MailboxRow, &UsageRow),
    used: &mut Contents,
) -> Verdict {
    let OfMailbox { account, mailbox } = of;
    let keywords: KeywordsRow =
        row::load(rows, &table::keywords(account, mailbox)).unwrap_or_default();
    let mut counted = MailboxRow {
        n_messages: 0,
        n_unseen: 0,
        n_deleted: 0,
        n_recent: 0,
        size_bytes: 0,
        deleted_bytes: 0,
        ..row.clone()
    };
    let mut index = BTreeSet::new();
    let mut live = BTreeSet::new();
    let mut verdict = Ok(());
    let messages = Messages::of(rows, of, row);
    messages.visit(rows, (Uid::FIRST, Uid::LAST), &mut |uid, raw| {
        let state = raw.read();
        counted.n_messages += 1;
        counted.n_unseen += u32::from(!state.is_seen());
        counted.n_deleted += u32::from(state.is_deleted());
        counted.n_recent += u32::from(uid >= row.first_recent);
        counted.size_bytes += state.size;
        counted.deleted_bytes += if state.is_deleted() { state.size } else { 0 };
        live.insert(uid);
        if !raw.is_staged() {
            *used.entry(state.email).or_default() += 1;
            index.insert((state.modseq, uid));
        }
        let is_sane = uid < row.uid_next
            && state.modseq <= row.highest_modseq.value()
            && state.flags.keywords.is_subset(&keywords.keywords);
        if !is_sane {
            verdict = Err(format!("UID {uid}: {state:?} is beyond {row:?}"));
        }
        true
    });
    verdict?;
    ensure(row.deleted || counted == *row, || format!("counted {row:?}, has {counted:?}"))?;
    ensure(row.highest_modseq.value() <= usage.modseq, || "MODSEQ beyond the counter".into())?;
    let in_index = by_modseq(rows, of, Table::Modseq);
    ensure(in_index == index, || format!("mod-sequences {in_index:?} are not {index:?}"))?;
    let present = gaps::present(rows, (of, row), Uid::FIRST, usize::MAX);
    let is_known = present.is_some_and(|(uids, _)| uids.iter().eq(live.iter().copied()));
    ensure(row.deleted || is_known, || "the gaps are not where no messages are".into())?;
    let mut gone = BTreeSet::new();
    let mut is_back = false;
    all(rows, &table::of_mailbox(account, Table::Gone, mailbox), &mut |key, value| {
        let row: GoneRow = row::read(value);
        *used.entry(row.state.email).or_default() += 1;
        is_back |= live.contains(&Fields(key).uid());
        gone.insert((row.modseq.value(), Fields(key).uid()));
    });
    ensure(!is_back, || "an expunged message is back".into())?;
    let log = by_modseq(rows, of, Table::Expunged);
    ensure(row.deleted || log == gone, || format!("expunge log {log:?} is not {gone:?}"))?;
    let highest = row.highest_modseq.value();
    ensure(log.iter().all(|(modseq, _)| *modseq <= highest), || "expunge log ahead".into())
}

fn by_modseq(rows: &dyn Source, of: OfMailbox, table: Table) -> BTreeSet<(u64, Uid)> {
    let mut index = BTreeSet::new();
    all(rows, &table::of_mailbox(of.account, table, of.mailbox), &mut |key, _| {
        index.insert((Fields(key).u64(26), Fields(key).uid()));
    });
    index
}

/// What is staged belongs to an unfinished COPY or to an extent.
fn check_staged(
    rows: &dyn Source,
    account: AccountId,
    mailboxes: &BTreeMap<MailboxId, MailboxRow>,
    used: &mut Contents,
) -> Verdict {
    let mut n_staged: BTreeMap<UploadId, u32> = BTreeMap::new();
    all(rows, &table::table(account, Table::Staged), &mut |key, value| {
        *n_staged.entry(UploadId(Fields(key).id(18))).or_default() += 1;
        *used.entry(State::read(value).email).or_default() += 1;
    });
    for (id, staging) in stagings(rows, account) {
        let n = n_staged.remove(&id).unwrap_or(0);
        let fits = n == staging.n_messages || (staging.dropped && n < staging.n_messages);
        ensure(fits, || format!("{n} staged, counted {staging:?}"))?;
    }
    let mut n_extents: BTreeMap<MailboxId, u32> = BTreeMap::new();
    all(rows, &table::table(account, Table::Extent), &mut |key, value| {
        let extent: ExtentRow = row::read(value);
        n_staged.remove(&extent.staging);
        *n_extents.entry(MailboxId(Fields(key).u64(18))).or_default() += 1;
    });
    ensure(n_staged.is_empty(), || format!("staged for nobody: {n_staged:?}"))?;
    for (id, row) in mailboxes {
        let n = n_extents.get(id).copied().unwrap_or(0);
        ensure(row.deleted || n == row.n_extents, || format!("mailbox {} extents", id.0))?;
    }
    Ok(())
}

fn check_contents(
    rows: &dyn Source,
    account: AccountId,
    contents: &BTreeMap<EmailId, ContentRow>,
    used: &Contents,
) -> Verdict {
    let counted: Contents =
        contents.iter().map(|(email, content)| (*email, content.n_references)).collect();
    ensure(counted == *used, || format!("contents are used {used:?}, counted {counted:?}"))?;
    let mut threads: BTreeMap<[u8; 16], u32> = BTreeMap::new();
    let mut n_metadata = 0;
    all(rows, &table::table(account, Table::Metadata), &mut |_, value| {
        n_metadata += 1;
        // Why whole: what cannot be read later is found here.
        let _: Metadata = row::read(value);
        let relations = Relations::of_metadata(value).expect("it was read");
        for id in thread_ids(&relations) {
            *threads.entry(id).or_default() += 1;
        }
    });
    ensure(n_metadata == contents.len(), || "contents and metadata differ".into())?;
    let mut counted = BTreeMap::new();
    all(rows, &table::table(account, Table::Thread), &mut |key, value| {
        counted.insert(Fields(key).id(18), row::read::<ThreadRow>(value).n_references);
    });
    ensure(counted == threads, || "the thread index does not match".into())
}
