//! What all commands of a session share.

use mailbox::dialogue::Login;
use mailbox::{AccountId, LogTime, MailboxId, UploadId};

use crate::output::Output;
use crate::selected::Selected;

/// What a session is told of its surroundings.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the greeting.
    pub hostname: String,
    /// Whether STARTTLS can be done.
    pub tls_available: bool,
    /// Whether the connection is inside TLS from its start.
    pub tls_active: bool,
    /// Whether passwords may be sent outside TLS.
    pub plain_logins_allowed: bool,
    /// Octets of the largest message taken.
    pub message_bytes_max: u64,
    /// Between the levels of mailbox names.
    pub separator: char,
    /// Random, another for every session: COPY's stagings are named from it.
    pub nonce: [u8; 16],
}

/// What the client switched on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Enabled {
    /// RFC 7162: MODSEQ is told with flags.
    pub(crate) condstore: bool,
    /// RFC 7162: VANISHED is told instead of EXPUNGE.
    pub(crate) qresync: bool,
    /// RFC 9755: names and strings are UTF-8.
    pub(crate) utf8: bool,
    /// RFC 9051: the client speaks IMAP4rev2.
    pub(crate) rev2: bool,
}

impl Enabled {
    /// Whether mailbox names are UTF-8 rather than modified UTF-7 (RFC 9051 5.1, RFC 9755 3).
    pub(crate) fn has_utf8_names(self) -> bool {
        self.utf8 || self.rev2
    }
}

/// A session, without the command it is busy with.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) now: LogTime,
    pub(crate) out: Output,
    pub(crate) tls: bool,
    pub(crate) login: Option<Login>,
    pub(crate) selected: Option<Selected>,
    pub(crate) enabled: Enabled,
    /// Both directions are compressed (RFC 4978).
    pub(crate) compressed: bool,
    /// Of the command in progress.
    pub(crate) tag: String,
    n_uploads: u64,
}

impl Context {
    pub(crate) fn new(config: Config) -> Self {
        let tls = config.tls_active;
        Self {
            config,
            now: LogTime(0),
            out: Output::default(),
            tls,
            login: None,
            selected: None,
            enabled: Enabled::default(),
            compressed: false,
            tag: String::new(),
            n_uploads: 0,
        }
    }

    /// Whose session this is.
    pub(crate) fn account(&self) -> AccountId {
        self.login.as_ref().expect("commands that need an account come after login").account
    }

    /// The selected mailbox.
    pub(crate) fn selected(&mut self) -> &mut Selected {
        self.selected.as_mut().expect("commands that need a mailbox come after SELECT")
    }

    /// Output and the selected mailbox, if there is one.
    pub(crate) fn parts(&mut self) -> (&mut Output, Option<&mut Selected>, Enabled) {
        (&mut self.out, self.selected.as_mut(), self.enabled)
    }

    /// RFC 7162 3.1: the command asks for mod-sequences. The first that does brings HIGHESTMODSEQ of
    /// the selected mailbox.
    pub(crate) fn enable_condstore(&mut self) {
        if std::mem::replace(&mut self.enabled.condstore, true) {
            return;
        }
        if let Some(selected) = &self.selected {
            let modseq = selected.told_up_to();
            self.out.text(&format!("* OK [HIGHESTMODSEQ {modseq}] mod-sequences are told\r\n"));
        }
    }

    /// This session itself put messages into a mailbox.
    pub(crate) fn note_arrivals(&mut self, mailbox: MailboxId) {
        if let Some(selected) = &mut self.selected {
            selected.note_arrivals(mailbox);
        }
    }

    /// Whether a password may be sent now.
    pub(crate) fn may_log_in(&self) -> bool {
        self.tls || self.config.plain_logins_allowed
    }

    /// Who this session is where arrivals are told.
    pub(crate) fn recent_to(&self) -> u64 {
        self.config.nonce.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte))
    }

    /// A name for a staging that nobody else uses.
    pub(crate) fn new_upload(&mut self) -> UploadId {
        self.n_uploads += 1;
        let mut id = self.config.nonce;
        for (byte, count) in id[8..].iter_mut().zip(self.n_uploads.to_be_bytes()) {
            *byte ^= count;
        }
        UploadId(id)
    }

    /// What can be done now (RFC 9051 7.2.2).
    pub(crate) fn capabilities(&self) -> String {
        // Why IDLE before the login too: fetchmail, imaplib and Outlook look only there.
        let mut all = String::from("IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE IDLE");
        if self.login.is_none() {
            if self.config.tls_available && !self.tls {
                all.push_str(" STARTTLS");
            }
            all.push_str(if self.may_log_in() { " AUTH=PLAIN" } else { " LOGINDISABLED" });
            return all;
        }
        all.push_str(
            " NAMESPACE CHILDREN UNSELECT UIDPLUS MOVE SPECIAL-USE CREATE-SPECIAL-USE \
             CONDSTORE QRESYNC OBJECTID STATUS=SIZE LIST-EXTENDED LIST-STATUS ESEARCH SEARCHRES \
             SORT SORT=DISPLAY THREAD=ORDEREDSUBJECT THREAD=REFERENCES WITHIN SAVEDATE PREVIEW \
             BINARY MULTIAPPEND REPLACE UTF8=ACCEPT QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE \
             APPENDLIMIT=",
        );
        all.push_str(&self.config.message_bytes_max.to_string());
        if !self.compressed {
            all.push_str(" COMPRESS=DEFLATE");
        }
        all
    }
}
