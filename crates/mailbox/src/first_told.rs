//! Who was told of arrivals first: RFC 3501 2.3.2 has a message `\Recent` in one session alone. Enter at
//! [`FirstTold::settle`] with each answer, and at [`FirstTold::settle_claim`] with what came of each claim.
//!
//! It is the memory of a shard's leader, so that an arrival costs no entry of its own; what sessions were
//! told they claim for good when they leave. What is forgotten is `\Recent` to the next one too, as the RFC
//! has it where nobody can know.

use std::collections::BTreeMap;

use crate::answer::{Answer, MailboxInfo, MessageRecord};
use crate::command::OfMailbox;
use crate::ids::{AccountId, MailboxId, Uid};
use crate::outcome::Outcome;
use crate::query::{Messages, Query};

/// Limit: mailboxes of one shard in each of two generations, some 5 MiB together. Those count in which a
/// session was told of arrivals or claimed some.
const GENERATION_MAX: usize = 32 * 1024;

type Key = (AccountId, MailboxId);

/// What the sessions of a shard were told.
#[derive(Debug, Default)]
pub struct FirstTold {
    /// Known in this term, and forgotten with it: another leader may have told more in between.
    term: u64,
    young: BTreeMap<Key, Told>,
    old: BTreeMap<Key, Told>,
}

/// All below `next` were told as news, those from `from` on to one session; all below `claimed` were claimed.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    from: u32,
    next: u32,
    to: Option<u64>,
    claimed: u32,
}

impl Told {
    /// Whether nobody else was told. Why also those that it was told itself: the answer may have got lost.
    fn leaves(&self, uid: u32, to: Option<u64>) -> bool {
        let is_own = (self.from..self.next).contains(&uid) && to.is_some() && to == self.to;
        is_own || uid >= self.end()
    }

    /// What is below is somebody's.
    fn end(&self) -> u32 {
        self.next.max(self.claimed)
    }
}

impl FirstTold {
    /// Whether an answer says anything that has to be settled. Why not one of bodies: it is kept for whoever
    /// asks next, so nobody learns from it what is `\Recent`.
    pub fn concerns(query: &Query, answer: &Answer) -> bool {
        match answer {
            Answer::Messages(..) if matches!(query, Query::Bodies(_)) => false,
            Answer::Messages(records, _) | Answer::News(_, records, ..) => {
                records.iter().any(|record| record.recent)
            }
            Answer::Mailbox(info) | Answer::Opened(info, ..) => info.n_recent > 0,
            Answer::Mailboxes(infos, _) => infos.iter().any(|info| info.n_recent > 0),
            _ => false,
        }
    }

    /// Takes out of an answer what others were told before, and notes what is told now to a session that
    /// said who it is.
    pub fn settle(&mut self, term: u64, query: &Query, answer: &mut Answer) {
        self.enter(term);
        match (query, answer) {
            (
                Query::Messages(asked) | Query::News(_, asked, _),
                Answer::Messages(records, _) | Answer::News(_, records, ..),
            ) => self.settle_records(asked, records),
            (_, Answer::Mailbox(info) | Answer::Opened(info, ..)) => self.settle_info(info),
            (_, Answer::Mailboxes(infos, _)) => {
                infos.iter_mut().for_each(|info| self.settle_info(info));
            }
            _ => {}
        }
    }

    /// The same for a claim of all below a UID.
    pub fn settle_claim(
        &mut self,
        term: u64,
        (of, below): (OfMailbox, Option<Uid>),
        outcome: &mut Outcome,
    ) {
        self.enter(term);
        let Outcome::RecentFrom(from) = outcome else { return };
        let told = self.find(of).unwrap_or_default();
        // Why not other claims: the log has them in order, and they come here as they happen to, also again.
        if let Some(next) = Uid::new(told.next) {
            *from = next.max(*from);
        }
        // Why: an answer that was read before the claim may be settled behind it.
        let claimed = below.map_or(0, Uid::value);
        if claimed > told.end() {
            self.note(of, Told { claimed, ..told });
        }
    }

    fn settle_records(&mut self, asked: &Messages, records: &mut [MessageRecord]) {
        let told = self.find(asked.of);
        for record in records.iter_mut() {
            let is_left = told.is_none_or(|told| told.leaves(record.uid.value(), asked.recent_to));
            record.recent &= is_left;
        }
        let mut recent = records.iter().filter(|record| record.recent);
        let Some(first) = recent.next() else { return };
        let last = recent.next_back().unwrap_or(first);
        let (first, next) = (first.uid.value(), last.uid.value().saturating_add(1));
        if asked.recent_to.is_none() || told.is_some_and(|told| next <= told.next) {
            return;
        }
        // What it was told in answers before this one is its own as well, unless a claim lies between.
        let own = told.filter(|told| told.to == asked.recent_to && told.claimed <= told.next);
        let from = own.map_or(first, |told| told.from);
        let claimed = told.map_or(0, |told| told.claimed);
        self.note(asked.of, Told { from, next, to: asked.recent_to, claimed });
    }

    fn settle_info(&self, info: &mut MailboxInfo) {
        if info.n_recent == 0 {
            return;
        }
        let Some(next) = self.find(info.of).and_then(|told| Uid::new(told.end())) else { return };
        if next > info.first_recent {
            info.first_recent = next;
            // Why not more exactly: those of them that are gone already nobody was told of.
            let n_later = info.uid_next.value().saturating_sub(next.value());
            info.n_recent = info.n_recent.min(n_later);
        }
    }

    fn find(&self, of: OfMailbox) -> Option<Told> {
        let key = (of.account, of.mailbox);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn note(&mut self, of: OfMailbox, told: Told) {
        let key = (of.account, of.mailbox);
        if self.young.len() >= GENERATION_MAX && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, told);
    }

    /// Why not back: what was answered in a term before may be settled late.
    fn enter(&mut self, term: u64) {
        if term > self.term {
            *self = Self { term, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::command::InternalDate;
    use crate::flags::Flags;
    use crate::ids::{EmailId, LogTime, ModSeq, ThreadId};
    use crate::uid_set::UidSet;

    const OF: OfMailbox = OfMailbox { account: AccountId([7; 16]), mailbox: MailboxId(1) };

    fn uid(uid: u32) -> Uid {
        Uid::new(uid).unwrap()
    }

    fn record(number: u32) -> MessageRecord {
        MessageRecord {
            uid: uid(number),
            modseq: ModSeq::FIRST,
            flags: Flags::default(),
            internal_date: InternalDate { unix_s: 0, zone_minutes: 0 },
            save_date: LogTime(0),
            size: 1,
            email_id: EmailId(1),
            thread_id: ThreadId(1),
            uidl: None,
            expunged: false,
            metadata: None,
            body: None,
            metadata_chunks: Vec::new(),
            envelope: None,
            recent: true,
        }
    }

    fn asked(recent_to: Option<u64>) -> Messages {
        Messages {
            of: OF,
            uids: UidSet::all(),
            changed_since: Some(1),
            metadata: false,
            chunks: false,
            expunged: false,
            only_envelope: false,
            recent_to,
        }
    }

    /// Which of these messages, all arrivals that nobody claimed, are `\Recent` to who asks.
    fn recent(told: &mut FirstTold, to: Option<u64>, uids: &[u32]) -> Vec<u32> {
        recent_in(1, told, to, uids)
    }

    fn recent_in(term: u64, told: &mut FirstTold, to: Option<u64>, uids: &[u32]) -> Vec<u32> {
        let records = uids.iter().map(|uid| record(*uid)).collect();
        let mut answer = Answer::Messages(records, None);
        let query = Query::Messages(asked(to));
        assert!(FirstTold::concerns(&query, &answer));
        told.settle(term, &query, &mut answer);
        let Answer::Messages(records, _) = answer else { panic!("{answer:?}") };
        let recent = records.iter().filter(|record| record.recent);
        recent.map(|record| record.uid.value()).collect()
    }

    /// From where on a claim of all below a UID gets them, when by the log it gets those from `from` on.
    fn claimed(told: &mut FirstTold, from: u32, below: u32) -> u32 {
        let mut outcome = Outcome::RecentFrom(uid(from));
        told.settle_claim(1, (OF, Uid::new(below)), &mut outcome);
        let Outcome::RecentFrom(from) = outcome else { panic!("{outcome:?}") };
        from.value()
    }

    #[test]
    fn what_is_not_recent_costs_no_octet() {
        let (yes, no) = (record(3), MessageRecord { recent: false, ..record(3) });
        let [yes_octets, no_octets] = [&yes, &no].map(codec::encode);
        // Nothing for what stands between, and the flag itself.
        assert_eq!(no_octets.len() + 2, yes_octets.len());
        assert_eq!(codec::decode::<MessageRecord>(&yes_octets), Ok(yes));
        assert_eq!(codec::decode::<MessageRecord>(&no_octets), Ok(no));
    }

    #[test]
    fn an_answer_is_settled_where_somebody_learns_from_it_what_is_recent() {
        let of = |recent| Answer::Messages(vec![MessageRecord { recent, ..record(3) }], None);
        assert!(FirstTold::concerns(&Query::Messages(asked(None)), &of(true)));
        assert!(!FirstTold::concerns(&Query::Messages(asked(None)), &of(false)));
        assert!(!FirstTold::concerns(&Query::Bodies(asked(None)), &of(true)));
    }

    #[test]
    fn an_arrival_is_recent_to_who_was_told_first() {
        let mut told = FirstTold::default();
        assert_eq!(recent(&mut told, None, &[3]), [3], "who only looks takes nothing away");
        assert_eq!(recent(&mut told, Some(1), &[3, 5]), [3, 5]);
        assert_eq!(recent(&mut told, Some(2), &[3, 5]), [0; 0]);
        assert_eq!(recent(&mut told, None, &[3, 5]), [0; 0]);
        assert_eq!(recent(&mut told, Some(1), &[3, 5]), [3, 5], "asked again");
        assert_eq!(recent(&mut told, Some(1), &[6]), [6]);
        assert_eq!(recent(&mut told, Some(1), &[3, 5, 6]), [3, 5, 6]);
        assert_eq!(recent(&mut told, Some(2), &[5, 6, 7, 8]), [7, 8]);
        assert_eq!(recent(&mut told, Some(1), &[5, 6, 7, 8, 9]), [9]);
    }

    #[test]
    fn another_leader_knows_of_nothing() {
        let mut told = FirstTold::default();
        assert_eq!(recent_in(1, &mut told, Some(1), &[3]), [3]);
        assert_eq!(recent_in(2, &mut told, Some(2), &[3]), [3]);
        assert_eq!(recent_in(1, &mut told, Some(1), &[3]), [0; 0], "settled late");
        assert_eq!(recent_in(2, &mut told, Some(1), &[3]), [0; 0]);
    }

    #[test]
    fn what_sessions_were_told_no_claim_gets() {
        let mut told = FirstTold::default();
        assert_eq!(recent(&mut told, Some(1), &[3, 5]), [3, 5]);
        assert_eq!(claimed(&mut told, 2, 4), 6);
        assert_eq!(claimed(&mut told, 2, 9), 6);
        // What was read before that, and is settled behind it.
        assert_eq!(recent(&mut told, Some(2), &[5, 6, 8]), [0; 0]);
        assert_eq!(recent(&mut told, Some(1), &[5, 8, 9]), [5, 9]);
        assert_eq!(claimed(&mut told, 9, 10), 10);
    }

    #[test]
    fn of_claims_the_log_decides_in_whatever_order_they_come() {
        let mut told = FirstTold::default();
        assert_eq!(claimed(&mut told, 13, 13), 13);
        assert_eq!(claimed(&mut told, 10, 13), 10);
        assert_eq!(claimed(&mut told, 10, 13), 10, "asked again");
        assert_eq!(recent(&mut told, Some(1), &[10, 12]), [0; 0], "read before the claims");
        assert_eq!(recent(&mut told, Some(1), &[12, 13, 15]), [13, 15]);
        assert_eq!(recent(&mut told, Some(2), &[12, 13, 15]), [0; 0]);
        assert_eq!(claimed(&mut told, 13, 17), 16);
        assert_eq!(recent(&mut told, Some(1), &[12, 13, 16, 17]), [13, 17]);
    }

    #[test]
    fn few_mailboxes_are_remembered() {
        let mut told = FirstTold::default();
        for n in 0..3 * GENERATION_MAX as u64 {
            let of = OfMailbox { mailbox: MailboxId(n), ..OF };
            told.note(of, Told { from: 1, next: 2, ..Told::default() });
        }
        assert!(told.young.len() + told.old.len() <= 2 * GENERATION_MAX);
        let last = OfMailbox { mailbox: MailboxId(3 * GENERATION_MAX as u64 - 1), ..OF };
        assert!(told.find(last).is_some());
        // One that is known already takes no place of another one.
        for _ in 0..2 {
            told.note(last, Told::default());
        }
        assert_eq!(told.young.len() + told.old.len(), 2 * GENERATION_MAX);
    }
}
