//! LIST (RFC 9051 6.3.9, RFC 5258, 5819, 6154).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Bound;

use mailbox::command::SpecialUse;
use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxInfo, MailboxName, Query};

use super::patterns::Patterns;
use super::status;
use crate::context::Context;
use crate::parse::{Given, List};
use crate::respond;
use crate::work::{Ending, Next, Work, misplaced};

/// Lists mailboxes.
struct Listing {
    asked: Asked,
    /// Once the store told what there is.
    left: Option<Left>,
}

/// What is to be listed.
struct Asked {
    list: List,
    patterns: Patterns,
}

/// What is still to be told.
struct Left {
    infos: std::vec::IntoIter<MailboxInfo>,
    /// Subscribed names without a mailbox, in order.
    names: std::vec::IntoIter<MailboxName>,
    /// The last of them that was told, or is being told.
    before: Option<MailboxName>,
    /// What is left of that: it and names above it, of which it may have dozens.
    with_above: std::vec::IntoIter<MailboxName>,
    /// Names of mailboxes, where names above others are wanted.
    known: BTreeSet<MailboxName>,
    /// Of those that match, which may not get a line of their own: still to be looked at.
    unlisted: std::vec::IntoIter<MailboxName>,
    matches: Matches,
}

/// The names that the selection options select, as one LIST sees them; none if there are no options.
#[derive(Default)]
struct Matches {
    all: BTreeSet<MailboxName>,
    /// Those that do not get a line of their own.
    unlisted: BTreeSet<MailboxName>,
    /// RECURSIVEMATCH was given.
    with_child_info: bool,
}

impl Matches {
    /// RFC 5258 3.5: a name above a match is told with CHILDINFO; one that is no match itself only if
    /// there is something below it that is not listed as well.
    fn tells_of_names_below(&self, name: &MailboxName) -> bool {
        let matches = if self.all.contains(name) { &self.all } else { &self.unlisted };
        // Names below another one follow it.
        let behind = (Bound::Excluded(name), Bound::Unbounded);
        let mut behind = matches.range::<MailboxName, _>(behind);
        self.with_child_info && behind.next().is_some_and(|next| next.is_below(name))
    }
}

pub(super) fn begin(cx: &Context, list: List) -> Box<dyn Work> {
    let patterns = Patterns::new(&list.reference, &list.patterns, cx.config.separator);
    Box::new(Listing { asked: Asked { list, patterns }, left: None })
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

impl Asked {
    /// Whether the selection options select names at all.
    fn is_selective(&self) -> bool {
        self.list.select_subscribed || self.list.select_special_use
    }

    /// Whether they select names without a mailbox, which have no use.
    fn selects_names(&self) -> bool {
        self.list.select_subscribed && !self.list.select_special_use
    }

    fn selects(&self, info: &MailboxInfo) -> bool {
        (info.subscribed || !self.list.select_subscribed)
            && (info.special_use.is_some() || !self.list.select_special_use)
    }

    /// RFC 5258 3.5: names that match lie below.
    fn child_info(&self) -> &'static str {
        match (self.list.select_subscribed, self.list.select_special_use) {
            (true, true) => " (\"CHILDINFO\" (\"SUBSCRIBED\" \"SPECIAL-USE\"))",
            (false, true) => " (\"CHILDINFO\" (\"SPECIAL-USE\"))",
            _ => " (\"CHILDINFO\" (\"SUBSCRIBED\"))",
        }
    }

    fn left(&self, infos: Vec<MailboxInfo>, names: Vec<MailboxName>) -> Left {
        let names = if self.selects_names() { names } else { Vec::new() };
        let matches = self.matches(&infos, &names);
        let is_recursive = self.list.recursive_match;
        let known = infos.iter().filter(|_| is_recursive).map(|info| info.name.clone());
        let known = known.collect();
        let unlisted: Vec<_> = matches.all.iter().filter(|_| is_recursive).cloned().collect();
        let (infos, names) = (infos.into_iter(), names.into_iter());
        let (unlisted, with_above) = (unlisted.into_iter(), Vec::new().into_iter());
        Left { infos, names, before: None, with_above, known, unlisted, matches }
    }

    fn matches(&self, infos: &[MailboxInfo], names: &[MailboxName]) -> Matches {
        let with_child_info = self.list.recursive_match;
        let mut matches = Matches { with_child_info, ..Matches::default() };
        if self.is_selective() {
            let mailboxes = infos.iter().filter(|info| self.selects(info)).map(|info| &info.name);
            matches.all = mailboxes.chain(names).cloned().collect();
        }
        matches
    }

    fn tell_mailbox(&self, cx: &mut Context, info: &MailboxInfo, matches: &Matches) {
        if !self.patterns.match_name(&info.name) {
            return;
        }
        let child_info = matches.tells_of_names_below(&info.name);
        let is_selected = self.selects(info);
        if is_selected || child_info {
            self.write_mailbox(cx, info, child_info);
        }
        // RFC 9051 6.3.9.2: not of a mailbox that is listed for those below it.
        if is_selected && !self.list.return_status.is_empty() && info.selectable {
            status::write(cx, info, &self.list.return_status);
        }
    }

    /// A name without a mailbox.
    fn tell_name(&self, cx: &mut Context, name: &MailboxName, matches: &Matches) {
        let is_subscribed = matches.all.contains(name);
        let child_info = matches.tells_of_names_below(name);
        if !self.patterns.match_name(name) || !(is_subscribed || child_info) {
            return;
        }
        let subscribed = if is_subscribed { " \\Subscribed" } else { "" };
        // RFC 9051 6.3.9.5. Why never the other: above each mailbox is one, if only a \Noselect one.
        let _ = write!(cx.out, "* LIST (\\HasNoChildren \\NonExistent{subscribed}) ");
        write_name(cx, name);
        cx.out.text(if child_info { self.child_info() } else { "" });
        cx.out.text("\r\n");
    }

    /// A name and, where wanted, those above it that are not above the one before as well.
    fn with_names_above(
        &self,
        name: &MailboxName,
        before: Option<&MailboxName>,
        known: &BTreeSet<MailboxName>,
    ) -> Vec<MailboxName> {
        let mut names = vec![name.clone()];
        let mut above = name.parent().filter(|_| self.list.recursive_match);
        while let Some(name) = above {
            if before.is_some_and(|before| *before == name || before.is_below(&name)) {
                break;
            }
            above = name.parent();
            if !known.contains(&name) {
                names.push(name);
            }
        }
        names.reverse();
        names
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
        cx.out.text(if child_info { self.child_info() } else { "" });
        cx.out.text("\r\n");
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

/// RFC 9051 6.3.4 to 6.3.6, 6.3.9.7, 6.3.12: the client is told by what name it finds what it named in
/// another form, or would have found it.
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

impl Listing {
    fn tell(&mut self, cx: &mut Context) -> Next {
        let Self { asked, left: Some(left) } = self else { return misplaced() };
        for name in left.unlisted.by_ref() {
            if !asked.patterns.match_name(&name) {
                left.matches.unlisted.insert(name);
            }
            if asked.patterns.need_rest() {
                return Next::Yield;
            }
        }
        for info in left.infos.by_ref() {
            asked.tell_mailbox(cx, &info, &left.matches);
            if cx.out.is_full() {
                return Next::More;
            }
            if asked.patterns.need_rest() {
                return Next::Yield;
            }
        }
        loop {
            for name in left.with_above.by_ref() {
                asked.tell_name(cx, &name, &left.matches);
                if cx.out.is_full() {
                    return Next::More;
                }
                if asked.patterns.need_rest() {
                    return Next::Yield;
                }
            }
            let Some(name) = left.names.next() else { return Next::Done(Ending::ok("done")) };
            let names = asked.with_names_above(&name, left.before.as_ref(), &left.known);
            (left.with_above, left.before) = (names.into_iter(), Some(name));
        }
    }
}

impl Work for Listing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None if self.left.is_some() => self.tell(cx),
            None if !self.asked.list.is_extended && self.asked.list.patterns == [""] => {
                // RFC 9051 6.3.9: asks for the separator and the root of the reference.
                let separator = cx.config.separator;
                let _ = write!(cx.out, "* LIST (\\Noselect) \"{separator}\" \"\"\r\n");
                Next::Done(Ending::ok("done"))
            }
            None if self.asked.patterns.is_empty() => Next::Done(Ending::ok("done")),
            None => Next::Ask(Question::Query(Query::Mailboxes(cx.account()))),
            Some(Reply::Answer(Answer::Mailboxes(infos, names))) => {
                self.left = Some(self.asked.left(infos, names));
                self.tell(cx)
            }
            _ => misplaced(),
        }
    }
}
