//! Metadata of many messages one after the other: those of neighbours are read in one go, since
//! looking each up costs more than all else that is done with it.

use crate::ids::{AccountId, EmailId};
use crate::rows::Source;
use crate::table::{self, Fields};

/// How far apart two contents may be to count as neighbours.
pub(super) const NEAR: u64 = 16;
/// Rows read in one go: few at first, more while all of them are wanted.
const ROWS_MIN: u64 = 16;
const ROWS_MAX: u64 = 256;

/// Octets after which that is enough: more would come from the system for each query, and go back.
const BYTES_MAX: usize = 64 * 1024;

/// Reads metadata rows of one account.
pub(super) struct Prefetch<'s> {
    rows: &'s dyn Source,
    account: AccountId,
    /// Read ahead, ascending: the content, and where its row ends in `octets`.
    ahead: Vec<(EmailId, usize)>,
    octets: Vec<u8>,
    /// The next of those read ahead.
    at: usize,
    last: Option<EmailId>,
    n_rows: u64,
}

impl<'s> Prefetch<'s> {
    pub(super) fn new(rows: &'s dyn Source, account: AccountId) -> Self {
        let (ahead, octets) = (Vec::new(), Vec::new());
        Self { rows, account, ahead, octets, at: 0, last: None, n_rows: ROWS_MIN }
    }

    /// What `read` makes of the encoded metadata of a content that is there.
    pub(super) fn read<T>(&mut self, email: EmailId, read: impl FnOnce(&[u8]) -> T) -> T {
        let is_near = self.last.is_some_and(|last| last < email && email.0 - last.0 <= NEAR);
        self.last = Some(email);
        if is_near && self.find(email).is_none() {
            self.read_ahead(email);
        }
        if let Some(at) = self.find(email).filter(|_| is_near) {
            let begin = if at == 0 { 0 } else { self.ahead[at - 1].1 };
            return read(&self.octets[begin..self.ahead[at].1]);
        }
        let row = self.rows.row(&table::metadata(self.account, email));
        read(&row.expect("a message's content outlives it"))
    }

    /// Where among those read ahead.
    fn find(&mut self, email: EmailId) -> Option<usize> {
        while self.ahead.get(self.at).is_some_and(|ahead| ahead.0 < email) {
            self.at += 1;
        }
        self.ahead.get(self.at).filter(|ahead| ahead.0 == email).map(|_| self.at)
    }

    fn read_ahead(&mut self, from: EmailId) {
        let was_used_up = self.at >= self.ahead.len();
        self.n_rows = if was_used_up { ROWS_MAX.min(2 * self.n_rows) } else { ROWS_MIN };
        self.ahead.clear();
        self.octets.clear();
        self.at = 0;
        // Why an end: a source reads beyond what is visited.
        let end = EmailId(from.0.saturating_add(self.n_rows));
        let key = |email| table::metadata(self.account, email);
        let (ahead, octets) = (&mut self.ahead, &mut self.octets);
        self.rows.scan(&key(from), &key(end), &mut |key, row| {
            octets.extend_from_slice(row);
            ahead.push((EmailId(Fields(key).u64(18)), octets.len()));
            octets.len() < BYTES_MAX
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_what_is_there(
            there in prop::collection::btree_set(1u64..300, 1..200),
            asked in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let account = AccountId([1; 16]);
            let value = |email: u64| email.to_string().into_bytes();
            let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = there
                .iter()
                .map(|email| (table::metadata(account, EmailId(*email)), value(*email)))
                .collect();
            rows.insert(table::metadata(AccountId([2; 16]), EmailId(1)), vec![0]);
            let there: Vec<u64> = there.into_iter().collect();
            let mut prefetch = Prefetch::new(&rows, account);
            let anywhere = asked.iter().map(|index| *index.get(&there));
            for email in there.iter().copied().chain(anywhere).chain(there.iter().copied()) {
                let row = prefetch.read(EmailId(email), <[u8]>::to_vec);
                prop_assert_eq!(row, value(email));
            }
        }
    }
}
