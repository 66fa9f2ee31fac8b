//! Command lines become requests (RFC 5321 4.1.1, RFC 2033 4).

use std::collections::BTreeSet;

use crate::refuse::Words;

/// Limit: octets of a path. RFC 5321 4.5.3.1 says 64 for a local part and 256 for all; senders that
/// name their recipient or come through a forwarder have more. A header line with it stays far under
/// the 998 octets of RFC 5322 2.1.1.
const PATH_BYTES_MAX: usize = 512;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Lhlo(String),
    /// HELO and EHLO, which are not for LMTP.
    Hello,
    Mail(Mail),
    /// The path as written, without `<>` and source route.
    Rcpt(String),
    Data,
    /// RFC 3030: a chunk of so many octets follows.
    Bdat(Chunk),
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
}

/// MAIL FROM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mail {
    /// The reverse path without `<>` and source route; empty for notifications.
    pub sender: String,
    /// RFC 1870: how large the client thinks the message is.
    pub size: Option<u64>,
    /// RFC 6531
    pub is_utf8: bool,
}

/// BDAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub n_bytes: u64,
    pub is_last: bool,
}

/// Reads one line.
pub(crate) fn request(line: &[u8]) -> Result<Request, Words> {
    let refused = |words| if is_chunk(line, BDAT.len()) { Words::BadChunk } else { words };
    read(line).map_err(refused)
}

/// What to say of a line that is longer than it may be and begins like this.
pub(crate) fn too_long(beginning: &[u8]) -> Words {
    if is_chunk(beginning, 0) { Words::BadChunk } else { Words::LineTooLong }
}

const BDAT: &[u8] = b"BDAT";

/// Whether the client may mean that a chunk follows: after anything that cannot be seen the line
/// has BDAT, or as far as it is known the first `n_least` letters of it.
fn is_chunk(line: &[u8], n_least: usize) -> bool {
    let start = line.iter().position(u8::is_ascii_graphic).unwrap_or(line.len());
    let word = &line[start..line.len().min(start + BDAT.len())];
    word.len() >= n_least && word.eq_ignore_ascii_case(&BDAT[..word.len()])
}

fn read(line: &[u8]) -> Result<Request, Words> {
    let line = std::str::from_utf8(line).map_err(|_| Words::NotText)?;
    if line.chars().any(char::is_control) {
        return Err(Words::NotText);
    }
    let line = line.trim_end();
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start();
    let alone = |request| if rest.is_empty() { Ok(request) } else { Err(Words::NoParameters) };
    match verb.to_ascii_uppercase().as_str() {
        "LHLO" => lhlo(rest),
        "HELO" | "EHLO" => Ok(Request::Hello),
        "MAIL" => mail(rest).map(Request::Mail),
        "RCPT" => rcpt(rest),
        "DATA" => alone(Request::Data),
        "BDAT" => bdat(rest).map(Request::Bdat),
        "RSET" => alone(Request::Rset),
        "NOOP" => Ok(Request::Noop),
        "QUIT" => alone(Request::Quit),
        "VRFY" => Ok(Request::Vrfy),
        "HELP" => Ok(Request::Help),
        _ => Err(Words::UnknownCommand),
    }
}

/// The name goes into a Received field, so only what a domain or address literal needs is allowed.
fn lhlo(name: &str) -> Result<Request, Words> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c) || !c.is_ascii();
    if name.is_empty() || name.len() > 255 || !name.chars().all(legal) {
        return Err(Words::BadName);
    }
    Ok(Request::Lhlo(name.to_owned()))
}

fn mail(rest: &str) -> Result<Mail, Words> {
    let (sender, parameters) = path(after(rest, "FROM:").ok_or(Words::BadMail)?)?;
    let mut mail = Mail { sender: sender.to_owned(), ..Mail::default() };
    let mut seen = BTreeSet::new();
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = name.to_ascii_uppercase();
        match (name.as_str(), value.to_ascii_uppercase().as_str()) {
            ("SIZE", size) => mail.size = Some(size_of(size).ok_or(Words::BadParameter)?),
            ("BODY", "7BIT" | "8BITMIME") => {}
            ("SMTPUTF8", "") => mail.is_utf8 = true,
            ("BODY" | "SMTPUTF8", _) => return Err(Words::BadParameter),
            _ => return Err(Words::UnknownParameter),
        }
        if !seen.insert(name) {
            return Err(Words::BadParameter);
        }
    }
    // RFC 6531 3.4: addresses beyond ASCII only when they were announced.
    if !mail.is_utf8 && !mail.sender.is_ascii() {
        return Err(Words::NotAnnounced);
    }
    Ok(mail)
}

/// RFC 1870 3: up to 20 digits, which may say more than any message has.
fn size_of(digits: &str) -> Option<u64> {
    let is_size = (1..=20).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
    is_size.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn rcpt(rest: &str) -> Result<Request, Words> {
    let found = path(after(rest, "TO:").ok_or(Words::BadRcpt)?);
    let (recipient, parameters) = found.map_err(|words| match words {
        Words::BadPath => Words::BadRecipientPath,
        Words::PathTooLong => Words::RecipientPathTooLong,
        words => words,
    })?;
    if recipient.is_empty() {
        return Err(Words::BadRecipient);
    }
    if !parameters.trim().is_empty() {
        return Err(Words::UnknownParameter);
    }
    Ok(Request::Rcpt(recipient.to_owned()))
}

fn bdat(rest: &str) -> Result<Chunk, Words> {
    let (size, word) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_number = !size.is_empty() && size.bytes().all(|octet| octet.is_ascii_digit());
    let n_bytes = if is_number { size.parse().ok() } else { None };
    let is_last = match word.trim() {
        "" => false,
        last if last.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(Words::BadChunk),
    };
    Ok(Chunk { n_bytes: n_bytes.ok_or(Words::BadChunk)?, is_last })
}

fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then(|| rest.trim_start())
}

/// `<path>` and what follows it; a source route is skipped (RFC 5321 4.1.1.3).
fn path(text: &str) -> Result<(&str, &str), Words> {
    let inner = text.strip_prefix('<').ok_or(Words::BadPath)?;
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in inner.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '>' if !is_quoted => {
                let path = &inner[..at];
                let path = match path.strip_prefix('@') {
                    Some(route) => {
                        let behind = route.split_once(':').map(|(_, path)| path);
                        behind.filter(|path| !path.is_empty()).ok_or(Words::BadPath)?
                    }
                    None => path,
                };
                if path.len() > PATH_BYTES_MAX {
                    return Err(Words::PathTooLong);
                }
                let rest = &inner[at + 1..];
                let is_apart = rest.is_empty() || rest.starts_with(' ');
                return if is_apart { Ok((path, rest)) } else { Err(Words::BadPath) };
            }
            ' ' | '<' if !is_quoted => return Err(Words::BadPath),
            _ => {}
        }
    }
    Err(Words::BadPath)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_parameters_are_read() {
        let mail = |sender: &str, size, is_utf8| {
            Ok(Request::Mail(Mail { sender: sender.into(), size, is_utf8 }))
        };
        assert_eq!(request(b"MAIL FROM:<>"), mail("", None, false));
        assert_eq!(request(b"mail from:<a@b> size=7 BODY=8BITMIME"), mail("a@b", Some(7), false));
        assert_eq!(request(b"MAIL FROM: <@x,@y:a@b>"), mail("a@b", None, false));
        assert_eq!(request("MAIL FROM:<ä@b> SMTPUTF8".as_bytes()), mail("ä@b", None, true));
        assert_eq!(request("MAIL FROM:<ä@b>".as_bytes()), Err(Words::NotAnnounced));
        assert_eq!(request(b"MAIL FROM:<a@b> X=Y"), Err(Words::UnknownParameter));
        assert_eq!(request(b"MAIL FROM:<a@b> SIZE=x"), Err(Words::BadParameter));
        for wrong in ["SIZE=+5", "SIZE=-5", "SIZE=", "SIZE", "SIZE=1 SIZE=2", "BODY=7BIT body=7bit"]
        {
            let line = format!("MAIL FROM:<a@b> {wrong}");
            assert_eq!(request(line.as_bytes()), Err(Words::BadParameter), "{wrong}");
        }
        let size = |digits: &str| request(format!("MAIL FROM:<a@b> SIZE={digits}").as_bytes());
        assert_eq!(size("99999999999999999999"), mail("a@b", Some(u64::MAX), false));
        assert_eq!(size("100000000000000000000"), Err(Words::BadParameter));
        assert_eq!(request(b"MAIL FROM:<@a:>"), Err(Words::BadPath));
        let with_local = |n: usize| format!("MAIL FROM:<{}@b>", "x".repeat(n));
        let longest = with_local(PATH_BYTES_MAX - 2);
        assert!(request(longest.as_bytes()).is_ok());
        let longer = with_local(PATH_BYTES_MAX - 1);
        assert_eq!(request(longer.as_bytes()), Err(Words::PathTooLong));
        assert_eq!(request(b"MAIL FROM:a@b"), Err(Words::BadPath));
        assert_eq!(request(b"MAIL TO:<a@b>"), Err(Words::BadMail));
        assert_eq!(
            request(br#"RCPT TO:<"a > b"@c>"#),
            Ok(Request::Rcpt(r#""a > b"@c"#.to_owned()))
        );
        assert_eq!(request(b"RCPT TO:<>"), Err(Words::BadRecipient));
        assert_eq!(request(b"RCPT TO:<a@b"), Err(Words::BadRecipientPath));
        let longer = format!("RCPT TO:<{}@b>", "x".repeat(PATH_BYTES_MAX - 1));
        assert_eq!(request(longer.as_bytes()), Err(Words::RecipientPathTooLong));
        assert_eq!(request(b"DATA now"), Err(Words::NoParameters));
        let bdat = |n_bytes, is_last| Ok(Request::Bdat(Chunk { n_bytes, is_last }));
        assert_eq!(request(b"BDAT 86"), bdat(86, false));
        assert_eq!(request(b"bdat 0 last"), bdat(0, true));
        let bad_chunks = [
            "BDAT",
            "BDAT x",
            "BDAT -1",
            "BDAT +1",
            "BDAT 1 FIRST",
            "BDAT 99999999999999999999",
            "BDAT 98\tLAST",
            "BDAT 98 LAST\t",
            "bdat\t98",
            "BDAT\u{a0}98",
            "BDAT98",
            " Bdat 98",
            "\t BDAT 98",
            "\0BDAT 98",
            "\u{feff}BDAT 98",
        ];
        for bad in bad_chunks {
            assert_eq!(request(bad.as_bytes()), Err(Words::BadChunk), "{bad:?}");
        }
        assert_eq!(request(b"BDAT 98\xa0LAST"), Err(Words::BadChunk));
        for other in ["", "BDA", "BDA T 98", "x BDAT 98"] {
            assert_eq!(request(other.as_bytes()), Err(Words::UnknownCommand), "{other:?}");
        }
        assert_eq!(too_long(b"BDAT 98 LAST   "), Words::BadChunk);
        assert_eq!(too_long(b"   BD"), Words::BadChunk);
        assert_eq!(too_long(b"      "), Words::BadChunk);
        assert_eq!(too_long(b"NOOP BDAT"), Words::LineTooLong);
        assert_eq!(request(b"LHLO a(b"), Err(Words::BadName));
        assert_eq!(request(b"NOOP \0"), Err(Words::NotText));
    }
}
