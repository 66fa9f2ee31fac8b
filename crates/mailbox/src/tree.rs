//! The tree of mailbox names. A node is a name; it may have a mailbox. Nodes refer to their parent,
//! so a whole subtree is renamed by writing one node.

use std::collections::BTreeMap;

use crate::command::SpecialUse;
use crate::ids::{AccountId, MailboxId, Uid, UidValidity};
use crate::ledger::Ledger;
use crate::name::{self, LEVELS_MAX, MailboxName};
use crate::outcome::Refusal;
use crate::row::{self, MailboxRow, NodeRow};
use crate::rows::Source;
use crate::table::{self, Fields, Table};

/// Limit: names in one account's tree, so that LIST stays one answer.
pub const NODES_MAX: u32 = 10_000;

/// Limit: octets of all names of one account, each with those above it. With as many of subscriptions and
/// what else is told of each name, LIST stays below the 16 MiB of an answer.
pub const NAMES_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Octets of a name that always fits: as many as there may be of them, and the longest name with those above
/// it, are no more than all may be. So nobody counts octets before there is a longer one.
pub(crate) const SHORT_NAME_BYTES: usize = 256;

/// The parent of top-level names.
pub(crate) const ROOT: u64 = 0;

/// The child of this name.
pub(crate) fn child(
    rows: &dyn Source,
    account: AccountId,
    parent: u64,
    component: &str,
) -> Option<u64> {
    row::load(rows, &table::name(account, parent, component))
}

/// The node of a name.
pub(crate) fn find(
    rows: &dyn Source,
    account: AccountId,
    name: &MailboxName,
) -> Option<(u64, NodeRow)> {
    let mut node = ROOT;
    for component in name.components() {
        node = child(rows, account, node, component)?;
    }
    Some((node, load(rows, account, node)))
}

/// Where messages go: the mailbox of this name if one is given, else the one of this id.
pub(crate) fn target(
    rows: &dyn Source,
    account: AccountId,
    id: MailboxId,
    name: Option<&MailboxName>,
) -> Result<MailboxId, Refusal> {
    let Some(name) = name else { return Ok(id) };
    let found = find(rows, account, name).and_then(|(_, node)| node.mailbox);
    found.ok_or(Refusal::NoSuchMailbox)
}

/// A node that is known to be there.
pub(crate) fn load(rows: &dyn Source, account: AccountId, node: u64) -> NodeRow {
    row::load(rows, &table::node(account, node)).expect("a node that is named has a row")
}

/// The children of a node by name, in order.
pub(crate) fn children(rows: &dyn Source, account: AccountId, node: u64) -> Vec<(String, u64)> {
    let prefix = table::names(account, node);
    let mut children = Vec::new();
    rows.scan(&prefix, &table::end_of(&prefix), &mut |key, value| {
        let component = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        children.push((component, row::read(value)));
        true
    });
    children
}

/// Whether names lie below a node.
pub(crate) fn has_children(rows: &dyn Source, account: AccountId, node: u64) -> bool {
    row::has_any(rows, &table::names(account, node))
}

/// What the names of an account amount to.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Octets of all of them.
    bytes: usize,
    /// Names in the subtree that was asked about, its first one included.
    n_names: usize,
    /// Levels of it.
    n_levels: usize,
    /// Octets of the longest name in it.
    longest_bytes: usize,
}

/// Looks at all names, in one scan, which costs less than one for each node.
pub(crate) fn survey(rows: &dyn Source, account: AccountId, subtree: u64) -> Survey {
    let prefix = table::table(account, Table::Name);
    let mut children: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
    rows.scan(&prefix, &table::end_of(&prefix), &mut |key, value| {
        let parent = Fields(key).u64(prefix.len());
        let component_bytes = key.len() - table::names(account, parent).len();
        children.entry(parent).or_default().push((row::read(value), component_bytes));
        true
    });
    let mut survey = Survey::default();
    // Each with the octets in front of its children, and its level in the subtree.
    let mut open = vec![(ROOT, 0, 0)];
    while let Some((node, bytes_before, level)) = open.pop() {
        for (child, component_bytes) in children.remove(&node).unwrap_or_default() {
            let bytes = bytes_before + component_bytes;
            let level = if child == subtree || level > 0 { level + 1 } else { 0 };
            survey.bytes += bytes;
            survey.n_names += usize::from(level > 0);
            survey.n_levels = survey.n_levels.max(level);
            let of_subtree = if level > 0 { bytes } else { 0 };
            survey.longest_bytes = survey.longest_bytes.max(of_subtree);
            open.push((child, bytes + 1, level));
        }
    }
    survey
}

impl Survey {
    /// Whether the subtree fits below a name of so many levels.
    pub(crate) fn check_depth(&self, levels_above: usize) -> Result<(), Refusal> {
        if levels_above + self.n_levels > LEVELS_MAX {
            return Err(Refusal::Limit("levels of a mailbox name".into()));
        }
        Ok(())
    }

    /// By how many octets all names of the subtree get longer, or shorter, when each does by so many.
    pub(crate) fn growth(&self, of_each: i64) -> i64 {
        of_each * self.n_names as i64
    }

    /// Whether a name of the subtree is short no more when each has so many octets more.
    pub(crate) fn outgrows(&self, of_each: i64) -> bool {
        self.longest_bytes as i64 + of_each > SHORT_NAME_BYTES as i64
    }
}

/// Whether all names together may have so many octets more.
pub(crate) fn check_bytes(ledger: &mut Ledger<'_, '_>, more: u64) -> Result<(), Refusal> {
    let bytes = match ledger.usage.names_bytes {
        Some(bytes) => bytes,
        // Only until a long name was let in: what is refused keeps nothing of what it found out.
        None => survey(ledger.rows, ledger.account, ROOT).bytes as u64,
    };
    ledger.usage.names_bytes = Some(bytes);
    if bytes + more > NAMES_BYTES_MAX as u64 {
        return Err(Refusal::Limit("octets of mailbox names".into()));
    }
    Ok(())
}

/// Names have come, gone or changed: all together have so many octets more, or less.
pub(crate) fn count_bytes(ledger: &mut Ledger<'_, '_>, change: i64) {
    if let Some(bytes) = &mut ledger.usage.names_bytes {
        *bytes = bytes.saturating_add_signed(change);
    }
}

/// Whether there may be a name of these components and those above it that are not there yet.
fn check_new(
    ledger: &mut Ledger<'_, '_>,
    components: &[String],
    n_known: usize,
) -> Result<(), Refusal> {
    if name::size_bytes(components) <= SHORT_NAME_BYTES {
        return Ok(());
    }
    let missing = n_known + 1..=components.len();
    let more: usize = missing.map(|n_levels| name::size_bytes(&components[..n_levels])).sum();
    check_bytes(ledger, more as u64)
}

/// Creates a mailbox and the parents it lacks, which become mailboxes too. A `\Noselect` name gets
/// a new mailbox.
pub(crate) fn create(
    ledger: &mut Ledger<'_, '_>,
    name: &MailboxName,
    special_use: Option<SpecialUse>,
) -> Result<MailboxId, Refusal> {
    let account = ledger.account;
    if matches!(special_use, Some(SpecialUse::All | SpecialUse::Flagged)) {
        return Err(Refusal::SpecialUse);
    }
    if let Some(special_use) = special_use
        && ledger.rows.row(&table::special_use(account, special_use)).is_some()
    {
        return Err(Refusal::SpecialUse);
    }
    let components = name.components();
    let mut node = ROOT;
    let mut n_known = 0;
    while let Some(next) =
        components.get(n_known).and_then(|part| child(ledger.rows, account, node, part))
    {
        node = next;
        n_known += 1;
    }
    let known = (n_known == components.len()).then(|| load(ledger.rows, account, node));
    if known.as_ref().is_some_and(|row| row.mailbox.is_some()) {
        let is_inbox = name.is_inbox();
        return Err(if is_inbox { Refusal::Inbox } else { Refusal::MailboxExists });
    }
    let n_missing = (components.len() - n_known) as u32;
    if ledger.usage.n_nodes + n_missing > NODES_MAX {
        return Err(Refusal::Limit("mailboxes".into()));
    }
    check_new(ledger, components, n_known)?;
    ledger.modseq()?;
    let validity = ledger.uid_validities(n_missing.max(1))?;
    if let Some(row) = known {
        return Ok(add_mailbox(ledger, (node, row), validity, special_use));
    }
    let mut validity = validity;
    let mut created = None;
    for (level, component) in components.iter().enumerate().skip(n_known) {
        let is_last = level + 1 == components.len();
        ledger.usage.node += 1;
        ledger.usage.n_nodes += 1;
        count_bytes(ledger, name::size_bytes(&components[..=level]) as i64);
        let parent = std::mem::replace(&mut node, ledger.usage.node);
        row::save(ledger.rows, table::name(account, parent, component), &node);
        let row = NodeRow { parent, component: component.clone(), mailbox: None };
        let special_use = special_use.filter(|_| is_last);
        created = Some(add_mailbox(ledger, (node, row), validity, special_use));
        validity = UidValidity(validity.0.saturating_add(1));
    }
    Ok(created.expect("a name that is not known lacks at least its last component"))
}

fn add_mailbox(
    ledger: &mut Ledger<'_, '_>,
    (node, mut row): (u64, NodeRow),
    uid_validity: UidValidity,
    special_use: Option<SpecialUse>,
) -> MailboxId {
    let account = ledger.account;
    ledger.usage.mailbox += 1;
    let id = MailboxId(ledger.usage.mailbox);
    row.mailbox = Some(id);
    row::save(ledger.rows, table::node(account, node), &row);
    if let Some(special_use) = special_use {
        row::save(ledger.rows, table::special_use(account, special_use), &id.0);
    }
    let highest_modseq = ledger.modseq().expect("the command has its mod-sequence");
    let mailbox = MailboxRow {
        node,
        uid_validity,
        uid_next: Uid::FIRST,
        highest_modseq,
        first_recent: Uid::FIRST,
        special_use,
        n_messages: 0,
        n_unseen: 0,
        n_deleted: 0,
        n_recent: 0,
        size_bytes: 0,
        expunge_floor: 0,
        deleted: false,
        n_extents: 0,
        deleted_bytes: 0,
    };
    ledger.insert_mailbox(id, mailbox);
    id
}

/// Creates the parents that a name lacks and gives the node it is to lie below.
pub(crate) fn create_parents(
    ledger: &mut Ledger<'_, '_>,
    name: &MailboxName,
) -> Result<u64, Refusal> {
    let Some(parent) = name.parent() else {
        return Ok(ROOT);
    };
    if find(ledger.rows, ledger.account, &parent).is_none() {
        create(ledger, &parent, None)?;
    }
    let (node, _) = find(ledger.rows, ledger.account, &parent).expect("it was just created");
    Ok(node)
}
