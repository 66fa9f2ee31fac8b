//! The AUTHORIZATION state (RFC 1939 4), up to the maildrop that is locked and listed.

use mailbox::answer::Answer;
use mailbox::command::NamedMailbox;
use mailbox::dialogue::{Credentials, Question, Reply};
use mailbox::{MailboxName, Query, Uid};

use super::{Doing, Session, trouble};
use crate::maildrop::Maildrop;
use crate::parse::Request;
use crate::{AUTH_FAILURES_MAX, refuse, sasl};

impl Session {
    /// Whether passwords may come over this connection.
    pub(super) fn takes_passwords(&self) -> bool {
        self.settings.is_tls || self.settings.allow_plain_login
    }

    /// Whether STLS would begin TLS before the login.
    pub(super) fn has_tls_to_start(&self) -> bool {
        self.settings.can_start_tls && !self.settings.is_tls
    }

    pub(super) fn authorize(&mut self, request: Request) {
        let is_login = matches!(
            request,
            Request::User(_) | Request::Pass(_) | Request::AuthList | Request::AuthPlain(_)
        );
        if is_login && !self.takes_passwords() {
            self.say(refuse::NEED_TLS);
            return;
        }
        match request {
            Request::Stls if self.has_tls_to_start() => {
                self.say("+OK Begin TLS");
                self.input.clear();
                self.doing = Doing::StartingTls;
            }
            Request::Stls => self.bad("-ERR TLS is not available"),
            // RFC 6856 2.1: only before the login; messages are sent as they are in either mode.
            Request::Utf8 => self.say("+OK UTF-8 it is"),
            Request::User(login) => {
                self.user = Some(login);
                self.say("+OK");
            }
            Request::Pass(password) => match self.user.take() {
                Some(login) => self.authenticate(Credentials { login, password }),
                None => self.bad("-ERR Say USER first"),
            },
            Request::AuthList => self.say("+OK\r\nPLAIN\r\n."),
            Request::AuthPlain(Some(response)) => self.sasl_response(&response),
            Request::AuthPlain(None) => {
                self.say("+ ");
                self.doing = Doing::Responding;
            }
            Request::AuthOther => self.bad("-ERR Unknown mechanism, use PLAIN"),
            Request::Last => self.say(refuse::NO_LAST),
            _ => self.bad(refuse::LOG_IN_FIRST),
        }
    }

    pub(super) fn sasl_response(&mut self, response: &[u8]) {
        if response == b"*" {
            self.say("-ERR Cancelled");
            return;
        }
        match sasl::plain(response) {
            Some(credentials) => self.authenticate(credentials),
            None => self.bad("-ERR Not a PLAIN response"),
        }
    }

    fn authenticate(&mut self, credentials: Credentials) {
        self.ask(Doing::Authenticating, Question::Authenticate(credentials));
    }

    pub(super) fn authenticated(&mut self, reply: Reply) {
        match reply {
            Reply::Authenticated(login) => {
                let account = login.account;
                self.login = Some(login);
                self.ask(Doing::Locking, Question::LockMaildrop(account));
            }
            Reply::Denied => self.refused(refuse::DENIED),
            Reply::Disabled => self.refused(refuse::DISABLED),
            // Why counted: each asked the store, and whoever has the password would ask without end.
            Reply::TooMany => self.refused(refuse::TOO_MANY),
            reply => self.say(trouble(&reply)),
        }
    }

    fn refused(&mut self, words: &str) {
        self.say(words);
        self.n_auth_failures += 1;
        if self.n_auth_failures >= AUTH_FAILURES_MAX {
            self.close();
        }
    }

    pub(super) fn locked(&mut self, reply: Reply) {
        match (reply, &self.login) {
            (Reply::Done, Some(login)) => {
                let inbox = NamedMailbox { account: login.account, name: MailboxName::inbox() };
                self.ask(Doing::Opening, Question::Query(Query::Mailbox(inbox)));
            }
            (Reply::InUse, _) => {
                self.login = None;
                self.say(refuse::IN_USE);
            }
            (reply, _) => {
                self.login = None;
                self.say(trouble(&reply));
            }
        }
    }

    pub(super) fn opened(&mut self, reply: Reply) {
        match reply {
            Reply::Answer(Answer::Mailbox(inbox)) => {
                let maildrop = Maildrop::new(inbox.of, inbox.uid_validity);
                self.load(Uid::FIRST, maildrop);
            }
            reply => self.unlock(trouble(&reply), false),
        }
    }

    fn load(&mut self, from: Uid, maildrop: Maildrop) {
        let page = maildrop.page(from);
        self.ask(Doing::Loading(maildrop), Question::Query(Query::Messages(page)));
    }

    pub(super) fn loaded(&mut self, reply: Reply, mut maildrop: Maildrop) {
        match reply {
            Reply::Answer(Answer::Messages(records, next)) => {
                maildrop.add(records);
                if let Some(next) = next {
                    self.load(next, maildrop);
                    return;
                }
                let (n_messages, n_bytes) = maildrop.stat();
                self.say(&format!("+OK {n_messages} messages, {n_bytes} octets"));
                self.maildrop = Some(maildrop);
                self.admitted = self.now;
                self.n_bad = 0;
            }
            reply => self.unlock(trouble(&reply), false),
        }
    }
}
