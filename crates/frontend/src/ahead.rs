//! What was sent ahead of messages: it is let go of when the command that was to complete its message is
//! refused, or did not need it, else it would count for ten minutes.

use std::collections::BTreeMap;
use std::sync::Arc;

use mailbox::command::{Place, Upload};
use mailbox::dialogue::Trouble;
use mailbox::{AccountId, Command, Outcome, UploadId};

use crate::store::Store;

/// Uploads whose messages are not complete; dropped, they are given up.
pub(crate) struct Ahead {
    store: Arc<dyn Store>,
    uploads: BTreeMap<(AccountId, UploadId), Place>,
}

impl Ahead {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, uploads: BTreeMap::new() }
    }

    /// It lies at the account.
    pub(crate) fn sent(&mut self, place: Place, upload: UploadId) {
        self.uploads.insert((place.account, upload), place);
    }

    /// What came of a command: what it completed, or may have or will, is not ours any more.
    pub(crate) fn ended(&mut self, completes: &Completes, it: Result<&Outcome, &Trouble>) {
        let Completes { account, uploads } = completes;
        match it {
            // Why all of the account: beside messages of its own there are batches of small ones, which the
            // command finds by their digests. Should it be done yet, they have to be there.
            Err(Trouble::Unknown) => self.uploads.retain(|(of, _), _| of != account),
            Ok(Outcome::Refused(_)) | Err(_) => {}
            Ok(_) => {
                self.uploads.retain(|(of, upload), _| of != account || !uploads.contains(upload))
            }
        }
    }

    /// No message will come of those that are left.
    pub(crate) fn give_up(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let (store, uploads) = (Arc::clone(&self.store), std::mem::take(&mut self.uploads));
        let giving_up = async move {
            for ((account, upload), place) in uploads {
                let command = Command::Upload(Upload::give_up(account, upload));
                // Best effort: what stays is dropped by the shard, later.
                let _ = store.command(place, command, Vec::new()).await;
            }
        };
        // Without a runtime the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(giving_up);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// What a command that puts messages into an account completes.
pub(crate) struct Completes {
    account: AccountId,
    uploads: Vec<UploadId>,
}

/// `None` for a command that brings no message.
pub(crate) fn completed_by(command: &Command) -> Option<Completes> {
    match command {
        Command::Deliver(it) => {
            let uploads = it.message.upload.into_iter().collect();
            Some(Completes { account: it.account, uploads })
        }
        Command::Append(it) => {
            let uploads = it.messages.iter().filter_map(|new| new.message.upload).collect();
            Some(Completes { account: it.account, uploads })
        }
        _ => None,
    }
}
