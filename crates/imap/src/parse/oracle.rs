//! imap-codec as the oracle: every command it can write is understood here, with the same meaning.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use arbitrary::{Arbitrary as _, Unstructured};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imap_codec::CommandCodec;
use imap_codec::encode::Encoder as _;
use imap_codec::imap_types as oracle;
use mailbox::command::InternalDate;
use mailbox::flags::Keyword;
use mailbox::query::{Compare, SortBy, SortField, ThreadBy};
use mailbox::{FlagChange, Flags, SearchKey, SystemFlags};
use oracle::command::{CommandBody, FetchModifier, SelectParameter, StoreModifier};
use oracle::core::AString;
use oracle::extensions::binary::LiteralOrLiteral8;
use oracle::extensions::enable::CapabilityEnable;
use oracle::extensions::thread::ThreadingAlgorithm;
use oracle::fetch::{
    Macro, MacroOrMessageDataItemNames, MessageDataItemName, Section as TheirSection,
};
use oracle::flag::{Flag, StoreResponse, StoreType};
use oracle::mailbox::{ListMailbox, Mailbox};
use oracle::search::SearchKey as TheirKey;
use oracle::sequence::{SeqOrUid, Sequence, SequenceSet};
use oracle::status::StatusDataItemName;
use proptest::prelude::*;

use super::*;
use crate::number_set::Number;
use crate::utf7;

/// What a command means here; `None` where one may be of another opinion, and says so below.
type Meaning<T> = Option<T>;

fn number(of: &SeqOrUid) -> Number {
    match of {
        SeqOrUid::Value(value) => Number::Is(value.get()),
        SeqOrUid::Asterisk => Number::Last,
    }
}

fn set(of: &SequenceSet) -> NumberSet {
    let range = |sequence: &Sequence| match sequence {
        Sequence::Single(one) => (number(one), number(one)),
        Sequence::Range(first, last) => (number(first), number(last)),
    };
    NumberSet::Ranges(of.0.as_ref().iter().map(range).collect())
}

/// A name that is not in modified UTF-7, or has an empty level, is no name here.
fn name(of: &Mailbox<'_>) -> Meaning<MailboxName> {
    match of {
        Mailbox::Inbox => Some(MailboxName::inbox()),
        Mailbox::Other(other) => MailboxName::parse(&utf7::decode(other.as_ref())?, '/'),
    }
}

fn given(of: &Mailbox<'_>, is_new: bool) -> Meaning<Given> {
    let name = match of {
        Mailbox::Other(other) if is_new => {
            // imap-codec knows nothing of RFC 9755.
            let text = utf7::decode(other.as_ref())?;
            let text = Some(text).filter(|text| !text.contains(['\u{2028}', '\u{2029}']))?;
            MailboxName::parse(text.strip_suffix('/').unwrap_or(&text), '/')?
        }
        of => name(of)?,
    };
    Some(Given { name, old_name: None })
}

/// What cannot be UTF-8 is not searched for.
fn text(of: &AString<'_>) -> Meaning<String> {
    String::from_utf8(of.as_ref().to_vec()).ok()
}

fn keyword(of: &str) -> Meaning<Keyword> {
    Keyword::new(of)
}

/// System flags nobody knows are refused.
fn flags(of: &[Flag<'_>]) -> Meaning<Flags> {
    let mut flags = Flags::default();
    for flag in of {
        let system = match flag {
            Flag::Answered => SystemFlags::ANSWERED,
            Flag::Deleted => SystemFlags::DELETED,
            Flag::Draft => SystemFlags::DRAFT,
            Flag::Flagged => SystemFlags::FLAGGED,
            Flag::Seen => SystemFlags::SEEN,
            Flag::Keyword(atom) => {
                flags.keywords.insert(keyword(atom.as_ref())?);
                continue;
            }
            Flag::Extension(_) => return None,
        };
        flags.system = SystemFlags(flags.system.0 | system.0);
    }
    Some(flags)
}

/// Days since 1970 of a date as chrono shows it.
fn day(of: &oracle::datetime::NaiveDate) -> i64 {
    let shown = format!("{of:?}");
    let parts: Vec<i64> = shown.split('-').map(|part| part.parse().expect("a number")).collect();
    let (year, month) =
        if parts[1] > 2 { (parts[0], parts[1] - 3) } else { (parts[0] - 1, parts[1] + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + parts[2] - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn all_of(keys: &[TheirKey<'_>]) -> Meaning<Key> {
    let mut keys = keys.iter().map(key).collect::<Meaning<Vec<_>>>()?;
    Some(if keys.len() == 1 { keys.remove(0) } else { Key::And(keys) })
}

fn key(of: &TheirKey<'_>) -> Meaning<Key> {
    use Compare::{AtLeast, Equal, Greater, Less};
    let flag = |flag| Key::Stored(SearchKey::Flag(flag));
    let not = |key| Key::Not(Box::new(key));
    let header =
        |name: &str, value| Some(Key::Stored(SearchKey::Header(name.into(), text(value)?)));
    let stored = |key| Some(Key::Stored(key));
    match of {
        TheirKey::And(keys) => all_of(keys.as_ref()),
        TheirKey::SequenceSet(of) => Some(Key::Sequence(set(of))),
        TheirKey::Uid(of) => Some(Key::Uid(set(of))),
        TheirKey::All => stored(SearchKey::All),
        TheirKey::Answered => Some(flag(SystemFlags::ANSWERED)),
        TheirKey::Deleted => Some(flag(SystemFlags::DELETED)),
        TheirKey::Draft => Some(flag(SystemFlags::DRAFT)),
        TheirKey::Flagged => Some(flag(SystemFlags::FLAGGED)),
        TheirKey::Seen => Some(flag(SystemFlags::SEEN)),
        TheirKey::Unanswered => Some(not(flag(SystemFlags::ANSWERED))),
        TheirKey::Undeleted => Some(not(flag(SystemFlags::DELETED))),
        TheirKey::Undraft => Some(not(flag(SystemFlags::DRAFT))),
        TheirKey::Unflagged => Some(not(flag(SystemFlags::FLAGGED))),
        TheirKey::Unseen => Some(not(flag(SystemFlags::SEEN))),
        TheirKey::New => Some(Key::And(vec![Key::Recent, not(flag(SystemFlags::SEEN))])),
        TheirKey::Old => Some(not(Key::Recent)),
        TheirKey::Recent => Some(Key::Recent),
        TheirKey::Bcc(value) => header("bcc", value),
        TheirKey::Cc(value) => header("cc", value),
        TheirKey::From(value) => header("from", value),
        TheirKey::Subject(value) => header("subject", value),
        TheirKey::To(value) => header("to", value),
        TheirKey::Header(name, value) => {
            Some(Key::Stored(SearchKey::Field(text(name)?, text(value)?)))
        }
        TheirKey::Body(value) => stored(SearchKey::Body(text(value)?)),
        TheirKey::Text(value) => stored(SearchKey::Text(text(value)?)),
        TheirKey::Before(date) => stored(SearchKey::InternalDate(Less, day(date))),
        TheirKey::On(date) => stored(SearchKey::InternalDate(Equal, day(date))),
        TheirKey::Since(date) => stored(SearchKey::InternalDate(AtLeast, day(date))),
        TheirKey::SentBefore(date) => stored(SearchKey::SentDate(Less, day(date))),
        TheirKey::SentOn(date) => stored(SearchKey::SentDate(Equal, day(date))),
        TheirKey::SentSince(date) => stored(SearchKey::SentDate(AtLeast, day(date))),
        TheirKey::Keyword(atom) => stored(SearchKey::Keyword(keyword(atom.as_ref())?)),
        TheirKey::Unkeyword(atom) => {
            stored(SearchKey::Not(Box::new(SearchKey::Keyword(keyword(atom.as_ref())?))))
        }
        TheirKey::Larger(size) => stored(SearchKey::Size(Greater, (*size).into())),
        TheirKey::Smaller(size) => stored(SearchKey::Size(Less, (*size).into())),
        TheirKey::Older(seconds) => Some(Key::Arrived(Less, seconds.get())),
        TheirKey::Younger(seconds) => Some(Key::Arrived(AtLeast, seconds.get())),
        TheirKey::Not(inner) => Some(not(key(inner)?)),
        TheirKey::Or(a, b) => {
            let mut alternatives = Vec::new();
            alternatives_of(a, &mut alternatives)?;
            alternatives_of(b, &mut alternatives)?;
            Some(super::search::any_of(alternatives))
        }
        TheirKey::ModSequence { modseq, .. } if *modseq < 1 << 63 => {
            stored(SearchKey::ModSeq(*modseq))
        }
        TheirKey::ModSequence { .. } => None,
    }
}

/// ORs in ORs are one.
fn alternatives_of(of: &TheirKey<'_>, alternatives: &mut Vec<Key>) -> Meaning<()> {
    if let TheirKey::Or(a, b) = of {
        alternatives_of(a, alternatives)?;
        return alternatives_of(b, alternatives);
    }
    alternatives.push(key(of)?);
    Some(())
}

fn has_modseq(of: &TheirKey<'_>) -> bool {
    match of {
        TheirKey::And(keys) => keys.as_ref().iter().any(has_modseq),
        TheirKey::Not(inner) => has_modseq(inner),
        TheirKey::Or(a, b) => has_modseq(a) || has_modseq(b),
        of => matches!(of, TheirKey::ModSequence { .. }),
    }
}

/// Texts in others have no meaning to compare here; transcripts have some.
fn knows(charset: &oracle::core::Charset<'_>) -> Meaning<()> {
    let known = ["UTF-8", "US-ASCII"];
    known.iter().any(|known| charset.as_ref().eq_ignore_ascii_case(known)).then_some(())
}

fn section(of: Option<&TheirSection<'_>>, partial: Option<(u32, u32)>, peek: bool) -> Section {
    let path =
        |part: &oracle::fetch::Part| part.0.as_ref().iter().map(|number| number.get()).collect();
    let maybe = |part: &Option<oracle::fetch::Part>| part.as_ref().map_or_else(Vec::new, path);
    let names = |names: &[AString<'_>]| {
        names.iter().map(|name| name.as_ref().to_ascii_lowercase()).collect()
    };
    let (path, text) = match of {
        None => (Vec::new(), Text::Whole),
        Some(TheirSection::Part(part)) => (path(part), Text::Whole),
        Some(TheirSection::Header(part)) => (maybe(part), Text::Header),
        Some(TheirSection::HeaderFields(part, fields)) => {
            (maybe(part), Text::HeaderFields(names(fields.as_ref())))
        }
        Some(TheirSection::HeaderFieldsNot(part, fields)) => {
            (maybe(part), Text::HeaderFieldsNot(names(fields.as_ref())))
        }
        Some(TheirSection::Text(part)) => (maybe(part), Text::Content),
        Some(TheirSection::Mime(part)) => (path(part), Text::Mime),
    };
    let partial = partial.map(|(first, n)| (first.into(), n.into()));
    // How a response names it is looked at where responses are.
    Section { label: String::new(), peek, part: Part { path, text }, partial }
}

fn item(of: &MessageDataItemName<'_>) -> Item {
    use MessageDataItemName as Name;
    let whole = |peek, text| {
        let part = Part { path: Vec::new(), text };
        Item::Section(Section { label: String::new(), peek, part, partial: None })
    };
    let part = |numbers: &[std::num::NonZeroU32]| {
        let numbers = oracle::core::Vec1::try_from(numbers.to_vec()).ok()?;
        Some(TheirSection::Part(oracle::fetch::Part(numbers)))
    };
    match of {
        Name::Body => Item::Structure { extended: false },
        Name::BodyStructure => Item::Structure { extended: true },
        Name::BodyExt { section: of, partial, peek } => {
            let partial = partial.map(|(first, n)| (first, n.get()));
            Item::Section(section(of.as_ref(), partial, *peek))
        }
        Name::Envelope => Item::Envelope,
        Name::Flags => Item::Flags,
        Name::InternalDate => Item::InternalDate,
        Name::Rfc822 => whole(false, Text::Whole),
        Name::Rfc822Header => whole(true, Text::Header),
        Name::Rfc822Text => whole(false, Text::Content),
        Name::Rfc822Size => Item::Size,
        Name::Uid => Item::Uid,
        Name::Binary { section: numbers, partial, peek } => {
            let partial = partial.map(|(first, n)| (first, n.get()));
            Item::Binary(section(part(numbers).as_ref(), partial, *peek))
        }
        Name::BinarySize { section: numbers } => {
            Item::BinarySize(section(part(numbers).as_ref(), None, true))
        }
        Name::ModSeq => Item::ModSeq,
    }
}

fn without_labels(items: &mut [Item]) {
    for item in items {
        if let Item::Section(section) | Item::Binary(section) | Item::BinarySize(section) = item {
            section.label.clear();
        }
    }
}

fn fetch(of: &CommandBody<'_>) -> Meaning<Command> {
    let CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } = of else {
        return None;
    };
    let mut items = match macro_or_item_names {
        MacroOrMessageDataItemNames::Macro(of) => {
            let mut items = vec![Item::Flags, Item::InternalDate, Item::Size];
            items.extend((!matches!(of, Macro::Fast)).then_some(Item::Envelope));
            let structure = Item::Structure { extended: false };
            items.extend(matches!(of, Macro::Full).then_some(structure));
            items
        }
        MacroOrMessageDataItemNames::MessageDataItemNames(names) => {
            let mut items: Vec<Item> = Vec::new();
            for item in names.iter().map(item) {
                // What is no section is told once.
                if item.is_section() || !items.contains(&item) {
                    items.push(item);
                }
            }
            items
        }
    };
    let (mut changed_since, mut vanished) = (None, false);
    for modifier in modifiers {
        match modifier {
            // A mod-sequence has 63 bits.
            FetchModifier::ChangedSince(modseq) if modseq.get() >= 1 << 63 => return None,
            FetchModifier::ChangedSince(modseq) => changed_since = Some(modseq.get()),
            FetchModifier::Vanished => vanished = true,
        }
    }
    // RFC 7162 3.2.6: only with both.
    if vanished && !(*uid && changed_since.is_some()) {
        return None;
    }
    // An empty list is not in the grammar.
    if items.is_empty() {
        return None;
    }
    if *uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    if changed_since.is_some() && !items.contains(&Item::ModSeq) {
        items.push(Item::ModSeq);
    }
    let (uid, set) = (*uid, set(sequence_set));
    Some(Command::Fetch(Fetch { uid, set, items, changed_since, vanished }))
}

fn store(of: &CommandBody<'_>) -> Meaning<Command> {
    let CommandBody::Store { sequence_set, kind, response, flags: of, uid, modifiers } = of else {
        return None;
    };
    let change = match kind {
        StoreType::Replace => FlagChange::Replace(flags(of)?),
        StoreType::Add => FlagChange::Add(flags(of)?),
        StoreType::Remove => FlagChange::Remove(flags(of)?),
    };
    let unchanged_since = modifiers.last().map(|StoreModifier::UnchangedSince(modseq)| *modseq);
    if modifiers.iter().any(|StoreModifier::UnchangedSince(modseq)| *modseq >= 1 << 63) {
        return None;
    }
    let silent = *response == StoreResponse::Silent;
    Some(Command::Store(Store {
        uid: *uid,
        set: set(sequence_set),
        change,
        silent,
        unchanged_since,
    }))
}

fn select(of: &Mailbox<'_>, parameters: &[SelectParameter], read_only: bool) -> Meaning<Command> {
    let given = Ok(given(of, false)?);
    let mut select = Select { given, read_only, condstore: false, qresync: None };
    for parameter in parameters {
        match parameter {
            SelectParameter::CondStore => select.condstore = true,
            // What matches numbers with UIDs is read for its form only.
            SelectParameter::QResync { uid_validity, mod_sequence_value, known_uids, .. } => {
                let (uid_validity, modseq) = (uid_validity.get(), mod_sequence_value.get());
                // A mod-sequence has 63 bits.
                if modseq >= 1 << 63 {
                    return None;
                }
                let known = known_uids.as_ref().map(set);
                select.qresync = Some(Resync { uid_validity, modseq, known });
            }
        }
    }
    Some(Command::Select(select))
}

/// APPEND up to its message.
fn append(of: &CommandBody<'_>) -> Meaning<AppendHead> {
    let CommandBody::Append { mailbox, flags: of, date, .. } = of else { return None };
    let internal_date = date.as_ref().map(|date| {
        let date = date.as_ref();
        let zone_minutes = (date.offset().local_minus_utc() / 60) as i16;
        InternalDate { unix_s: date.timestamp(), zone_minutes }
    });
    let message = MessageHead { flags: flags(of)?, internal_date, is_in_utf8: false };
    Some(AppendHead { replaces: None, mailbox: given(mailbox, false)?, message })
}

/// A mechanism that is no atom here cannot be asked for; what comes with it is kept in base64.
fn authenticate(of: &CommandBody<'_>) -> Meaning<Command> {
    let CommandBody::Authenticate { mechanism, initial_response } = of else { return None };
    let initial = initial_response.as_ref().map(|octets| match octets.declassify().as_ref() {
        [] => b"=".to_vec(),
        octets => STANDARD.encode(octets).into_bytes(),
    });
    let mechanism = mechanism.to_string().to_ascii_uppercase();
    Some(Command::Authenticate { mechanism, initial })
}

fn sort_field(of: &oracle::extensions::sort::SortKey) -> SortField {
    use oracle::extensions::sort::SortKey as Theirs;
    match of {
        Theirs::Arrival => SortField::Arrival,
        Theirs::Cc => SortField::Cc,
        Theirs::Date => SortField::Date,
        Theirs::From => SortField::From,
        Theirs::Size => SortField::Size,
        Theirs::Subject => SortField::Subject,
        Theirs::To => SortField::To,
        Theirs::DisplayFrom => SortField::DisplayFrom,
        Theirs::DisplayTo => SortField::DisplayTo,
    }
}

fn status_item(of: &StatusDataItemName) -> StatusItem {
    match of {
        StatusDataItemName::Messages => StatusItem::Messages,
        StatusDataItemName::Recent => StatusItem::Recent,
        StatusDataItemName::UidNext => StatusItem::UidNext,
        StatusDataItemName::UidValidity => StatusItem::UidValidity,
        StatusDataItemName::Unseen => StatusItem::Unseen,
        StatusDataItemName::Deleted => StatusItem::Deleted,
        StatusDataItemName::DeletedStorage => StatusItem::DeletedStorage,
        StatusDataItemName::Size => StatusItem::Size,
        StatusDataItemName::HighestModSeq => StatusItem::HighestModSeq,
    }
}

/// A reference and a pattern.
fn patterns(reference: &Mailbox<'_>, pattern: &ListMailbox<'_>) -> Meaning<(String, String)> {
    let pattern = match pattern {
        ListMailbox::Token(token) => token.as_ref(),
        ListMailbox::String(string) => string.as_ref(),
    };
    let reference = match reference {
        Mailbox::Inbox => return None,
        Mailbox::Other(other) => utf7::decode(other.as_ref())?,
    };
    Some((reference, utf7::decode(pattern)?))
}

fn search_like(of: &CommandBody<'_>) -> Meaning<Command> {
    match of {
        CommandBody::Search { charset, criteria, uid } => {
            charset.as_ref().map_or(Some(()), knows)?;
            let (key, with_modseq) =
                (all_of(criteria.as_ref())?, criteria.as_ref().iter().any(has_modseq));
            Some(Command::Search(Search {
                uid: *uid,
                returned: None,
                key,
                with_modseq,
                refused: None,
            }))
        }
        CommandBody::Sort { sort_criteria, charset, search_criteria, uid } => {
            knows(charset)?;
            let criteria = search_criteria.as_ref();
            let (key, with_modseq) = (all_of(criteria)?, criteria.iter().any(has_modseq));
            let by = |of: &oracle::extensions::sort::SortCriterion| SortBy {
                field: sort_field(&of.key),
                reverse: of.reverse,
            };
            let order = sort_criteria.as_ref().iter().map(by).collect::<Vec<_>>();
            let order = mailbox::query::deciding(&order);
            Some(Command::Sort(Sort { uid: *uid, order, key, with_modseq }))
        }
        CommandBody::Thread { algorithm, charset, search_criteria, uid } => {
            knows(charset)?;
            let by = match algorithm {
                ThreadingAlgorithm::OrderedSubject => ThreadBy::OrderedSubject,
                ThreadingAlgorithm::References => ThreadBy::References,
                ThreadingAlgorithm::Other(_) => return None,
            };
            Some(Command::Thread(Thread { uid: *uid, by, key: all_of(search_criteria.as_ref())? }))
        }
        _ => None,
    }
}

/// The same command, as it is read here.
fn meaning(of: &CommandBody<'_>) -> Meaning<Command> {
    Some(match of {
        CommandBody::Capability => Command::Capability,
        CommandBody::Noop => Command::Noop,
        CommandBody::Logout => Command::Logout,
        CommandBody::StartTLS => Command::StartTls,
        CommandBody::Check => Command::Check,
        CommandBody::Close => Command::Close,
        CommandBody::Unselect => Command::Unselect,
        CommandBody::Expunge => Command::Expunge(None),
        CommandBody::Idle => Command::Idle,
        CommandBody::Namespace => Command::Namespace,
        CommandBody::Compress { .. } => Command::Compress,
        // Nothing of their arguments is kept: an ID is read for its form, and SETQUOTA is refused.
        CommandBody::Id { .. } => Command::Id,
        CommandBody::SetQuota { .. } => Command::SetQuota,
        CommandBody::Authenticate { .. } => authenticate(of)?,
        CommandBody::Enable { capabilities } => {
            let name = |name: &CapabilityEnable<'_>| name.to_string().to_ascii_uppercase();
            Command::Enable(capabilities.as_ref().iter().map(name).collect())
        }
        CommandBody::ExpungeUid { sequence_set } => Command::Expunge(Some(set(sequence_set))),
        CommandBody::Login { username, password } => Command::Login {
            name: text(username)?,
            password: password.declassify().as_ref().to_vec(),
        },
        CommandBody::Select { mailbox, parameters } => select(mailbox, parameters, false)?,
        CommandBody::Examine { mailbox, parameters } => select(mailbox, parameters, true)?,
        CommandBody::Create { mailbox } => {
            Command::Create(Create { given: given(mailbox, true)?, special_use: None })
        }
        CommandBody::Delete { mailbox } => Command::Delete(given(mailbox, false)?),
        CommandBody::Rename { from, to } => {
            Command::Rename { from: given(from, false)?, to: given(to, true)? }
        }
        CommandBody::Subscribe { mailbox } => Command::Subscribe { name: name(mailbox)?, on: true },
        CommandBody::Unsubscribe { mailbox } => {
            Command::Subscribe { name: name(mailbox)?, on: false }
        }
        CommandBody::List { reference, mailbox_wildcard } => {
            let (reference, pattern) = patterns(reference, mailbox_wildcard)?;
            Command::List(List { reference, patterns: vec![pattern], ..List::default() })
        }
        CommandBody::Lsub { reference, mailbox_wildcard } => {
            let (reference, pattern) = patterns(reference, mailbox_wildcard)?;
            Command::Lsub(Lsub { reference, patterns: vec![pattern] })
        }
        CommandBody::Status { mailbox, item_names } if !item_names.is_empty() => {
            let mut items = Vec::new();
            for item in item_names.iter().map(status_item) {
                // Each is told once.
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            Command::Status(Status { name: name(mailbox)?, items })
        }
        CommandBody::Copy { sequence_set, mailbox, uid } => {
            Command::Copy { uid: *uid, set: set(sequence_set), to: name(mailbox)? }
        }
        CommandBody::Move { sequence_set, mailbox, uid } => {
            Command::Move { uid: *uid, set: set(sequence_set), to: name(mailbox)? }
        }
        CommandBody::GetQuota { root } => Command::GetQuota(text(root)?),
        CommandBody::GetQuotaRoot { mailbox } => Command::GetQuotaRoot(name(mailbox)?),
        CommandBody::Fetch { .. } => fetch(of)?,
        CommandBody::Store { .. } => store(of)?,
        _ => search_like(of)?,
    })
}

/// Octets that make many of the words a command is made of.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        8 => prop::sample::select(b"abcdefgzABCXYZ0123456789/.-_INBOX".to_vec()),
        1 => prop::sample::select(b" \"\\%*&()[]{}+,:~!$".to_vec()),
        3 => 0u8..=40,
        1 => any::<u8>(),
    ];
    prop::collection::vec(octet, 1..200)
}

fn command_of(octets: &[u8]) -> Option<oracle::command::Command<'_>> {
    let mut octets = Unstructured::new(octets);
    let mut body = CommandBody::arbitrary(&mut octets).ok()?;
    // Chance does not find a charset or an algorithm that is known.
    if let CommandBody::Sort { charset, .. } | CommandBody::Thread { charset, .. } = &mut body {
        *charset = oracle::core::Charset::try_from("utf-8").expect("a charset");
    }
    if let CommandBody::Thread { algorithm, .. } = &mut body {
        let known = [ThreadingAlgorithm::OrderedSubject, ThreadingAlgorithm::References];
        *algorithm = known[octets.len() % 2].clone();
    }
    // Nor what VANISHED needs.
    if let CommandBody::Fetch { uid, modifiers, .. } = &mut body
        && modifiers.contains(&FetchModifier::Vanished)
    {
        *uid = true;
        modifiers.push(FetchModifier::ChangedSince(NonZeroU64::MIN));
    }
    oracle::command::Command::new("a", body).ok()
}

/// QRESYNC and VANISHED are understood; nothing else is read in another way.
const ENABLED: Enabled = Enabled { condstore: false, qresync: true, utf8: false, rev2: false };

/// Checks one command; how it is written if it was compared.
fn compare(command: &oracle::command::Command<'_>) -> Result<Option<String>, TestCaseError> {
    let written = CommandCodec::default().encode(command).dump();
    let text = written.strip_prefix(b"a ").and_then(|text| text.strip_suffix(b"\r\n"));
    let text = text.expect("a tag and a line end");
    let shown = String::from_utf8_lossy(text).into_owned();
    if let CommandBody::Append { message, .. } = &command.body {
        return compare_append(&command.body, message, text, shown);
    }
    let Some(meaning) = meaning(&command.body) else { return Ok(None) };
    let mut read = super::command(text, &ENABLED, '/')
        .map_err(|fault| TestCaseError::fail(format!("{fault:?}: {shown}")))?;
    if let Command::Fetch(fetch) = &mut read {
        without_labels(&mut fetch.items);
    }
    prop_assert_eq!(read, meaning, "{}", shown);
    Ok(Some(shown))
}

/// A session reads APPEND up to the mark of its message.
fn compare_append(
    of: &CommandBody<'_>,
    message: &LiteralOrLiteral8<'_>,
    text: &[u8],
    shown: String,
) -> Result<Option<String>, TestCaseError> {
    let Some(meaning) = append(of) else { return Ok(None) };
    let (octets, is_binary) = match message {
        LiteralOrLiteral8::Literal(literal) => (literal.as_ref(), false),
        LiteralOrLiteral8::Literal8(literal) => (literal.data.as_ref(), true),
    };
    let line = text.strip_suffix(octets).and_then(|text| text.strip_suffix(b"\r\n"));
    let line = line.expect("a message behind a line");
    let mark = literal_mark(line).expect("a size").expect("a mark");
    prop_assert_eq!((mark.len, mark.is_binary), (octets.len() as u64, is_binary));
    let read = append_head(&line[..mark.start], &ENABLED, '/');
    prop_assert_eq!(read, Ok(Some(meaning)), "{}", shown);
    Ok(Some(shown))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_imap_codec_writes_is_read_with_its_meaning(octets in octets()) {
        if let Some(command) = command_of(&octets) {
            compare(&command)?;
        }
    }
}

/// Every command imap-codec can write, with words of those that mean something of their own.
const FORMS: [&str; 51] = [
    "CAPABILITY",
    "NOOP",
    "LOGOUT",
    "STARTTLS",
    "AUTHENTICATE",
    "LOGIN",
    "SELECT",
    "SELECT|(CONDSTORE",
    "SELECT|(QRESYNC",
    "EXAMINE",
    "UNSELECT",
    "CREATE",
    "DELETE",
    "RENAME",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "LIST",
    "LSUB",
    "STATUS",
    "APPEND",
    "APPEND| (",
    "APPEND| \"",
    "CHECK",
    "CLOSE",
    "EXPUNGE",
    "UID EXPUNGE",
    "SEARCH",
    "UID SEARCH",
    "SORT",
    "UID SORT",
    "THREAD",
    "UID THREAD",
    "FETCH",
    "UID FETCH",
    "FETCH|(CHANGEDSINCE",
    "UID FETCH|VANISHED",
    "STORE",
    "UID STORE",
    "STORE|(UNCHANGEDSINCE",
    "COPY",
    "UID COPY",
    "MOVE",
    "UID MOVE",
    "IDLE",
    "ENABLE",
    "COMPRESS",
    "GETQUOTA",
    "GETQUOTAROOT",
    "SETQUOTA",
    "ID",
    "NAMESPACE",
];
/// Chance has found them all long before.
const INPUTS_MAX: usize = 400_000;

/// A comparison that never happens finds nothing.
#[test]
fn every_verb_is_compared() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut missing: BTreeSet<&str> = FORMS.into_iter().collect();
    for n in 0.. {
        assert!(n < INPUTS_MAX, "never compared: {missing:?}");
        let octets = octets().new_tree(&mut runner).expect("octets").current();
        let Some(command) = command_of(&octets) else { continue };
        if let Some(shown) = compare(&command).expect("the same meaning") {
            let shown = format!("{shown} ");
            missing.retain(|form| {
                let (verb, word) = form.split_once('|').unwrap_or((form, ""));
                !(shown.starts_with(&format!("{verb} ")) && shown.contains(word))
            });
        }
        if missing.is_empty() {
            println!("all within {n} inputs");
            return;
        }
    }
}
