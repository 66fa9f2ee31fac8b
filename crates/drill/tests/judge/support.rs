//! Histories written by hand, one line per operation.

use std::collections::BTreeSet;

use drill::{
    Event, FlagChange, History, Operation, Placed, Promise, Record, Reply, Target, Verdict, View,
    ViewedMessage, check,
};

/// UIDVALIDITY of every mailbox in these histories.
const VALIDITY: u32 = 9;

/// A history in the making; every operation is told with its start and end.
#[derive(Default)]
pub struct Story {
    pub history: History,
    n_clients: u32,
}

pub fn ack(reply: Reply) -> Verdict {
    Verdict::Acknowledged { reply }
}

pub fn done() -> Verdict {
    ack(Reply::Done)
}

pub fn changed(uids: &[u32]) -> Verdict {
    ack(Reply::Changed { uids: uids.to_vec() })
}

pub fn placed(uid: u32) -> Verdict {
    ack(Reply::Placed(Placed { uid_validity: VALIDITY, uids: vec![uid], sources: Vec::new() }))
}

pub fn carried(source: u32, uid: u32) -> Verdict {
    let (uids, sources) = (vec![uid], vec![source]);
    ack(Reply::Placed(Placed { uid_validity: VALIDITY, uids, sources }))
}

pub fn refused() -> Verdict {
    Verdict::Refused { why: "no majority".into() }
}

pub fn unknown() -> Verdict {
    Verdict::Unknown { why: "time ran out".into() }
}

fn flags(names: &str) -> BTreeSet<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

fn targets(uid: u32, token: &str) -> Vec<Target> {
    vec![Target { uid, token: token.into() }]
}

/// `uid token flags..` per message; the digest is that of the token unless given as `token=digest`.
pub fn view(messages: &[&str]) -> View {
    let messages = messages.iter().map(|line| {
        let mut words = line.split_whitespace();
        let uid = words.next().expect("a UID").parse().expect("a UID");
        let word = words.next().expect("a token");
        let (token, digest) = word.split_once('=').unwrap_or((word, word));
        let set = words.map(str::to_owned).collect();
        let digest = Some(format!("digest of {digest}"));
        ViewedMessage { uid, token: token.into(), digest, flags: Some(set), modseq: None }
    });
    View {
        uid_validity: VALIDITY,
        uid_next: None,
        highest_modseq: None,
        complete: true,
        messages: messages.collect(),
    }
}

impl Story {
    fn event(&mut self, (start_us, end_us): (u64, u64), operation: Operation, verdict: Verdict) {
        // Every operation gets a client of its own: only times decide what is concurrent.
        self.n_clients += 1;
        let (client, account) = (self.n_clients, "anna".into());
        let event = Event { client, account, start_us, end_us, operation, verdict };
        self.history.records.push(Record::Event(event));
    }

    pub fn deliver(mut self, time: (u64, u64), token: &str, verdict: Verdict) -> Self {
        let digest = format!("digest of {token}");
        let (mailbox, token, flags) = ("INBOX".into(), token.into(), flags(""));
        self.event(time, Operation::Deliver { mailbox, token, digest, flags }, verdict);
        self
    }

    /// `change` is `+`, `-` or `=` and the flags.
    pub fn store(
        mut self,
        time: (u64, u64),
        (uid, token): (u32, &str),
        change: &str,
        verdict: Verdict,
    ) -> Self {
        let (how, names) = change.split_at(1);
        let change = match how {
            "+" => FlagChange::Add,
            "-" => FlagChange::Remove,
            _ => FlagChange::Replace,
        };
        let (mailbox, targets) = ("INBOX".into(), targets(uid, token));
        let operation = Operation::Store { mailbox, targets, change, flags: flags(names) };
        self.event(time, operation, verdict);
        self
    }

    pub fn move_(mut self, time: (u64, u64), (uid, token): (u32, &str), verdict: Verdict) -> Self {
        let (from, to, targets) = ("INBOX".into(), "Archive".into(), targets(uid, token));
        self.event(time, Operation::Move { from, to, targets }, verdict);
        self
    }

    pub fn copy(mut self, time: (u64, u64), (uid, token): (u32, &str), verdict: Verdict) -> Self {
        let (from, to, targets) = ("INBOX".into(), "Archive".into(), targets(uid, token));
        self.event(time, Operation::Copy { from, to, targets }, verdict);
        self
    }

    pub fn expunge(
        mut self,
        time: (u64, u64),
        (uid, token): (u32, &str),
        verdict: Verdict,
    ) -> Self {
        let (mailbox, targets) = ("INBOX".into(), targets(uid, token));
        self.event(time, Operation::Expunge { mailbox, targets }, verdict);
        self
    }

    pub fn read(self, time: (u64, u64), mailbox: &str, messages: &[&str]) -> Self {
        self.look(time, mailbox, view(messages))
    }

    pub fn look(mut self, time: (u64, u64), mailbox: &str, view: View) -> Self {
        let operation = Operation::Read { mailbox: mailbox.into() };
        self.event(time, operation, ack(Reply::Viewed(view)));
        self
    }

    /// The last operation was another one of that client.
    pub fn of_client(mut self, client: u32) -> Self {
        if let Some(Record::Event(event)) = self.history.records.last_mut() {
            event.client = client;
        }
        self
    }

    /// What is there in the end.
    pub fn finally(mut self, inbox: &[&str], archive: &[&str]) -> Self {
        for (mailbox, messages) in [("INBOX", inbox), ("Archive", archive)] {
            let (account, mailbox) = ("anna".into(), mailbox.into());
            let view = view(messages);
            self.history.records.push(Record::Final { account, mailbox, view });
        }
        self
    }

    /// The promises broken, each with its sentence.
    pub fn broken(&self) -> Vec<(Promise, String)> {
        check(&self.history).into_iter().map(|found| (found.promise, found.sentence)).collect()
    }

    #[track_caller]
    pub fn is_legal(&self) {
        assert_eq!(self.broken(), Vec::new());
    }

    /// This promise is broken, and the sentence names all of these.
    #[track_caller]
    pub fn breaks(&self, promise: Promise, names: &[&str]) {
        let broken = self.broken();
        let found = broken
            .iter()
            .any(|(of, words)| *of == promise && names.iter().all(|name| words.contains(name)));
        assert!(found, "{promise:?} with {names:?} is not among {broken:#?}");
    }
}
