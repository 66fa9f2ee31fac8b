//! LHLO, MAIL, RCPT: what comes before the message.

use mailbox::Address;
use mailbox::dialogue::{Question, Reply};

use super::{Doing, Recipient, Session, Transaction, why};
use crate::parse::Mail;
use crate::refuse::{self, Words};
use crate::{DELIVERIES_MAX, RECIPIENTS_MAX};

impl Session {
    pub(super) fn bad(&mut self, words: Words) -> Words {
        self.n_bad += 1;
        words
    }

    /// For what needs MAIL. Why it is no bad command after LHLO: RFC 2920 has RCPT and DATA sent behind a
    /// MAIL that may be refused.
    pub(super) fn mail_first(&mut self) -> Words {
        if self.client.is_none() {
            return self.bad(Words::MailFirst);
        }
        Words::MailFirst
    }

    pub(super) fn lhlo(&mut self, name: String) {
        self.n_bad = 0;
        self.client = Some(name);
        let lines = format!(
            "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n\
             250-SIZE {}\r\n250 ENHANCEDSTATUSCODES",
            self.settings.hostname, self.settings.message_bytes_max
        );
        self.say(&lines);
    }

    /// Forgets the transaction, whom it was for and what of its message came already.
    pub(super) fn begin_anew(&mut self) -> Option<Question> {
        let transaction = self.transaction.take()?;
        if transaction.recipients.is_empty() && transaction.chunks.is_none() {
            return None;
        }
        self.doing = Doing::Discarding;
        Some(Question::DropBody)
    }

    pub(super) fn mail(&mut self, mail: Mail) -> Words {
        if self.client.is_none() {
            return self.bad(Words::LhloFirst);
        }
        if self.transaction.is_some() {
            return self.bad(Words::NestedMail);
        }
        if mail.size.is_some_and(|size| size > self.settings.message_bytes_max) {
            return Words::TooLarge;
        }
        self.n_bad = 0;
        self.n_transactions += 1;
        self.transaction = Some(Transaction { mail, recipients: Vec::new(), chunks: None });
        Words::SenderOk
    }

    pub(super) fn rcpt(&mut self, path: String) -> Result<Question, Words> {
        let Some(transaction) = &self.transaction else { return Err(self.mail_first()) };
        if transaction.chunks.is_some() {
            return Err(self.bad(Words::InChunks));
        }
        if transaction.recipients.len() >= RECIPIENTS_MAX {
            return Err(Words::TooManyRecipients);
        }
        if !path.is_ascii() && !transaction.mail.is_utf8 {
            return Err(Words::NotAnnounced);
        }
        // RFC 5321 4.1.1.3: the one name that needs no domain; it is this host's then.
        let parsed = match path.eq_ignore_ascii_case("postmaster") {
            true => Address::parse(&format!("{path}@{}", self.settings.hostname)),
            false => Address::parse(&path),
        };
        let (address, detail) = parsed.map_err(|_| Words::BadRecipient)?;
        self.doing = Doing::Resolving { detail, address: path };
        Ok(Question::Recipient(address))
    }

    pub(super) fn resolved(&mut self, reply: Reply, address: String, detail: Option<String>) {
        let words = match (reply, &mut self.transaction) {
            (Reply::Recipient(accounts), _) if accounts.is_empty() => Words::NoSuchRecipient.text(),
            (Reply::Recipient(accounts), Some(transaction)) => {
                let n_before: usize = transaction.recipients.iter().map(Recipient::n_members).sum();
                if n_before > 0 && n_before + accounts.len() > DELIVERIES_MAX {
                    Words::TooManyRecipients.text()
                } else {
                    transaction.recipients.push(Recipient {
                        accounts,
                        detail,
                        address,
                        refusal: None,
                        looks: None,
                    });
                    Words::RecipientOk.text()
                }
            }
            (reply, _) => refuse::trouble(why(&reply)),
        };
        self.say(words);
    }
}
