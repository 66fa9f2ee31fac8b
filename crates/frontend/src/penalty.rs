//! What a wrong password costs: its answer comes later with each one before it, from the same origin or for
//! the same login. Whoever is right never waits, so nobody is locked out by others' guesses.
//!
//! The connection keeps its place meanwhile, so that one origin guesses as often as its places allow.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mailbox::Address;
use tokio::time::Instant;

use crate::limits::Origin;

/// The first wrong password waits this long, each next one twice as long,
const FIRST: Duration = Duration::from_secs(1);
/// up to this: five of them fit in the minute a login may take.
const MOST: Duration = Duration::from_secs(8);
/// After so long without a wrong one, all is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Limit: origins and logins remembered, some 50 octets each. When it is reached with none to forget, those
/// that come wait as for the first one.
const REMEMBERED_MAX: usize = 65_536;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Origin(Origin),
    /// A hash under a key of the process.
    Login(u64),
}

/// Wrong passwords of late.
#[derive(Default)]
pub(crate) struct Penalties {
    failed: Mutex<HashMap<Key, (u32, Instant)>>,
    hasher: RandomState,
}

impl Penalties {
    /// A password was wrong: how long its answer waits. What comes without an origin, from this machine,
    /// waits the least: a webmail there asks for everybody, and has to bound guesses itself.
    pub(crate) fn wrong(&self, origin: Option<Origin>, login: &str) -> Duration {
        let Some(origin) = origin else { return FIRST };
        // Why parsed: of many ways to write one login each would be the first wrong one.
        let login = match Address::parse(login) {
            Ok((address, _)) => self.hasher.hash_one(address.as_str()),
            Err(_) => self.hasher.hash_one(login.to_lowercase()),
        };
        let login = Key::Login(login);
        let now = Instant::now();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= REMEMBERED_MAX {
            failed.retain(|_, (_, last)| now.duration_since(*last) < FORGOTTEN_AFTER);
        }
        let mut most = 0;
        for key in [Key::Origin(origin), login] {
            let is_full = failed.len() >= REMEMBERED_MAX;
            let before = match failed.get(&key) {
                Some((n, last)) if now.duration_since(*last) < FORGOTTEN_AFTER => *n,
                None if is_full => continue,
                _ => 0,
            };
            failed.insert(key, (before.saturating_add(1), now));
            most = most.max(before);
        }
        (FIRST * 2_u32.saturating_pow(most.min(8))).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn guesses_take_longer_and_longer_and_are_forgotten() {
        let origin = |text: &str| Some(Origin::from(text.parse::<IpAddr>().unwrap()));
        let [one, two, three] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(origin);
        let penalties = Penalties::default();
        let waits: Vec<_> =
            (0..6).map(|n| penalties.wrong(one, &format!("{n}")).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8], "one origin, many logins");
        assert_eq!(penalties.wrong(two, "jo@example.test").as_secs(), 1);
        let waits = penalties.wrong(three, "JO@example.test").as_secs();
        assert_eq!(waits, 2, "one login, many origins");
        assert_eq!(penalties.wrong(None, "jo@example.test"), FIRST);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(penalties.wrong(one, "jo@example.test").as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_is_the_same_however_it_is_written() {
        let penalties = Penalties::default();
        let written = ["jo@example.test", "\"jo\"@Example.test", "JO@EXAMPLE.TEST."];
        let waits = written.iter().enumerate().map(|(n, login)| {
            let origin: IpAddr = format!("192.0.2.{n}").parse().unwrap();
            penalties.wrong(Some(Origin::from(origin)), login).as_secs()
        });
        assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_remembered_than_may_be() {
        let penalties = Penalties::default();
        let [one, two] = ["192.0.2.1", "192.0.2.2"]
            .map(|text| Some(Origin::from(text.parse::<IpAddr>().unwrap())));
        for n in 0..=REMEMBERED_MAX {
            penalties.wrong(one, &n.to_string());
        }
        assert_eq!(penalties.failed.lock().unwrap().len(), REMEMBERED_MAX);
        assert_eq!(penalties.wrong(two, "7").as_secs(), 2);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        penalties.wrong(one, "one more");
        assert_eq!(penalties.failed.lock().unwrap().len(), 2);
    }
}
