//! LIST (RFC 9051 6.3.9, RFC 5258, 5819, 6154).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mailbox::command::SpecialUse;
use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxInfo, MailboxName, Query};

use super::status;
use crate::context::Context;
use crate::parse::{Given, List};
use crate::respond;
use crate::work::{Ending, Next, Work, misplaced};

/// RFC 5258 3.5: names that match lie below.
const CHILD_INFO: &str = " (\"CHILDINFO\" (\"SUBSCRIBED\"))";

/// Lists mailboxes.
pub(super) struct Listing {
    list: List,
}

/// What an account is subscribed to, as one LIST sees it.
struct Subscriptions<'a> {
    all: BTreeSet<&'a MailboxName>,
    /// Those that do not get a line of their own.
    unlisted: BTreeSet<&'a MailboxName>,
    /// RECURSIVEMATCH was given.
    with_child_info: bool,
}

impl Subscriptions<'_> {
    /// RFC 5258 3.5: a name above a match is told with CHILDINFO; one that is no match itself only if
    /// there is something below it that is not listed as well.
    fn tells_of_names_below(&self, name: &MailboxName) -> bool {
        let matches = if self.all.contains(name) { &self.all } else { &self.unlisted };
        self.with_child_info && matches.iter().any(|below| below.is_below(name))
    }
}

/// Whether a name matches a pattern: `*` is anything, `%` anything but the separator.
pub(super) fn matches(pattern: &[char], name: &[char], separator: char) -> bool {
    // Which prefixes of the name the pattern so far matches; linear in pattern times name.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for &wanted in pattern {
        match wanted {
            '*' | '%' => {
                for at in 0..name.len() {
                    let passes = wanted == '*' || name[at] != separator;
                    reached[at + 1] |= reached[at] && passes;
                }
            }
            _ => {
                for at in (0..name.len()).rev() {
                    reached[at + 1] = reached[at] && name[at] == wanted;
                }
                reached[0] = false;
            }
        }
    }
    reached[name.len()]
}

/// The patterns of a LIST, ready to match.
pub(super) struct Patterns {
    patterns: Vec<Vec<char>>,
    separator: char,
}

impl Patterns {
    pub(super) fn new(reference: &str, patterns: &[String], separator: char) -> Self {
        let whole = |pattern: &String| {
            // Why composed: names are, and whoever created one decomposed finds it by what it said.
            let text = MailboxName::compose(&format!("{reference}{pattern}"));
            fold_inbox(&text, separator).chars().collect()
        };
        Self { patterns: patterns.iter().map(whole).collect(), separator }
    }

    pub(super) fn match_name(&self, name: &MailboxName) -> bool {
        let name: Vec<char> = name.join(self.separator).chars().collect();
        self.patterns.iter().any(|pattern| matches(pattern, &name, self.separator))
    }
}

/// INBOX in a pattern is matched in any case (RFC 9051 5.1).
fn fold_inbox(pattern: &str, separator: char) -> String {
    let end = pattern.find([separator, '*', '%']).unwrap_or(pattern.len());
    if pattern[..end].eq_ignore_ascii_case("INBOX") {
        return format!("INBOX{}", &pattern[end..]);
    }
    pattern.to_owned()
}

fn special_use(of: SpecialUse) -> &'static str {
    match of {
        SpecialUse::All => "\\All",
        SpecialUse::Archive => "\\Archive",
        SpecialUse::Drafts => "\\Drafts",
        SpecialUse::Flagged => "\\Flagged",
        SpecialUse::Junk => "\\Junk",
        SpecialUse::Sent => "\\Sent",
        SpecialUse::Trash => "\\Trash",
    }
}

impl Listing {
    pub(super) fn new(list: List) -> Self {
        Self { list }
    }

    fn respond(&self, cx: &mut Context, infos: &[MailboxInfo], only_subscribed: &[MailboxName]) {
        let separator = cx.config.separator;
        let patterns = Patterns::new(&self.list.reference, &self.list.patterns, separator);
        let subscriptions = self.subscriptions(infos, only_subscribed, &patterns);
        for info in infos.iter().filter(|info| patterns.match_name(&info.name)) {
            let by_subscription = !self.list.select_subscribed || info.subscribed;
            let child_info = subscriptions.tells_of_names_below(&info.name);
            if self.is_of_use(info) && (by_subscription || child_info) {
                self.write_mailbox(cx, info, child_info);
            }
        }
        if self.list.select_subscribed && !self.list.select_special_use {
            let known: BTreeSet<&MailboxName> = infos.iter().map(|info| &info.name).collect();
            for name in self.absent(only_subscribed, &known) {
                let is_subscribed = subscriptions.all.contains(&name);
                let child_info = subscriptions.tells_of_names_below(&name);
                if !patterns.match_name(&name) || !(is_subscribed || child_info) {
                    continue;
                }
                let subscribed = if is_subscribed { " \\Subscribed" } else { "" };
                let _ = write!(cx.out, "* LIST (\\NonExistent{subscribed}) ");
                write_name(cx, &name);
                cx.out.text(if child_info { CHILD_INFO } else { "" });
                cx.out.text("\r\n");
            }
        }
    }

    fn is_of_use(&self, info: &MailboxInfo) -> bool {
        !self.list.select_special_use || info.special_use.is_some()
    }

    fn subscriptions<'a>(
        &self,
        infos: &'a [MailboxInfo],
        only_subscribed: &'a [MailboxName],
        patterns: &Patterns,
    ) -> Subscriptions<'a> {
        let mut subscriptions = Subscriptions {
            all: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            with_child_info: self.list.recursive_match && self.list.select_subscribed,
        };
        let mailboxes = infos.iter().filter(|info| info.subscribed);
        let mailboxes = mailboxes.map(|info| (&info.name, self.is_of_use(info)));
        let others = only_subscribed.iter().map(|name| (name, !self.list.select_special_use));
        for (name, is_of_use) in mailboxes.chain(others) {
            subscriptions.all.insert(name);
            if !is_of_use || !patterns.match_name(name) {
                subscriptions.unlisted.insert(name);
            }
        }
        subscriptions
    }

    /// Subscribed names without a mailbox and, where wanted, names above them.
    fn absent(
        &self,
        subscribed: &[MailboxName],
        known: &BTreeSet<&MailboxName>,
    ) -> BTreeSet<MailboxName> {
        let mut absent = BTreeSet::new();
        for name in subscribed {
            absent.insert(name.clone());
            let mut above = name.parent().filter(|_| self.list.recursive_match);
            while let Some(name) = above {
                above = name.parent();
                if !known.contains(&name) {
                    absent.insert(name);
                }
            }
        }
        absent
    }

    fn write_mailbox(&self, cx: &mut Context, info: &MailboxInfo, child_info: bool) {
        cx.out.text("* LIST (");
        let mut flags = vec![if info.has_children { "\\HasChildren" } else { "\\HasNoChildren" }];
        if !info.selectable {
            flags.push("\\Noselect");
        }
        let tells_subscription = self.list.select_subscribed || self.list.return_subscribed;
        if tells_subscription && info.subscribed {
            flags.push("\\Subscribed");
        }
        flags.extend(info.special_use.map(special_use));
        cx.out.text(&flags.join(" "));
        cx.out.text(") ");
        write_name(cx, &info.name);
        if child_info {
            cx.out.text(CHILD_INFO);
        }
        cx.out.text("\r\n");
        if !self.list.return_status.is_empty() && info.selectable {
            status::write(cx, info, &self.list.return_status);
        }
    }
}

/// RFC 9051 6.3.2: a SELECT tells what LIST would, and the name as it was given if that is another.
pub(super) fn write_selected(cx: &mut Context, info: &MailboxInfo, given: &Given) {
    if !cx.enabled.rev2 {
        return;
    }
    cx.out.text("* LIST (");
    cx.out.text(if info.has_children { "\\HasChildren" } else { "\\HasNoChildren" });
    cx.out.text(if info.subscribed { " \\Subscribed" } else { "" });
    if let Some(of) = info.special_use {
        let _ = write!(cx.out, " {}", special_use(of));
    }
    cx.out.text(") ");
    write_name(cx, &info.name);
    write_old(cx, given);
    cx.out.text("\r\n");
}

/// RFC 9051 6.3.4 to 6.3.6, 6.3.9.7: the client is told by what name it finds what it named in another form,
/// or would have found it.
pub(super) fn write_old_name(cx: &mut Context, given: &Given, attribute: &str) {
    if given.old_name.is_some() {
        let _ = write!(cx.out, "* LIST ({attribute}) ");
        write_name(cx, &given.name);
        write_old(cx, given);
        cx.out.text("\r\n");
    }
}

/// RFC 9051 6.3.9.7
fn write_old(cx: &mut Context, given: &Given) {
    if let Some(old) = &given.old_name {
        cx.out.text(" (\"OLDNAME\" (");
        respond::joined_name(cx, old);
        cx.out.text("))");
    }
}

/// The separator and the name.
pub(super) fn write_name(cx: &mut Context, name: &MailboxName) {
    let separator = cx.config.separator;
    let _ = write!(cx.out, "\"{separator}\" ");
    respond::mailbox(cx, name);
}

impl Work for Listing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None if !self.list.is_extended && self.list.patterns == [""] => {
                // RFC 9051 6.3.9: asks for the separator and the root of the reference.
                let separator = cx.config.separator;
                let _ = write!(cx.out, "* LIST (\\Noselect) \"{separator}\" \"\"\r\n");
                Next::Done(Ending::ok("done"))
            }
            None => Next::Ask(Question::Query(Query::Mailboxes(cx.account()))),
            Some(Reply::Answer(Answer::Mailboxes(infos, names))) => {
                self.respond(cx, &infos, &names);
                Next::Done(Ending::ok("done"))
            }
            _ => misplaced(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        let pattern = fold_inbox(pattern, '/');
        let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
        matches(&pattern, &name, '/')
    }

    #[test]
    fn wildcards() {
        for (pattern, name, wanted) in [
            ("*", "a/b", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("%/%", "a/b", true),
            ("a/%", "a/b", true),
            ("a/%", "a", false),
            ("a%", "a/b", false),
            ("a*", "a/b", true),
            ("*b", "a/b", true),
            ("%b", "a/b", false),
            ("inbox", "INBOX", true),
            ("inbox/%", "INBOX/x", true),
            ("inBox%", "INBOX", true),
            ("", "a", false),
            ("a", "", false),
            ("**%%**", "a/b/c", true),
            ("ä%", "äö", true),
        ] {
            assert_eq!(is_match(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
