//! One message's FETCH response on its way.

use std::fmt::Write as _;

use bytes::Bytes;
use mailbox::chunk::ChunkRef;
use mailbox::{Flags, MessageRecord, ModSeq, Uid};
use mime::Range;

use super::binary::{Decodable, Decoding};
use super::fields::Fields;
use super::section::{self, Octets};
use crate::context::Context;
use crate::date;
use crate::limits::FIELDS_AT_ONCE_BYTES;
use crate::output::Output;
use crate::parse::{Item, Section};
use crate::respond::{envelope, flags, structure};
use mailbox::command::InternalDate;

/// How far telling a message came.
pub(super) enum Progress {
    /// All is told.
    Done,
    /// What was written should be sent first.
    Full,
    /// This chunk is needed.
    Chunk(ChunkRef),
    /// The chunks hold less than the record says.
    Damaged,
}

/// Octets of the message that are being read.
enum Reading {
    Nothing,
    /// Told as they come; `begun` once the literal's size is written.
    Literal {
        at: u64,
        end: u64,
        begun: bool,
    },
    /// Looked through to the end before the literal's size is known.
    Header {
        at: u64,
        end: u64,
        /// It takes so long that others should have a turn behind it.
        is_long: bool,
        fields: Fields,
    },
    /// Decoded twice: counted, then told.
    Binary(Box<Decoding>),
}

/// A message and how much of it is told.
pub(super) struct Row {
    record: MessageRecord,
    /// `\Seen` was set by this very FETCH.
    is_newly_seen: bool,
    has_begun: bool,
    seqnum: u32,
    /// Some of the response is written.
    is_open: bool,
    /// Items told, or left out.
    n_told: usize,
    reading: Reading,
    /// The chunk at hand and where it begins in the message.
    chunk: Option<(u64, Bytes)>,
    /// The chunk asked for, likewise.
    asked: Option<(u64, ChunkRef)>,
    /// A transfer encoding was not known.
    has_unknown: bool,
}

/// What a NUL of the message is told as: RFC 9051 4.3.1 has none in a literal. Senders do put it in; another
/// octet in its place leaves sizes as they are, and this one is what Dovecot tells.
const INSTEAD_OF_NUL: u8 = 0x80;

/// Octets as a literal may hold them.
fn without_nul(octets: Bytes) -> Bytes {
    if !octets.contains(&0) {
        return octets;
    }
    octets.iter().map(|byte| if *byte == 0 { INSTEAD_OF_NUL } else { *byte }).collect()
}

/// How the response names the octets of an item.
fn label(item: Option<&Item>) -> &str {
    match item {
        Some(Item::Section(section) | Item::Binary(section) | Item::BinarySize(section)) => {
            &section.label
        }
        _ => "",
    }
}

impl Row {
    pub(super) fn new(record: MessageRecord) -> Self {
        Self {
            record,
            is_newly_seen: false,
            has_begun: false,
            seqnum: 0,
            is_open: false,
            n_told: 0,
            reading: Reading::Nothing,
            chunk: None,
            asked: None,
            has_unknown: false,
        }
    }

    /// Whether a transfer encoding was not known.
    pub(super) fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    pub(super) fn uid(&self) -> Uid {
        self.record.uid
    }

    /// `\Seen` was set for the client's sake.
    pub(super) fn was_seen(&mut self, flags: Flags, modseq: ModSeq) {
        self.record.flags = flags;
        self.record.modseq = modseq;
        self.is_newly_seen = true;
    }

    /// The chunk that was asked for; false if it is not what it should be.
    pub(super) fn got(&mut self, octets: Bytes) -> bool {
        let Some((start, chunk)) = self.asked.take() else { return false };
        let fits = octets.len() as u64 == u64::from(chunk.raw_len);
        self.chunk = Some((start, octets));
        fits
    }

    /// The octets wanted cannot be had: their item is left out, for clients keep NIL as an empty message.
    /// False if a literal was begun already.
    pub(super) fn give_up(&mut self) -> bool {
        let is_lost = match &self.reading {
            Reading::Literal { begun, .. } => *begun,
            Reading::Binary(decoding) => decoding.is_second_pass(),
            Reading::Header { .. } => false,
            Reading::Nothing => true,
        };
        if is_lost {
            return false;
        }
        self.n_told += 1;
        self.reading = Reading::Nothing;
        self.chunk = None;
        self.asked = None;
        true
    }

    /// Goes on telling.
    pub(super) fn tell(&mut self, cx: &mut Context, items: &[Item]) -> Progress {
        if !self.has_begun && !self.begin(cx, items) {
            return Progress::Done;
        }
        loop {
            // Why after each item: the structure of a message of many parts is a megabyte.
            if cx.out.is_full() {
                return Progress::Full;
            }
            match self.read(cx, items) {
                Some(progress) => return progress,
                None if self.n_told < items.len() => self.item(cx, &items[self.n_told]),
                None => break,
            }
        }
        if self.is_newly_seen {
            self.tell_seen(cx, items);
        }
        if self.is_open {
            cx.out.text(")\r\n");
        }
        Progress::Done
    }

    /// False if the client does not know the message.
    fn begin(&mut self, cx: &mut Context, items: &[Item]) -> bool {
        self.has_begun = true;
        let (out, selected, _) = cx.parts();
        let Some(selected) = selected else { return false };
        let Some(seqnum) = selected.view.seqnum(self.record.uid) else { return false };
        self.seqnum = seqnum;
        if self.is_newly_seen || items.contains(&Item::Flags) {
            selected.note_keywords(out, &self.record.flags);
        }
        true
    }

    /// What stands in front of an item.
    fn separate(&mut self, out: &mut Output) {
        if std::mem::replace(&mut self.is_open, true) {
            out.text(" ");
        } else {
            let _ = write!(out, "* {} FETCH (", self.seqnum);
        }
    }

    /// The same, and the name of octets that are certain to follow.
    fn name(&mut self, out: &mut Output, label: &str) {
        self.separate(out);
        out.text(label);
        out.text(" ");
    }

    /// RFC 9051 6.4.5: a flag that changed through FETCH is told with it; RFC 7162 3.1, 3.2.4: like any
    /// other change of flags.
    fn tell_seen(&mut self, cx: &mut Context, items: &[Item]) {
        let enabled = cx.enabled;
        if enabled.qresync && !items.contains(&Item::Uid) {
            self.separate(&mut cx.out);
            let _ = write!(cx.out, "UID {}", self.record.uid);
        }
        if !items.contains(&Item::Flags) {
            self.separate(&mut cx.out);
            self.tell_flags(cx);
        }
        if enabled.condstore && !items.contains(&Item::ModSeq) {
            self.separate(&mut cx.out);
            self.tell_modseq(cx);
        }
    }

    fn tell_modseq(&self, cx: &mut Context) {
        let (out, selected, _) = cx.parts();
        let modseq = self.record.modseq;
        let _ = write!(out, "MODSEQ ({modseq})");
        if let Some(selected) = selected {
            selected.shown(modseq);
            // Why: the client believes that it was told everything up to there.
            selected.heard(modseq);
        }
    }

    fn tell_flags(&self, cx: &mut Context) {
        let (out, selected, enabled) = cx.parts();
        let uid = self.record.uid;
        let recent = selected.is_some_and(|selected| selected.shows_recent(enabled, uid));
        out.text("FLAGS (");
        flags::write(out, &self.record.flags, recent);
        out.text(")");
    }

    fn item(&mut self, cx: &mut Context, item: &Item) {
        match item {
            Item::Section(section) => return self.section(cx, section),
            Item::Binary(section) | Item::BinarySize(section) => {
                return self.binary(cx, item, section);
            }
            _ => self.separate(&mut cx.out),
        }
        let record = &self.record;
        let metadata = record.metadata.as_deref();
        let enabled = cx.enabled;
        let out = &mut cx.out;
        match item {
            Item::Section(_) | Item::Binary(_) | Item::BinarySize(_) => {}
            Item::Flags => self.tell_flags(cx),
            Item::Uid => {
                let _ = write!(out, "UID {}", record.uid);
            }
            Item::InternalDate => {
                let date = date::format_date_time(record.internal_date);
                out.text(&format!("INTERNALDATE \"{date}\""));
            }
            Item::Size => {
                let _ = write!(out, "RFC822.SIZE {}", record.size);
            }
            Item::ModSeq => self.tell_modseq(cx),
            Item::EmailId => out.text(&format!("EMAILID (E{})", record.email_id.0)),
            Item::ThreadId => out.text(&format!("THREADID (T{})", record.thread_id.0)),
            Item::SaveDate => {
                let unix_s = (record.save_date.0 / 1000) as i64;
                let date = date::format_date_time(InternalDate { unix_s, zone_minutes: 0 });
                out.text(&format!("SAVEDATE \"{date}\""));
            }
            Item::Preview => {
                // RFC 8970 3.2: where there is none it is empty; NIL would have the client ask again.
                out.text("PREVIEW ");
                let preview = metadata.and_then(|metadata| metadata.preview.as_deref());
                out.string(preview.unwrap_or_default().as_bytes());
            }
            Item::Envelope => {
                out.text("ENVELOPE ");
                match (&record.envelope, metadata) {
                    (Some(packed), _) => envelope::write(out, packed),
                    (None, Some(metadata)) => envelope::write(out, &(&metadata.envelope).into()),
                    (None, None) => out.text("NIL"),
                }
            }
            Item::Structure { extended } => {
                out.text(if *extended { "BODYSTRUCTURE " } else { "BODY " });
                match metadata {
                    Some(metadata) => {
                        structure::write(out, &metadata.structure, (*extended, enabled))
                    }
                    None => out.text("NIL"),
                }
            }
        }
        self.n_told += 1;
    }

    fn section(&mut self, cx: &mut Context, section: &Section) {
        match section::octets(&self.record, section) {
            Octets::Nothing => self.no_octets(cx, section, "NIL"),
            // Why no quotes: Python's imaplib gives octets apart where they are a literal alone, MailKit
            // takes nothing else for a header, and Roundcube for that of a part.
            Octets::Range(range) if range.is_empty() => self.no_octets(cx, section, "{0}\r\n"),
            Octets::Range(Range { start, end }) => {
                self.reading = Reading::Literal { at: start, end, begun: false };
            }
            Octets::Fields(Range { start, end }) => {
                let is_long = end.saturating_sub(start) > FIELDS_AT_ONCE_BYTES;
                let fields = Fields::default();
                self.reading = Reading::Header { at: start, end, is_long, fields };
            }
        }
    }

    fn binary(&mut self, cx: &mut Context, item: &Item, section: &Section) {
        match Decoding::of(&self.record, section) {
            Decodable::Part(decoding) => self.reading = Reading::Binary(Box::new(decoding)),
            // RFC 3516 4.2: a size is a number whatever comes.
            Decodable::Nothing if matches!(item, Item::BinarySize(_)) => {
                self.no_octets(cx, section, "0");
            }
            Decodable::Nothing => self.no_octets(cx, section, "NIL"),
            // RFC 3516 4.3: the command fails for it. Roundcube takes NIL for an empty text, and asks for
            // BODY when nothing was told.
            Decodable::Unknown => {
                self.has_unknown = true;
                self.n_told += 1;
            }
        }
    }

    fn no_octets(&mut self, cx: &mut Context, section: &Section, instead: &str) {
        self.name(&mut cx.out, &section.label);
        cx.out.text(instead);
        self.n_told += 1;
    }

    /// Reads on; `None` when nothing is being read.
    fn read(&mut self, cx: &mut Context, items: &[Item]) -> Option<Progress> {
        loop {
            let (at, end) = match &self.reading {
                Reading::Nothing => return None,
                Reading::Literal { at, end, .. } | Reading::Header { at, end, .. } => (*at, *end),
                Reading::Binary(decoding) => decoding.left(),
            };
            if at >= end {
                let is_long = matches!(self.reading, Reading::Header { is_long: true, .. });
                self.read_all(cx, items);
                if is_long {
                    return Some(Progress::Full);
                }
                continue;
            }
            let Some(slice) = self.slice(at, end) else {
                return match self.find_chunk(at) {
                    Some((start, chunk)) => {
                        self.asked = Some((start, chunk));
                        Some(Progress::Chunk(chunk))
                    }
                    None => Some(Progress::Damaged),
                };
            };
            let n_octets = slice.len() as u64;
            if matches!(self.reading, Reading::Literal { begun: false, .. }) {
                self.name(&mut cx.out, label(items.get(self.n_told)));
                cx.out.literal_mark(end - at);
            }
            match &mut self.reading {
                Reading::Nothing => {}
                Reading::Literal { at, begun, .. } => {
                    *begun = true;
                    cx.out.shared(without_nul(slice));
                    *at += n_octets;
                }
                Reading::Header { at, fields, .. } => {
                    if let Some(Item::Section(section)) = items.get(self.n_told) {
                        fields.feed(&slice, section);
                    }
                    *at += n_octets;
                }
                Reading::Binary(decoding) => cx.out.shared(decoding.feed(&slice)),
            }
            if cx.out.is_full() {
                return Some(Progress::Full);
            }
        }
    }

    fn read_all(&mut self, cx: &mut Context, items: &[Item]) {
        if let Reading::Binary(decoding) = &mut self.reading {
            cx.out.shared(decoding.finish());
            let item = items.get(self.n_told);
            if let (false, Some(Item::Binary(section))) = (decoding.is_second_pass(), item) {
                let (has_nul, n_octets) = (decoding.has_nul(), decoding.rewind());
                self.name(&mut cx.out, &section.label);
                // RFC 3516 4.3: literal8 only where it has to be.
                cx.out.text(if has_nul { "~" } else { "" });
                cx.out.literal_mark(n_octets);
                return;
            }
            if let Some(Item::BinarySize(section)) = item {
                let size = decoding.size();
                self.name(&mut cx.out, &section.label);
                cx.out.text(&size.to_string());
            }
        }
        if let Reading::Header { fields, .. } = &mut self.reading
            && let Some(Item::Section(section)) = items.get(self.n_told)
        {
            let fields = std::mem::take(fields).finish(section);
            self.name(&mut cx.out, &section.label);
            cx.out.literal_mark(fields.len() as u64);
            cx.out.shared(without_nul(fields.into()));
        }
        self.reading = Reading::Nothing;
        self.n_told += 1;
    }

    /// Octets of the chunk at hand.
    fn slice(&self, at: u64, end: u64) -> Option<Bytes> {
        let (start, octets) = self.chunk.as_ref()?;
        let from = usize::try_from(at.checked_sub(*start)?).ok()?;
        if from >= octets.len() {
            return None;
        }
        let to = usize::try_from(end - start).unwrap_or(usize::MAX).min(octets.len());
        Some(octets.slice(from..to))
    }

    fn find_chunk(&self, at: u64) -> Option<(u64, ChunkRef)> {
        let mut start = 0;
        for chunk in &self.record.body.as_ref()?.chunks {
            let end = start + u64::from(chunk.raw_len);
            if at < end {
                return Some((start, *chunk));
            }
            start = end;
        }
        None
    }
}
