//! SASL PLAIN (RFC 4616).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailbox::dialogue::Credentials;

/// What a response holds; `None` if it is none. Acting for somebody else is not offered.
pub(crate) fn plain(response: &[u8]) -> Option<Credentials> {
    // RFC 5034 4: an empty initial response is a single `=`.
    let decoded = STANDARD.decode(response).ok()?;
    let mut parts = decoded.splitn(3, |octet| *octet == 0);
    let (act_for, login, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_self = act_for.is_empty() || act_for == login;
    if !is_self || login.is_empty() || password.contains(&0) {
        return None;
    }
    let login = std::str::from_utf8(login).ok()?.to_owned();
    Some(Credentials { login, password: password.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_response_for_oneself_is_taken() {
        let read = |text: &[u8]| plain(STANDARD.encode(text).as_bytes());
        let both = |c: Credentials| (c.login, c.password);
        assert_eq!(read(b"\0u@x\0p w").map(both), Some(("u@x".into(), b"p w".to_vec())));
        assert_eq!(read(b"u@x\0u@x\0p").map(both), Some(("u@x".into(), b"p".to_vec())));
        assert!(read(b"other\0u@x\0p").is_none());
        assert!(read(b"\0u@x").is_none());
        assert!(read(b"\0u@x\0p\0q").is_none());
        assert!(plain(b"=").is_none());
        assert!(plain(b"!").is_none());
    }
}
