//! Names and passwords.
//!
//! Promises: an unknown name costs what a wrong password costs; hashing is bounded; a password that
//! was right is remembered under a key that dies with the process, together with the hash it was
//! right for, so that a changed password is never taken for right.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use mailbox::answer::AccountRecord;
use mailbox::command::{AccountState, Place};
use mailbox::dialogue::{Credentials, Trouble};
use mailbox::{Address, Answer, Query, Refusal};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::limits::{Origin, Turn, Turns};
use crate::random;
use crate::store::Store;

/// Limit: octets of a password; hashing a megabyte is no service to anybody.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Limit: passwords remembered as right, 32 octets each.
const REMEMBERED_MAX: usize = 65_536;

/// Limit: how long a login waits for its turn to hash. Mail programs wait about as long again, and many take
/// a refusal for a wrong password; a turn takes about 30 ms, so that when another frontend died those of
/// thousands of clients come up. As many wait as there may be connections.
const TURN_WITHIN: Duration = Duration::from_secs(20);

/// Limit: logins from one origin that wait for their turn; further ones from there wait until they may.
const WAITING_OF_ORIGIN_MAX: usize = 16;

/// Limit: how long an account is asked for in the place of one that there is not. An answer takes some
/// milliseconds; who is nobody must not wait until a shard that is not theirs has a leader again.
const ANOTHER_WITHIN: Duration = Duration::from_millis(300);

/// Who it is, if anybody.
pub(crate) enum Verdict {
    Right(Place, Box<AccountRecord>),
    Wrong,
    Disabled,
}

/// Checks passwords for all connections.
pub(crate) struct Authenticator {
    store: Arc<dyn Store>,
    key: [u8; 32],
    remembered: Mutex<Remembered>,
    /// An account that there was: it is asked for where a name is nobody's.
    last: Mutex<Option<Place>>,
    hashing: Semaphore,
    origins: Arc<Turns<Origin>>,
    /// The hash nobody's password has.
    nobody: String,
}

#[derive(Default)]
struct Remembered {
    known: HashSet<[u8; 32]>,
    by_age: VecDeque<[u8; 32]>,
}

impl Authenticator {
    /// One for the process; hashes on at most `n_hashing` threads.
    pub(crate) fn new(store: Arc<dyn Store>, n_hashing: usize) -> Self {
        let salt = SaltString::encode_b64(&random::bytes::<16>()).expect("16 octets make a salt");
        let password: [u8; 16] = random::bytes();
        let nobody = Argon2::default().hash_password(&password, &salt);
        Self {
            store,
            key: random::bytes(),
            remembered: Mutex::default(),
            last: Mutex::default(),
            hashing: Semaphore::new(n_hashing),
            origins: Turns::new(WAITING_OF_ORIGIN_MAX),
            nobody: nobody.expect("default parameters are legal").to_string(),
        }
    }

    /// Looks the account up and compares; `from` is where who asks is, if not on this machine.
    pub(crate) async fn check(
        &self,
        credentials: Credentials,
        from: Option<Origin>,
    ) -> Result<Verdict, Trouble> {
        let Credentials { login, password } = credentials;
        let Some((place, record)) = self.account(&login).await? else {
            self.ask_for_another().await;
            self.verify(self.nobody.clone(), password, from).await?;
            return Ok(Verdict::Wrong);
        };
        let memory = self.memory(&record, &password);
        if !self.is_remembered(&memory) {
            if !self.verify(record.password_hash.clone(), password, from).await? {
                return Ok(Verdict::Wrong);
            }
            self.remember(memory);
        }
        match record.state {
            AccountState::Active => Ok(Verdict::Right(place, record)),
            AccountState::Suspended => Ok(Verdict::Disabled),
            AccountState::Deleting => Ok(Verdict::Wrong),
        }
    }

    /// The account whose login this is; an alias or a detail is none.
    async fn account(&self, login: &str) -> Result<Option<(Place, Box<AccountRecord>)>, Trouble> {
        let Ok((address, None)) = Address::parse(login) else { return Ok(None) };
        // Why twice: where an address leads is remembered for a moment; an account that is gone or has
        // another name now makes the store look again, and so does an alias, which may be the name by now.
        for _ in 0..2 {
            let place = self.store.recipient(&address).await?;
            let Some(place) = place else { return Ok(None) };
            if place.alias {
                self.store.forget(&address);
                continue;
            }
            match self.store.query(place, Query::Account(place.account)).await? {
                Answer::Account(record) if record.name == address => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
                    return Ok(Some((place, record)));
                }
                // Why: the directory may be remembered, the account's own name is read now. A name
                // that was taken away is no login from that moment on, unless another account has it.
                Answer::Account(_) => self.store.forget(&address),
                Answer::Refused(Refusal::NoSuchAccount) => {}
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Takes as long as it takes to ask for an account, so that nobody hears whether there is one.
    async fn ask_for_another(&self) {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = last {
            // Why the result is dropped: only the time it takes is wanted.
            let asking = self.store.query(place, Query::Account(place.account));
            drop(timeout(ANOTHER_WITHIN, asking).await);
        }
    }

    /// Compares on a thread that may take its time.
    async fn verify(
        &self,
        hash: String,
        password: Vec<u8>,
        from: Option<Origin>,
    ) -> Result<bool, Trouble> {
        let turn = timeout(TURN_WITHIN, self.turn(from)).await;
        let _turn = turn.map_err(|_| Trouble::Overloaded)?;
        let comparing = tokio::task::spawn_blocking(move || {
            if password.len() > PASSWORD_BYTES_MAX {
                return false;
            }
            let parsed = PasswordHash::new(&hash);
            parsed.is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        });
        comparing.await.map_err(|_| Trouble::Unavailable)
    }

    /// Waits, in the order of arrival, until there is a thread to hash on.
    async fn turn(
        &self,
        from: Option<Origin>,
    ) -> (Option<Turn<Origin>>, Option<SemaphorePermit<'_>>) {
        let of_origin = match from {
            Some(origin) => Some(self.origins.turn(origin).await),
            None => None,
        };
        (of_origin, self.hashing.acquire().await.ok())
    }

    fn memory(&self, record: &AccountRecord, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [&record.account.0, record.password_hash.as_bytes(), password] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    fn is_remembered(&self, memory: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.known.contains(memory)
    }

    fn remember(&self, memory: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if !remembered.known.insert(memory) {
            return;
        }
        remembered.by_age.push_back(memory);
        if remembered.by_age.len() > REMEMBERED_MAX
            && let Some(oldest) = remembered.by_age.pop_front()
        {
            remembered.known.remove(&oldest);
        }
    }
}
