//! RFC 2231 parameters in pieces, put together for whoever is shown them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::charset::{CharsetDecoder, decode_all};
use crate::part::Parameter;
use crate::word::{extended, percent_decode};

/// A number behind a star has at most three digits: no parameter has more pieces.
const NUMBER_BYTES_MAX: usize = 3;

/// Parameters with their continuations joined, in the order of the first pieces.
///
/// RFC 9051 7.5.2: `name*0` and what follows become `name`; with `name*0*` it is `name*`, in UTF-8
/// and still in the form of RFC 2231 4, since that is what a star announces; in its own charset where
/// that is not known, or the octets are none of it. A `name` beside its pieces is for those who do not
/// know them and goes. Pieces without a first one stay as they are.
pub fn join_continuations(parameters: &[Parameter]) -> Cow<'_, [Parameter]> {
    if !parameters.iter().any(|parameter| piece(&parameter.name).is_some()) {
        return Cow::Borrowed(parameters);
    }
    let mut pieces: BTreeMap<&str, BTreeMap<u16, (bool, usize)>> = BTreeMap::new();
    for (at, parameter) in parameters.iter().enumerate() {
        if let Some(Piece { name, number, is_extended }) = piece(&parameter.name) {
            pieces.entry(name).or_default().entry(number).or_insert((is_extended, at));
        }
    }
    let mut joined: BTreeMap<usize, Parameter> = BTreeMap::new();
    let mut gone: BTreeSet<usize> = BTreeSet::new();
    let mut whole: BTreeSet<&str> = BTreeSet::new();
    for (name, numbered) in pieces {
        let run = (0_u16..).zip(&numbered).take_while(|(wanted, (number, _))| wanted == *number);
        let run: Vec<(bool, usize)> = run.map(|(_, (_, piece))| *piece).collect();
        let Some(first) = run.iter().map(|(_, at)| *at).min() else { continue };
        gone.extend(run.iter().map(|(_, at)| *at));
        joined.insert(first, join(name, &run, parameters));
        whole.insert(name);
    }
    let mut shown = Vec::with_capacity(parameters.len());
    for (at, parameter) in parameters.iter().enumerate() {
        if let Some(parameter) = joined.remove(&at) {
            shown.push(parameter);
        } else if !gone.contains(&at) && !whole.contains(parameter.name.as_str()) {
            shown.push(parameter.clone());
        }
    }
    Cow::Owned(shown)
}

/// What a name with a number says.
struct Piece<'n> {
    name: &'n str,
    number: u16,
    is_extended: bool,
}

/// `name*number` or `name*number*`.
fn piece(name: &str) -> Option<Piece<'_>> {
    let (rest, is_extended) = match name.strip_suffix('*') {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let (name, number) = rest.rsplit_once('*')?;
    let is_number = (1..=NUMBER_BYTES_MAX).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number && !name.is_empty())?;
    Some(Piece { name, number, is_extended })
}

fn join(name: &str, run: &[(bool, usize)], parameters: &[Parameter]) -> Parameter {
    let value = |at: usize| parameters[at].value.as_slice();
    if !run.iter().any(|(is_extended, _)| *is_extended) {
        let value = run.iter().flat_map(|(_, at)| value(*at)).copied().collect();
        return Parameter { name: name.into(), value };
    }
    let mut charset = String::new();
    let mut octets = Vec::new();
    for (number, (is_extended, at)) in run.iter().enumerate() {
        match (is_extended, number) {
            (true, 0) => (charset, octets) = extended(value(*at)),
            (true, _) => octets.extend(percent_decode(value(*at))),
            (false, _) => octets.extend_from_slice(value(*at)),
        }
    }
    let decoded = CharsetDecoder::is_known(&charset).then(|| decode_all(&charset, &octets));
    if let Some(text) = decoded.filter(|text| !text.contains(char::REPLACEMENT_CHARACTER)) {
        octets = text.into_bytes();
        charset = "utf-8".into();
    }
    let mut value = format!("{charset}''").into_bytes();
    for octet in octets {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            value.push(octet);
        } else {
            value.extend_from_slice(format!("%{octet:02X}").as_bytes());
        }
    }
    Parameter { name: format!("{name}*"), value }
}
