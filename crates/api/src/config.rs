//! What the configurations of all processes have in common: an unknown key is refused, and the
//! nearest right one is named.

/// A key that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown setting `{key}`{}", hint(nearest.as_deref()))]
pub struct UnknownKey {
    /// As it was written.
    pub key: String,
    /// What may have been meant.
    pub nearest: Option<String>,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// Refuses the first key that is not among the known ones.
pub fn check_keys<'a>(
    keys: impl IntoIterator<Item = &'a str>,
    known: &[&str],
) -> Result<(), UnknownKey> {
    for key in keys {
        if !known.contains(&key) {
            let nearest = nearest(key, known).map(str::to_owned);
            return Err(UnknownKey { key: key.to_owned(), nearest });
        }
    }
    Ok(())
}

/// Whether a text is `host:port`, so that it can be connected to. An IPv6 address is in brackets.
pub fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(legal)
        }
    };
    let is_number = port.bytes().all(|c| c.is_ascii_digit());
    is_host && is_number && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The known name a word was probably meant to be: at most a third of its letters are wrong.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|name| (distance(word, name), *name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= word.chars().count().max(name.len())).then_some(name)
}

/// Letters to insert, remove, replace or swap with their neighbour until the words are equal; `-`
/// and `_` are the same letter.
fn distance(from: &str, to: &str) -> usize {
    let letters = |word: &str| -> Vec<char> {
        word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    let (from, to) = (letters(from), letters(to));
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && *a == to[j - 1] {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_host_and_a_port() {
        for right in ["n1.mail.test:7400", "n1:1", "10.0.0.1:65535", "[::1]:7400"] {
            assert!(is_endpoint(right), "{right}");
        }
        for wrong in [
            "", "n1", "n1:", ":7400", "n1:0", "n1:65536", "n1:+1", "n1:x", "::1:7400", "n 1:1",
            "[n1]:1",
        ] {
            assert!(!is_endpoint(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_right_name() {
        let known = ["listen", "data_dirs", "heartbeat_ms", "join"];
        let say = |key: &str| check_keys([key], &known).unwrap_err().to_string();
        assert_eq!(say("lisen"), "unknown setting `lisen`, did you mean `listen`?");
        assert_eq!(say("data-dir"), "unknown setting `data-dir`, did you mean `data_dirs`?");
        assert_eq!(
            say("hartbeat_ms"),
            "unknown setting `hartbeat_ms`, did you mean `heartbeat_ms`?"
        );
        assert_eq!(say("jion"), "unknown setting `jion`, did you mean `join`?");
        assert_eq!(say("colour"), "unknown setting `colour`");
        assert_eq!(check_keys(known, &known), Ok(()));
    }
}
