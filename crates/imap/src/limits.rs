//! Every limit of this crate, with where its number comes from.

/// Limit: octets of a message that is taken in before it is known whether its mailbox is there. Most are
/// smaller; whoever sends more waits for one question first.
pub(crate) const UNASKED_BYTES_MAX: u64 = 64 * 1024;

/// Octets of one command line after login, its literals not counted: 10,000 UIDs in a set fit.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Octets of one command line before login: ID has 30 names of 30 octets with values of 1024 (RFC 2971 3.3).
pub const EARLY_LINE_BYTES_MAX: usize = 40 * 1024;
/// Octets of all literals of one command after login, APPEND's messages not counted.
pub const LITERAL_BYTES_MAX: u64 = 64 * 1024;
/// Octets of all literals of one command before login: what ID has beyond ASCII can be no quoted string.
pub const EARLY_LITERAL_BYTES_MAX: u64 = 32 * 1024;
/// Octets of a refused non-synchronising literal that are skipped; a client that sends more is
/// not worth the traffic and is sent away.
pub const SKIPPED_BYTES_MAX: u64 = 1 << 32;
/// Octets that may be skipped beyond a refused literal when the client compresses (and of a literal
/// no more than a message may have): there a small input can stand for a huge one nobody wants.
pub const SKIPPED_BESIDE_BYTES_MAX: u64 = 1 << 20;
/// Parentheses, NOTs and ORs inside each other: keeps every recursion over a command shallow.
pub const DEPTH_MAX: usize = 100;
/// Limit: keys of a search inside each other, once its ORs are flat: half of what parentheses may be, and a
/// few that come from one OR or NEW. The store takes 64.
pub(crate) const KEY_DEPTH_MAX: usize = DEPTH_MAX / 2 + 4;
/// Bad commands with none between that was done (before login: all), after which the connection is
/// closed.
pub const BAD_COMMANDS_MAX: u32 = 20;
/// Limit: commands, empty lines among them, that are worked off before other sessions have their turn. With
/// COMPRESS a few octets stand for thousands; real clients pipeline a few dozen.
pub const COMMANDS_PER_TURN_MAX: u32 = 256;
/// Refused logins in one connection, after which it is closed.
pub const REFUSED_LOGINS_MAX: u32 = 5;
/// Octets received but not yet looked at, above which the driver is asked to stop reading. More
/// than a line, or a long line would never end.
pub const PENDING_BYTES_MAX: usize = 2 * LINE_BYTES_MAX;
/// Limit: sections that one FETCH names, each of which reads the message anew. A client that shows a message
/// part by part names a few for each; real mail has fewer than 20 parts.
pub(crate) const SECTIONS_MAX: usize = 256;
/// Limit: patterns of one LIST, each of which is compared with each name. Clients have one, or a few for
/// their special mailboxes; those beyond are ignored (RFC 9051 6.3.9), as they are beyond the next two.
pub(crate) const PATTERNS_MAX: usize = 64;
/// Limit: octets of all patterns of one LIST and their reference: the longest name (8 KiB) four times.
pub(crate) const PATTERN_BYTES_MAX: usize = 32 * 1024;
/// Limit: characters of the patterns of one LIST that lie behind a wildcard, all together: each is compared
/// with each character of each name. A level of a name has at most 255.
pub(crate) const WILD_CHARS_MAX: usize = 512;
/// Limit: characters of names and patterns compared before other sessions have their turn, some milliseconds.
/// All names of an account have 3 MiB, so the longest patterns would take seconds.
pub(crate) const COMPARED_AT_ONCE: usize = 4 * 1024 * 1024;
/// Limit: ranges of UIDs in all keys of one search together, some 11 octets each: more do not fit into one
/// question (16 MiB).
pub(crate) const SEARCH_RANGES_MAX: usize = 1_000_000;
/// Limit: names in one HEADER.FIELDS: each field of a header is looked for among them. Clients that list
/// messages name some thirty.
pub(crate) const FIELD_NAMES_MAX: usize = 256;
/// Octets of a header that are looked through for fields before what was found is sent.
pub(crate) const FIELDS_AT_ONCE_BYTES: u64 = 64 * 1024;
/// Octets of a body handed on at once.
pub const SLICE_BYTES_MAX: usize = 64 * 1024;
/// Octets gathered before they are sent while a command goes on.
pub const SEND_BYTES: usize = 32 * 1024;
/// Seconds without input before login.
pub const LOGIN_S: u32 = 60;
/// Seconds without input after login: RFC 9051 5.4 forbids less than 30 minutes.
pub const IDLE_S: u32 = 31 * 60;
/// Seconds without an octet in the middle of a message that is being sent: it holds one of the frontend's few
/// places for large ones, and no client pauses there.
pub const LITERAL_S: u32 = 5 * 60;
/// UIDs and mod-sequences of this session's own changes that are remembered so as not to be told
/// back; beyond it they are told, which is harmless.
pub const OWN_CHANGES_MAX: usize = 64;
/// Messages of one APPEND (RFC 3502). InterIMAP brings so many at once, and one command of the store takes
/// them.
pub const APPEND_MESSAGES_MAX: usize = 128;
