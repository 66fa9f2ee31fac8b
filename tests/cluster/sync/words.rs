//! What responses say, in the few shapes that this test asks for.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

/// Flags without `\Recent`, as they are written.
pub type Flags = BTreeSet<String>;

/// One response.
#[derive(Debug)]
pub enum Said {
    Exists(usize),
    Expunge(usize),
    Vanished {
        earlier: bool,
        uids: BTreeSet<u32>,
    },
    Fetch(usize, Items),
    /// `FLAGS`: what there is.
    Flags(Flags),
    /// Untagged `OK`, with its code.
    Ok(String),
    Bye(String),
    /// Tag, status, and the code, if any.
    Tagged(String, String, String),
    Recent,
    GoOn,
    Other,
}

/// What a FETCH told.
#[derive(Debug, Default)]
pub struct Items {
    pub uid: Option<u32>,
    pub flags: Option<Flags>,
    pub recent: bool,
    pub modseq: Option<u64>,
    pub email: Option<String>,
    pub size: Option<u64>,
}

pub fn read(line: &str) -> Result<Said> {
    let Some(rest) = line.strip_prefix("* ") else {
        if line.starts_with('+') {
            return Ok(Said::GoOn);
        }
        let mut words = line.splitn(3, ' ');
        let (tag, status) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let code = code(words.next().unwrap_or(""));
        return Ok(Said::Tagged(tag.to_owned(), status.to_owned(), code));
    };
    let (first, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if let Ok(number) = first.parse::<usize>() {
        let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        return Ok(match what {
            "EXISTS" => Said::Exists(number),
            "EXPUNGE" => Said::Expunge(number),
            "RECENT" => Said::Recent,
            "FETCH" => Said::Fetch(number, items(rest).with_context(|| line.to_owned())?),
            _ => bail!("what is {line}"),
        });
    }
    Ok(match first {
        "OK" => Said::Ok(code(rest)),
        "BYE" => Said::Bye(rest.to_owned()),
        "FLAGS" => Said::Flags(flags(rest).0),
        "VANISHED" => match rest.strip_prefix("(EARLIER) ") {
            Some(set) => Said::Vanished { earlier: true, uids: read_set(set)? },
            None => Said::Vanished { earlier: false, uids: read_set(rest)? },
        },
        _ => Said::Other,
    })
}

/// What stands in brackets at the beginning of a text.
fn code(text: &str) -> String {
    let inside = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    inside.map_or_else(String::new, |(code, _)| code.to_owned())
}

/// The number behind a word of a code or of a list of counts.
pub fn number_after(text: &str, word: &str) -> Option<u64> {
    let mut words = text.split([' ', '(', ')']).filter(|word| !word.is_empty());
    words.find(|found| *found == word)?;
    words.next()?.parse().ok()
}

/// Flags of a list in parentheses, and whether `\Recent` was among them.
fn flags(list: &str) -> (Flags, bool) {
    let mut flags: Flags =
        list.trim_matches(['(', ')']).split_whitespace().map(str::to_owned).collect();
    let recent = flags.remove("\\Recent");
    (flags, recent)
}

fn items(list: &str) -> Result<Items> {
    let mut items = Items::default();
    let mut rest = list.strip_prefix('(').context("no list")?;
    while let Some((word, behind)) = rest.split_once(' ') {
        let value = match behind.strip_prefix('(') {
            Some(inner) => inner.split_once(')').context("no end of a list")?.0,
            None => behind.split([' ', ')']).next().unwrap_or(""),
        };
        let n_parentheses = if behind.starts_with('(') { 2 } else { 0 };
        match word {
            "UID" => items.uid = Some(value.parse()?),
            "MODSEQ" => items.modseq = Some(value.parse()?),
            "RFC822.SIZE" => items.size = Some(value.parse()?),
            "EMAILID" => items.email = Some(value.to_owned()),
            "FLAGS" => {
                let (flags, recent) = flags(value);
                (items.flags, items.recent) = (Some(flags), recent);
            }
            _ if word.starts_with("BODY[") => {}
            _ => bail!("what is {word}"),
        }
        rest = behind[value.len() + n_parentheses..].trim_start_matches(' ');
    }
    Ok(items)
}

/// The numbers of a set.
pub fn read_set(text: &str) -> Result<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>()?, last.parse::<u32>()?);
        numbers.extend(first.min(last)..=first.max(last));
    }
    Ok(numbers)
}

/// Numbers as a set.
pub fn write_set(numbers: impl IntoIterator<Item = u32>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    numbers.join(",")
}
