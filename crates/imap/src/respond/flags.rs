//! Flags as responses show them.

use std::collections::BTreeSet;

use mailbox::flags::Keyword;
use mailbox::{Flags, SystemFlags};

use crate::output::Output;

const SYSTEM: [(SystemFlags, &str); 5] = [
    (SystemFlags::ANSWERED, "\\Answered"),
    (SystemFlags::FLAGGED, "\\Flagged"),
    (SystemFlags::DELETED, "\\Deleted"),
    (SystemFlags::SEEN, "\\Seen"),
    (SystemFlags::DRAFT, "\\Draft"),
];

/// The flags of a message, without parentheses.
pub(crate) fn write(out: &mut Output, flags: &Flags, recent: bool) {
    let system = SYSTEM.iter().filter(|(flag, _)| flags.system.contains(*flag));
    let keywords = flags.keywords.iter().map(Keyword::as_str);
    let recent = recent.then_some("\\Recent");
    join(out, system.map(|(_, name)| *name).chain(keywords).chain(recent));
}

/// All flags a mailbox can have, without parentheses.
pub(crate) fn write_known(out: &mut Output, keywords: &BTreeSet<Keyword>) {
    let keywords = keywords.iter().map(Keyword::as_str);
    join(out, SYSTEM.iter().map(|(_, name)| *name).chain(keywords));
}

fn join<'a>(out: &mut Output, names: impl Iterator<Item = &'a str>) {
    for (i, name) in names.enumerate() {
        if i > 0 {
            out.text(" ");
        }
        out.text(name);
    }
}
