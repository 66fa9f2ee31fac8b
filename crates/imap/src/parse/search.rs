//! SEARCH (RFC 9051 6.4.4, RFC 7162 3.1.5, RFC 5032, RFC 8474 6, RFC 8514 4.3).

use mailbox::flags::Keyword;
use mailbox::query::{Compare, SEARCH_KEYS_MAX, SEARCH_TEXTS_MAX};
use mailbox::{EmailId, SearchKey, SystemFlags, ThreadId, UidSet};

use super::cursor::{Cursor, Fault, Parsed};
use crate::date;
use crate::limits::KEY_DEPTH_MAX;
use crate::number_set::NumberSet;

/// RFC 9051 7.1: with the two that every client can write; we read many others.
const BAD_CHARSET: &str = "BADCHARSET (US-ASCII UTF-8)";

/// SEARCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) uid: bool,
    /// `RETURN`: the answer is ESEARCH (RFC 4731).
    pub(crate) returned: Option<Returned>,
    pub(crate) key: Key,
    /// Whether MODSEQ was among the keys.
    pub(crate) with_modseq: bool,
    /// The charset is not known or not the one of the keys: they cannot be read.
    pub(crate) refused: Option<Fault>,
}

/// What SEARCH RETURN wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) min: bool,
    pub(crate) max: bool,
    pub(crate) all: bool,
    pub(crate) count: bool,
    /// RFC 5182: `$` stands for it from now on.
    pub(crate) save: bool,
}

/// A search key; what depends on the session is not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The store's own.
    Stored(SearchKey),
    Sequence(NumberSet),
    Uid(NumberSet),
    Recent,
    /// Seconds before now.
    Arrived(Compare, u32),
    And(Vec<Key>),
    Or(Box<Key>, Box<Key>),
    Not(Box<Key>),
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Search> {
    let mut returned = None;
    if cursor.eat_word("RETURN") {
        cursor.space()?;
        returned = Some(parse_returned(cursor)?);
        cursor.space()?;
    }
    if cursor.eat_word("CHARSET") {
        // RFC 9755 3: there is nothing to choose any more.
        if cursor.is_utf8_enabled() {
            return Err(Fault::Bad("no CHARSET with UTF8=ACCEPT"));
        }
        cursor.space()?;
        if let Err(fault) = charset(cursor) {
            return refuse(cursor, uid, returned, fault);
        }
        cursor.space()?;
    }
    let (key, with_modseq) = match keys(cursor) {
        Ok(keys) => keys,
        Err(fault) => return refuse(cursor, uid, returned, fault),
    };
    if cursor.is_rev2_enabled() {
        // RFC 9051 6.4.4: without RETURN it is RETURN (ALL).
        returned.get_or_insert(Returned { all: true, ..Returned::default() });
    }
    Ok(Search { uid, returned, key, with_modseq, refused: None })
}

/// Why not at once: with NO, what was saved goes as well.
fn refuse(
    cursor: &mut Cursor<'_>,
    uid: bool,
    returned: Option<Returned>,
    fault: Fault,
) -> Parsed<Search> {
    if let Fault::Bad(_) = fault {
        return Err(fault);
    }
    cursor.rest();
    let key = Key::Stored(SearchKey::All);
    Ok(Search { uid, returned, key, with_modseq: false, refused: Some(fault) })
}

/// The name of a charset we know, which what is looked for is in.
pub(super) fn charset(cursor: &mut Cursor<'_>) -> Parsed<()> {
    let charset = cursor.text()?;
    let unknown = Fault::No(BAD_CHARSET, "unknown charset");
    if cursor.set_charset(&charset) { Ok(()) } else { Err(unknown) }
}

/// The keys read so far.
#[derive(Default)]
struct Read {
    with_modseq: bool,
    /// As the store counts them.
    n_keys: usize,
    n_texts: usize,
}

impl Read {
    /// So many keys more, of which so many look for texts in all of a message.
    fn add(&mut self, n_keys: usize, n_texts: usize) -> Parsed<()> {
        self.n_keys += n_keys;
        self.n_texts += n_texts;
        match self.n_keys > SEARCH_KEYS_MAX || self.n_texts > SEARCH_TEXTS_MAX {
            true => Err(Fault::No("LIMIT", "too many search keys")),
            false => Ok(()),
        }
    }
}

/// All keys up to the end, and whether MODSEQ was among them.
pub(super) fn keys(cursor: &mut Cursor<'_>) -> Parsed<(Key, bool)> {
    let mut read = Read::default();
    let mut keys = vec![key(cursor, &mut read)?];
    while cursor.goes_on() {
        keys.push(key(cursor, &mut read)?);
    }
    let all = all_of(keys);
    match depth(&all) > KEY_DEPTH_MAX {
        true => Err(Fault::Bad("nested too deep")),
        false => Ok((all, read.with_modseq)),
    }
}

/// Keys inside each other, the outermost included.
fn depth(key: &Key) -> usize {
    1 + match key {
        Key::And(keys) => keys.iter().map(depth).max().unwrap_or(0),
        Key::Or(a, b) => depth(a).max(depth(b)),
        Key::Not(key) => depth(key),
        _ => 0,
    }
}

fn parse_returned(cursor: &mut Cursor<'_>) -> Parsed<Returned> {
    let mut returned = Returned::default();
    cursor.list(|cursor| {
        match cursor.word("return option expected")?.as_str() {
            "MIN" => returned.min = true,
            "MAX" => returned.max = true,
            "ALL" => returned.all = true,
            "COUNT" => returned.count = true,
            "SAVE" => returned.save = true,
            _ => return Err(Fault::Bad("unknown return option")),
        }
        Ok(())
    })?;
    // RFC 4731 3.1: an empty list is ALL.
    returned.all |= returned == Returned::default();
    Ok(returned)
}

fn all_of(mut keys: Vec<Key>) -> Key {
    if keys.len() == 1 { keys.remove(0) } else { Key::And(keys) }
}

/// The keys of which one has to match.
fn alternatives_of(key: Key) -> Vec<Key> {
    let (mut alternatives, mut left) = (Vec::new(), vec![key]);
    while let Some(key) = left.pop() {
        match key {
            Key::Or(first, second) => left.extend([*second, *first]),
            other => alternatives.push(other),
        }
    }
    alternatives
}

/// One of at least one key, as flat as can be.
pub(super) fn any_of(mut keys: Vec<Key>) -> Key {
    if keys.len() == 1 {
        return keys.remove(0);
    }
    let others = keys.split_off(keys.len() / 2);
    Key::Or(Box::new(any_of(keys)), Box::new(any_of(others)))
}

fn flag(flag: SystemFlags) -> Key {
    Key::Stored(SearchKey::Flag(flag))
}

fn not(key: Key) -> Key {
    Key::Not(Box::new(key))
}

fn key(cursor: &mut Cursor<'_>, read: &mut Read) -> Parsed<Key> {
    match cursor.peek() {
        Some(b'(') => {
            cursor.enter()?;
            let keys = cursor.list(|cursor| key(cursor, read))?;
            cursor.leave();
            if keys.is_empty() {
                return Err(Fault::Bad("search key expected"));
            }
            return Ok(all_of(keys));
        }
        Some(b'0'..=b'9' | b'*' | b'$') => {
            read.add(1, 0)?;
            return Ok(Key::Sequence(cursor.number_set()?));
        }
        _ => {}
    }
    let word = cursor.word("search key expected")?;
    // RFC 9051 E 15: these keys are gone with \Recent.
    let is_gone = cursor.is_rev2_enabled() && ["RECENT", "OLD", "NEW"].contains(&word.as_str());
    if let Some(key) = bare_key(&word).filter(|_| !is_gone) {
        read.add(if word == "NEW" { 2 } else { 1 }, 0)?;
        return Ok(key);
    }
    match word.as_str() {
        "NOT" => {
            cursor.space()?;
            cursor.enter()?;
            let inner = key(cursor, read)?;
            cursor.leave();
            return Ok(not(inner));
        }
        "OR" => {
            cursor.enter()?;
            // Why all at once: clients that look for a hundred messages by their ids put each OR into the one
            // before it, which is no deeper than one with a hundred alternatives.
            let (mut alternatives, mut n_missing) = (Vec::new(), 2);
            while n_missing > 0 {
                cursor.space()?;
                if cursor.eat_word("OR") {
                    n_missing += 1;
                } else {
                    // Thunderbird puts each OR into parentheses.
                    alternatives.extend(alternatives_of(key(cursor, read)?));
                    n_missing -= 1;
                }
            }
            cursor.leave();
            return Ok(any_of(alternatives));
        }
        "MODSEQ" => {
            read.with_modseq = true;
            read.add(1, 0)?;
            cursor.space()?;
            return modseq(cursor);
        }
        _ => {}
    }
    read.add(1, usize::from(["BODY", "TEXT"].contains(&word.as_str())))?;
    argument_key(cursor, &word)
}

fn bare_key(word: &str) -> Option<Key> {
    Some(match word {
        "ALL" => Key::Stored(SearchKey::All),
        "ANSWERED" => flag(SystemFlags::ANSWERED),
        "DELETED" => flag(SystemFlags::DELETED),
        "DRAFT" => flag(SystemFlags::DRAFT),
        "FLAGGED" => flag(SystemFlags::FLAGGED),
        "SEEN" => flag(SystemFlags::SEEN),
        "UNANSWERED" => not(flag(SystemFlags::ANSWERED)),
        "UNDELETED" => not(flag(SystemFlags::DELETED)),
        "UNDRAFT" => not(flag(SystemFlags::DRAFT)),
        "UNFLAGGED" => not(flag(SystemFlags::FLAGGED)),
        "UNSEEN" => not(flag(SystemFlags::SEEN)),
        "RECENT" => Key::Recent,
        "OLD" => not(Key::Recent),
        "NEW" => Key::And(vec![Key::Recent, not(flag(SystemFlags::SEEN))]),
        // RFC 8514 4.3: every message here has one.
        "SAVEDATESUPPORTED" => Key::Stored(SearchKey::All),
        _ => return None,
    })
}

fn argument_key(cursor: &mut Cursor<'_>, word: &str) -> Parsed<Key> {
    use Compare::{AtLeast, Equal, Greater, Less};
    let known = [
        "BEFORE",
        "ON",
        "SINCE",
        "SENTBEFORE",
        "SENTON",
        "SENTSINCE",
        "SAVEDBEFORE",
        "SAVEDON",
        "SAVEDSINCE",
        "LARGER",
        "SMALLER",
        "KEYWORD",
        "UNKEYWORD",
        "UID",
        "HEADER",
        "BODY",
        "TEXT",
        "FROM",
        "TO",
        "CC",
        "BCC",
        "SUBJECT",
        "YOUNGER",
        "OLDER",
        "EMAILID",
        "THREADID",
    ];
    if !known.contains(&word) {
        return Err(Fault::Bad("unknown search key"));
    }
    cursor.space()?;
    Ok(Key::Stored(match word {
        "BEFORE" => SearchKey::InternalDate(Less, day(cursor)?),
        "ON" => SearchKey::InternalDate(Equal, day(cursor)?),
        "SINCE" => SearchKey::InternalDate(AtLeast, day(cursor)?),
        "SENTBEFORE" => SearchKey::SentDate(Less, day(cursor)?),
        "SENTON" => SearchKey::SentDate(Equal, day(cursor)?),
        "SENTSINCE" => SearchKey::SentDate(AtLeast, day(cursor)?),
        "SAVEDBEFORE" => SearchKey::SaveDate(Less, day(cursor)?),
        "SAVEDON" => SearchKey::SaveDate(Equal, day(cursor)?),
        "SAVEDSINCE" => SearchKey::SaveDate(AtLeast, day(cursor)?),
        "LARGER" => SearchKey::Size(Greater, cursor.number64()?),
        "SMALLER" => SearchKey::Size(Less, cursor.number64()?),
        "KEYWORD" => keyword(cursor)?,
        "UNKEYWORD" => SearchKey::Not(Box::new(keyword(cursor)?)),
        "UID" => {
            // Why quotes: php-imap writes them.
            let is_quoted = cursor.eat(b'"');
            let set = cursor.number_set()?;
            if is_quoted {
                cursor.expect(b'"', "'\"' missing")?;
            }
            return Ok(Key::Uid(set));
        }
        "HEADER" => {
            let name = text(cursor)?;
            cursor.space()?;
            SearchKey::Field(name, text(cursor)?)
        }
        "BODY" => SearchKey::Body(text(cursor)?),
        "TEXT" => SearchKey::Text(text(cursor)?),
        "FROM" | "TO" | "CC" | "BCC" | "SUBJECT" => {
            SearchKey::Header(word.to_ascii_lowercase(), text(cursor)?)
        }
        // RFC 5032 has no 0 here; imapflow says it for "since now" and "before tomorrow".
        "YOUNGER" => return Ok(Key::Arrived(AtLeast, cursor.number()?)),
        "OLDER" => return Ok(Key::Arrived(Less, cursor.number()?)),
        "EMAILID" => object_id(cursor, 'E').map(|id| SearchKey::EmailId(EmailId(id)))?,
        _ => object_id(cursor, 'T').map(|id| SearchKey::ThreadId(ThreadId(id)))?,
    }))
}

/// What is looked for.
/// Why not BAD: JavaMail writes Latin-1 where UTF8=ACCEPT is on. Told NO it searches by itself, and
/// BAD is an error to whoever uses it.
fn text(cursor: &mut Cursor<'_>) -> Parsed<String> {
    let octets = cursor.astring()?.into_owned();
    cursor.decoded(octets).ok_or(Fault::No(BAD_CHARSET, "not UTF-8"))
}

fn day(cursor: &mut Cursor<'_>) -> Parsed<i64> {
    let text = if cursor.peek() == Some(b'"') {
        cursor.text()?
    } else {
        cursor.atom("date expected")?.to_owned()
    };
    date::parse_date(&text).ok_or(Fault::Bad("not a date"))
}

fn keyword(cursor: &mut Cursor<'_>) -> Parsed<SearchKey> {
    // Why not an atom alone: KMail and others quote it.
    let octets = cursor.astring()?;
    let keyword = std::str::from_utf8(&octets).ok().and_then(Keyword::new);
    // What is no keyword is on no message.
    Ok(keyword.map_or_else(|| SearchKey::Uid(UidSet::new()), SearchKey::Keyword))
}

/// `MODSEQ [entry type] value`; the entry changes nothing, flags share one mod-sequence.
fn modseq(cursor: &mut Cursor<'_>) -> Parsed<Key> {
    if cursor.peek() == Some(b'"') {
        cursor.string()?;
        cursor.space()?;
        if !["SHARED", "PRIV", "ALL"].contains(&cursor.word("entry type expected")?.as_str()) {
            return Err(Fault::Bad("unknown entry type"));
        }
        cursor.space()?;
    }
    Ok(Key::Stored(SearchKey::ModSeq(cursor.number64()?)))
}

/// An id as we write them; any other is nobody's, like 0.
fn object_id(cursor: &mut Cursor<'_>, letter: char) -> Parsed<u64> {
    let text = cursor.text()?;
    let id = text.strip_prefix(letter).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(id.and_then(|id| id.parse().ok()).unwrap_or(0))
}
