//! What was sent ahead of messages: it is let go of when the command that was to complete its message is
//! refused, else it would count for ten minutes.

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

    /// What came of the command that was to complete these. If it was done, or may have been or be, they
    /// are not ours any more.
    pub(crate) fn ended(
        &mut self,
        uploads: &[(AccountId, UploadId)],
        it: Result<&Outcome, &Trouble>,
    ) {
        match it {
            Ok(Outcome::Refused(_)) => {}
            Err(trouble) if *trouble != Trouble::Unknown => {}
            _ => self.uploads.retain(|upload, _| !uploads.contains(upload)),
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

/// The uploads that a command completes, and whose they are.
pub(crate) fn completed_by(command: &Command) -> Vec<(AccountId, UploadId)> {
    match command {
        Command::Deliver(it) => {
            it.message.upload.iter().map(|upload| (it.account, *upload)).collect()
        }
        Command::Append(it) => {
            let uploads = it.messages.iter().filter_map(|new| new.message.upload);
            uploads.map(|upload| (it.account, upload)).collect()
        }
        _ => Vec::new(),
    }
}
