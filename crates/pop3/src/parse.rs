//! Command lines become requests (RFC 1939, RFC 2449, RFC 5034, RFC 2595).

/// One command. Message numbers are as the client counts, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Capa,
    Stls,
    /// RFC 6856: names and headers may be UTF-8.
    Utf8,
    User(String),
    Pass(Vec<u8>),
    /// AUTH without a mechanism asks which there are.
    AuthList,
    /// AUTH PLAIN with or without initial response.
    AuthPlain(Option<Vec<u8>>),
    AuthOther,
    Stat,
    List(Option<u32>),
    Uidl(Option<u32>),
    Retr(u32),
    Top(u32, u64),
    Dele(u32),
    Noop,
    Rset,
    Last,
    Quit,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadLine {
    Unknown,
    Parameters,
}

/// Reads one line.
pub(crate) fn request(line: &[u8]) -> Result<Request, BadLine> {
    let (verb, rest) = match line.iter().position(|octet| *octet == b' ') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &b""[..]),
    };
    let verb = verb.to_ascii_uppercase();
    if verb == b"PASS" {
        // RFC 1939 7: spaces belong to the password.
        let is_given = line.len() > verb.len();
        return is_given.then(|| Request::Pass(rest.to_vec())).ok_or(BadLine::Parameters);
    }
    let rest = std::str::from_utf8(rest).map_err(|_| BadLine::Parameters)?;
    // RFC 1939 3: keywords and arguments are printable.
    if rest.bytes().any(|octet| octet.is_ascii_control()) {
        return Err(BadLine::Parameters);
    }
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    let request = match (verb.as_slice(), words.as_slice()) {
        (b"CAPA", []) => Request::Capa,
        (b"STLS", []) => Request::Stls,
        (b"UTF8", []) => Request::Utf8,
        (b"USER", [_, ..]) => Request::User(rest.trim().to_owned()),
        (b"AUTH", []) => Request::AuthList,
        (b"AUTH", [mechanism, initial @ ..]) if mechanism.eq_ignore_ascii_case("PLAIN") => {
            match initial {
                [] => Request::AuthPlain(None),
                [response] => Request::AuthPlain(Some(response.as_bytes().to_vec())),
                _ => return Err(BadLine::Parameters),
            }
        }
        (b"AUTH", _) => Request::AuthOther,
        (b"STAT", []) => Request::Stat,
        (b"LIST", []) => Request::List(None),
        (b"LIST", [n]) => Request::List(Some(number(n)?)),
        (b"UIDL", []) => Request::Uidl(None),
        (b"UIDL", [n]) => Request::Uidl(Some(number(n)?)),
        (b"RETR", [n]) => Request::Retr(number(n)?),
        (b"TOP", [n, n_lines]) => {
            let n_lines = if digits(n_lines) { n_lines.parse().ok() } else { None };
            Request::Top(number(n)?, n_lines.ok_or(BadLine::Parameters)?)
        }
        (b"DELE", [n]) => Request::Dele(number(n)?),
        (b"NOOP", []) => Request::Noop,
        (b"RSET", []) => Request::Rset,
        (b"LAST", []) => Request::Last,
        (b"QUIT", []) => Request::Quit,
        (
            b"CAPA" | b"STLS" | b"UTF8" | b"USER" | b"STAT" | b"LIST" | b"UIDL" | b"RETR" | b"TOP"
            | b"DELE" | b"NOOP" | b"RSET" | b"LAST" | b"QUIT",
            _,
        ) => return Err(BadLine::Parameters),
        _ => return Err(BadLine::Unknown),
    };
    Ok(request)
}

fn digits(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_digit())
}

/// A number too large for any maildrop becomes one that no message has.
fn number(text: &str) -> Result<u32, BadLine> {
    if text.is_empty() || !digits(text) {
        return Err(BadLine::Parameters);
    }
    Ok(text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case_and_passwords_keep_their_spaces() {
        assert_eq!(request(b"retr 3"), Ok(Request::Retr(3)));
        assert_eq!(request(b"TOP 1 0"), Ok(Request::Top(1, 0)));
        assert_eq!(request(b"LIST"), Ok(Request::List(None)));
        assert_eq!(request(b"PASS  a b "), Ok(Request::Pass(b" a b ".to_vec())));
        assert_eq!(request(b"PASS \xff"), Ok(Request::Pass(b"\xff".to_vec())));
        assert_eq!(request(b"USER u@x"), Ok(Request::User("u@x".into())));
        assert_eq!(request(b"AUTH plain AA=="), Ok(Request::AuthPlain(Some(b"AA==".to_vec()))));
        assert_eq!(request(b"RETR 99999999999"), Ok(Request::Retr(u32::MAX)));
        assert_eq!(request(b"RETR +1"), Err(BadLine::Parameters));
        assert_eq!(request(b"USER u\0@x"), Err(BadLine::Parameters));
        assert_eq!(request(b"RETR"), Err(BadLine::Parameters));
        assert_eq!(request(b"TOP 1"), Err(BadLine::Parameters));
        assert_eq!(request(b"PASS"), Err(BadLine::Parameters));
        assert_eq!(request(b"XTND"), Err(BadLine::Unknown));
        assert_eq!(request(b""), Err(BadLine::Unknown));
    }
}
