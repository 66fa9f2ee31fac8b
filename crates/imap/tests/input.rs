//! Input in any cuts gives the same output; hostile input gives clear errors, never a panic.

mod support;

use imap::limits::{COMMANDS_PER_TURN_MAX, PENDING_BYTES_MAX, REFUSED_LOGINS_MAX};
use imap::{Config, Session};
use mailbox::command::NamedMailbox;
use mailbox::dialogue::{Engine, Login, Question, Reply, Step, Trouble};
use mailbox::{AccountId, Address, Answer, Change, Flags, MailboxName, Query};
use proptest::prelude::*;

fn session() -> Session {
    Session::new(Config {
        hostname: "mail.example".into(),
        tls_available: true,
        tls_active: false,
        plain_logins_allowed: true,
        message_bytes_max: 50 << 20,
        separator: '/',
        nonce: [7; 16],
    })
}

/// A store that logs everybody in and cannot do anything else now.
fn reply(question: &Question) -> Reply {
    match question {
        Question::Authenticate(_) => Reply::Authenticated(Login {
            account: AccountId([1; 16]),
            name: Address::parse("u@example.test").expect("an address").0,
        }),
        Question::Listen(_) | Question::Watch(_) | Question::Unwatch | Question::DropBody => {
            Reply::Done
        }
        _ => Reply::Trouble(Trouble::Unavailable),
    }
}

/// Everything sent until the session waits, and whether it closed.
fn drain(session: &mut Session, sent: &mut Vec<u8>) -> bool {
    for _ in 0..1_000_000 {
        match session.next_step() {
            Step::Send(bytes) => sent.extend_from_slice(&bytes),
            Step::Ask(question) => session.reply(reply(&question)),
            Step::Wait => return false,
            Step::Yield => {}
            Step::StartTls => session.tls_started(),
            Step::Close => return true,
        }
    }
    panic!("the session goes round in circles");
}

fn converse(pieces: &[&[u8]]) -> String {
    let mut session = session();
    let mut sent = Vec::new();
    let mut is_closed = drain(&mut session, &mut sent);
    for piece in pieces {
        if !is_closed {
            session.receive(piece);
            is_closed = drain(&mut session, &mut sent);
        }
    }
    String::from_utf8(sent).expect("ASCII")
}

/// What came after the greeting.
fn answer(input: &[u8]) -> String {
    let all = converse(&[input]);
    all.split_once("\r\n").expect("a greeting").1.to_owned()
}

#[test]
fn a_line_that_is_too_long_is_refused_and_the_next_is_understood() {
    let mut input = b"a ".to_vec();
    input.resize(50_000, b'x');
    input.extend_from_slice(b"\r\nb NOOP\r\n");
    assert_eq!(answer(&input), "a BAD [TOOBIG] line too long\r\nb OK done\r\n");
}

#[test]
fn a_long_line_is_fine_after_login() {
    let mut input = b"a LOGIN u p\r\nb GETQUOTA ".to_vec();
    input.resize(60_000, b'x');
    input.extend_from_slice(b"\r\n");
    assert!(answer(&input).ends_with("b NO [NONEXISTENT] no such quota root\r\n"));
    input.truncate(60_000);
    input.resize(70_000, b'x');
    input.extend_from_slice(b"\r\nc NOOP\r\n");
    assert!(answer(&input).ends_with("b BAD [TOOBIG] line too long\r\nc OK done\r\n"));
}

#[test]
fn a_client_may_name_itself_at_length_before_login() {
    let value = "v".repeat(1024);
    let quoted = |n: usize| format!("\"{n:030}\" \"{value}\"");
    let literal = |n: usize| format!("\"{n:030}\" {{1024+}}\r\n{value}");
    let named = |pair: &dyn Fn(usize) -> String| {
        let pairs: Vec<String> = (0..30).map(pair).collect();
        answer(format!("a ID ({})\r\n", pairs.join(" ")).as_bytes())
    };
    for said in [named(&quoted), named(&literal)] {
        assert_eq!(said, "* ID (\"name\" \"rookery\")\r\na OK done\r\n");
    }
}

#[test]
fn a_synchronising_literal_over_the_limit_is_refused_unread() {
    let got = answer(b"a LOGIN {50000}\r\nb NOOP\r\n");
    assert_eq!(got, "a NO [TOOBIG] literal too large\r\nb OK done\r\n");
}

#[test]
fn a_non_synchronising_literal_over_the_limit_is_skipped() {
    let mut input = b"a LOGIN {50000+}\r\n".to_vec();
    input.resize(input.len() + 50_000, b'\n');
    input.extend_from_slice(b" {3+}\r\n\r\n\n \"x\"\r\nb NOOP\r\n");
    assert_eq!(answer(&input), "a NO [TOOBIG] literal too large\r\nb OK done\r\n");
}

#[test]
fn literals_of_a_line_that_is_too_long_do_not_count_for_the_next_command() {
    let mut input = b"a ID (\"x\" {30000+}\r\n".to_vec();
    input.resize(input.len() + 30_000 + 41_000, b'y');
    input.extend_from_slice(b"\r\nb LOGIN u {2800+}\r\n");
    input.resize(input.len() + 2_800, b'p');
    input.extend_from_slice(b"\r\n");
    let got = answer(&input);
    assert!(got.starts_with("a BAD [TOOBIG] line too long\r\nb OK [CAPABILITY "), "{got}");
}

#[test]
fn a_literal_without_end_ends_the_connection() {
    let got = answer(b"a LOGIN {99999999999999999999+}\r\nb NOOP\r\n");
    assert!(got.starts_with("a BAD literal size out of range\r\n* BYE "), "{got}");
    assert!(!got.contains("b OK"), "{got}");
}

#[test]
fn a_literal_without_end_ends_the_connection_amid_a_command_too() {
    for (rest, n_messages) in [
        (" {9223372036854775808}\r\nc NOOP\r\n", 0),
        ("\r\nc IDLE\r\nd NOOP {9223372036854775808+}\r\nDONE\r\n", 1),
    ] {
        let (mut store, mut client) =
            (support::Store::new(), support::Client::new(support::config()));
        client.say(&mut store, b"a LOGIN ann@example.test secret\r\n");
        let append = format!("b APPEND INBOX {{4+}}\r\ntext{rest}");
        let said = client.say(&mut store, append.as_bytes());
        let said = String::from_utf8(said).expect("ASCII");
        assert!(said.ends_with("* BYE the end of that command cannot be found\r\n"), "{said}");
        assert!(client.is_closed, "{said}");
        let named = NamedMailbox { account: support::ACCOUNT, name: MailboxName::inbox() };
        match store.ask(&Query::Mailbox(named)) {
            Answer::Mailbox(info) => assert_eq!(info.n_messages, n_messages, "{said}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn literals_may_stand_for_any_string() {
    let got = answer(b"a LOGIN {1}\r\nu {2+}\r\np\"\r\nb NOOP\r\n");
    let (first, rest) = got.split_once("\r\n").unwrap();
    assert_eq!(first, "+ go on");
    assert!(rest.starts_with("a OK [CAPABILITY IMAP4rev1 "), "{rest}");
    assert!(rest.ends_with("\r\nb OK done\r\n"), "{rest}");
}

#[test]
fn nul_is_refused() {
    assert_eq!(answer(b"a LOGIN u \"\0\"\r\n"), "a BAD NUL is not allowed\r\n");
    assert_eq!(answer(b"a LOGIN u {1+}\r\n\0\r\n"), "a BAD NUL is not allowed\r\n");
}

#[test]
fn a_bare_line_feed_ends_a_line() {
    assert_eq!(answer(b"a NOOP\nb NOOP\r\n"), "a OK done\r\nb OK done\r\n");
}

#[test]
fn endless_nesting_is_refused() {
    let deep = "BAD nested too deep";
    for (open, n, wanted) in [
        ("(", 30_000, deep),
        ("NOT ", 8_000, deep),
        ("OR (", 15_000, deep),
        // That there are too many is told where a mailbox is selected: what was saved goes with it.
        ("OR ALL ", 6_000, "BAD no mailbox is selected"),
        ("OR ", 20_000, "BAD search key expected"),
    ] {
        // SEARCH is parsed before it is found that no mailbox is selected.
        let input = format!("a LOGIN u p\r\nb SEARCH {}\r\n", open.repeat(n));
        let got = answer(input.as_bytes());
        assert!(got.ends_with(&format!("b {wanted}\r\n")), "{got}");
    }
    // Several alternatives are more than one key deep.
    for (n, wanted) in [(24, deep), (17, "BAD no mailbox is selected")] {
        let (open, close) = ("OR 1 OR 2 OR 3 (4 ".repeat(n), ")".repeat(n));
        let got = answer(format!("a LOGIN u p\r\nb SEARCH {open}ALL{close}\r\n").as_bytes());
        assert!(got.ends_with(&format!("b {wanted}\r\n")), "{got}");
    }
}

/// Thunderbird writes "any of these" so.
#[test]
fn a_search_may_have_fifty_alternatives() {
    let (mut store, mut client) = (support::Store::new(), support::Client::new(support::config()));
    store.append("INBOX", &[b"Subject: 7\r\n\r\n".to_vec()], &Flags::default());
    client.run(&mut store, &mut |_| {});
    client.say(&mut store, b"a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\n");
    let any_of = |n: usize| {
        let add = |any: String, n| format!("(OR {any} SUBJECT \"{n}\")");
        (2..=n).fold("SUBJECT \"1\"".to_owned(), add)
    };
    for (n, told) in [(50, "* SEARCH 1\r\nc OK done\r\n"), (52, "c BAD nested too deep\r\n")] {
        let said = client.say(&mut store, format!("c SEARCH {}\r\n", any_of(n)).as_bytes());
        assert_eq!(String::from_utf8(said).expect("ASCII"), told, "{n}");
    }
    let nots = "NOT ".repeat(101);
    let said = client.say(&mut store, format!("d SEARCH {nots}ALL\r\n").as_bytes());
    assert_eq!(String::from_utf8(said).expect("ASCII"), "d BAD nested too deep\r\n");
}

#[test]
fn twenty_bad_commands_end_the_connection() {
    let got = answer("a BOGUS\r\n".repeat(30).as_bytes());
    assert_eq!(got.matches("a BAD unknown command\r\n").count(), 20);
    assert!(got.ends_with("* BYE too many bad commands\r\n"));
}

#[test]
fn after_login_only_bad_commands_in_a_row_are_counted() {
    let some = "a BOGUS\r\n".repeat(19) + "a NOOP\r\n";
    let got = answer(some.repeat(2).as_bytes());
    assert_eq!(got.matches("a BAD unknown command\r\n").count(), 20, "before login all are");
    let got = answer(("l LOGIN u p\r\n".to_owned() + &some.repeat(5)).as_bytes());
    assert!(got.ends_with("a OK done\r\n"), "{got}");
    let got = answer(("l LOGIN u p\r\n".to_owned() + &some + &"a BOGUS\r\n".repeat(30)).as_bytes());
    assert_eq!(got.matches("a BAD unknown command\r\n").count(), 39);
    assert!(got.ends_with("* BYE too many bad commands\r\n"));
}

#[test]
fn logins_of_an_account_that_has_all_its_connections_are_counted() {
    let (mut session, mut sent) = (session(), Vec::new());
    session.receive("a LOGIN u p\r\n".repeat(20).as_bytes());
    loop {
        match session.next_step() {
            Step::Send(bytes) => sent.extend_from_slice(&bytes),
            Step::Ask(_) => session.reply(Reply::TooMany),
            Step::Close => break,
            step => panic!("{step:?}"),
        }
    }
    let said = String::from_utf8(sent).expect("ASCII");
    let n_refused = said.matches("a NO [LIMIT] too many connections of this account\r\n").count();
    assert_eq!(n_refused, REFUSED_LOGINS_MAX as usize, "{said}");
    assert!(said.ends_with("* BYE too many refused logins\r\n"), "{said}");
}

#[test]
fn plaintext_behind_starttls_is_dropped() {
    let got = answer(b"a STARTTLS\r\nb LOGIN u p\r\n");
    assert_eq!(got, "a OK begin TLS\r\n");
}

#[test]
fn an_append_that_cannot_be_done_leaves_the_connection_usable() {
    let got =
        answer(b"a LOGIN u p\r\nb APPEND x {10+}\r\n0123\r\n6789\r\nc APPEND x {10}\r\nd NOOP\r\n");
    let (_, rest) = got.split_once("\r\n").unwrap();
    assert_eq!(
        rest,
        "b NO [UNAVAILABLE] not now, try again\r\n\
         c NO [UNAVAILABLE] not now, try again\r\n\
         d OK done\r\n"
    );
}

/// What a client takes for the whole message would be kept for it.
#[test]
fn a_message_that_cannot_be_read_now_is_neither_empty_nor_at_fault() {
    let (mut store, mut client) = (support::Store::new(), support::Client::new(support::config()));
    store.append("INBOX", &[vec![b'x'; 2000], vec![b'y'; 9]], &mailbox::Flags::default());
    client.run(&mut store, &mut |_| {});
    client.say(&mut store, b"a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\n");
    store.chunk_trouble = Some(Trouble::Unavailable);
    let said = client.say(&mut store, b"c UID FETCH 1:2 (UID BODY.PEEK[])\r\nd NOOP\r\n");
    let said = String::from_utf8(said).expect("ASCII");
    assert!(client.is_closed, "{said}");
    assert!(!said.contains("NIL") && !said.contains("c NO") && !said.contains("d OK"), "{said}");
}

/// A message comes; what a session would hear of that.
fn arrive(store: &mut support::Store) -> Vec<Change> {
    store.append("INBOX", &[b"A: 1\r\n\r\n".to_vec()], &Flags::default());
    std::mem::take(&mut store.changes)
}

/// A session in IDLE that heard of a message and asks what there is.
fn asking() -> (support::Store, Session, Question) {
    let mut store = support::Store::new();
    let mut client = support::Client::new(support::config());
    let input = b"a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\nc IDLE\r\n";
    client.say(&mut store, input);
    let mut session = client.session;
    arrive(&mut store).into_iter().for_each(|change| session.notify(change));
    let Step::Ask(question) = session.next_step() else { panic!("nothing is asked") };
    (store, session, question)
}

fn sent(session: &mut Session) -> String {
    let Step::Send(bytes) = session.next_step() else { panic!("nothing is told") };
    String::from_utf8(bytes.to_vec()).expect("ASCII")
}

#[test]
fn in_idle_what_is_known_is_told_before_anything_else_is_asked() {
    let (mut store, mut session, question) = asking();
    let reply = store.reply(question);
    session.reply(reply);
    arrive(&mut store).into_iter().for_each(|change| session.notify(change));
    assert!(sent(&mut session).contains("* 1 EXISTS\r\n"));
    let Step::Ask(question) = session.next_step() else { panic!("nothing is asked") };
    let reply = store.reply(question);
    session.reply(reply);
    assert!(sent(&mut session).contains("* 2 EXISTS\r\n"));
    assert!(matches!(session.next_step(), Step::Wait));
}

/// Where answers take longer than it takes until the next message comes, IDLE would ask for ever.
#[test]
fn in_idle_nothing_is_asked_again_because_an_answer_was_newer_than_the_question() {
    let (mut store, mut session, question) = asking();
    arrive(&mut store);
    let reply = store.reply(question);
    session.reply(reply);
    assert!(sent(&mut session).contains("* 2 EXISTS\r\n"));
    assert!(matches!(session.next_step(), Step::Wait));
}

/// A session behind COMPRESS, and the client's end of it.
fn compressed() -> (support::Store, support::Client, support::zip::Zip) {
    let mut store = support::Store::new();
    let mut client = support::Client::new(support::config());
    client.say(&mut store, b"a LOGIN ann@example.test secret\r\n");
    let said = client.say(&mut store, b"b COMPRESS DEFLATE\r\n");
    assert!(said.starts_with(b"b OK"), "{}", String::from_utf8_lossy(&said));
    (store, client, support::zip::Zip::default())
}

/// What is said to this until the session closes or all is sent, and octets sent for it.
fn said_to(plain: &[u8]) -> (String, bool, usize) {
    let (mut store, mut client, mut zip) = compressed();
    let packed = zip.pack(plain);
    let (mut said, mut n_sent) = (Vec::new(), 0);
    for piece in packed.chunks(8192) {
        said.extend(zip.unpack(&client.say(&mut store, piece)));
        n_sent += piece.len();
        if client.is_closed {
            break;
        }
    }
    (String::from_utf8(said).expect("ASCII"), client.is_closed, n_sent)
}

#[test]
fn a_compressed_bomb_is_refused() {
    let bombs: [&[u8]; 4] =
        [b"", b"a NOOP {20000000+}\r\n", b"a APPEND INBOX {20000000+}\r\n", b"\"a"];
    for head in bombs {
        let bomb = [head, &vec![b'x'; 20_000_000]].concat();
        let (said, is_closed, _) = said_to(&bomb);
        assert!(is_closed, "{}: {said}", String::from_utf8_lossy(head));
        assert!(said.contains("* BYE "), "{}: {said}", String::from_utf8_lossy(head));
    }
    // Literal behind literal.
    let chain = [b"a NOOP ", "{90000+}\r\n".as_bytes()].concat();
    let rest = [&vec![b'x'; 90_000][..], b"{90000+}\r\n"].concat().repeat(200);
    let (said, is_closed, _) = said_to(&[chain, rest].concat());
    assert!(is_closed && said.contains("* BYE that is too much"), "{said}");
}

/// Until the session waits: how often others had their turn.
fn n_turns(session: &mut Session) -> usize {
    let mut n = 0;
    loop {
        match session.next_step() {
            Step::Yield => n += 1,
            Step::Send(_) => {}
            Step::Wait => return n,
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn who_sends_much_at_once_lets_others_have_their_turn() {
    let per_turn = COMMANDS_PER_TURN_MAX as usize;
    for line in ["\r\n", "a NOOP\r\n"] {
        let (_, client, mut zip) = compressed();
        let mut session = client.session;
        assert_eq!(n_turns(&mut session), 0);
        let bomb = zip.pack(line.repeat(1000 * per_turn).as_bytes());
        assert!(bomb.len() < 64 * 1024, "{} octets", bomb.len());
        session.receive(&bomb);
        let n = n_turns(&mut session);
        assert!(n >= 1000, "{n} turns");
    }
    let mut session = session();
    session.receive("\r\n".repeat(10 * per_turn).as_bytes());
    assert!(n_turns(&mut session) >= 10);
}

#[test]
fn what_is_thrown_away_lets_others_have_their_turn() {
    let (_, client, mut zip) = compressed();
    let mut session = client.session;
    let bomb = [b"a NOOP {90000+}\r\n", &vec![b'x'; 1 << 20][..]].concat();
    session.receive(&zip.pack(&bomb));
    let n = n_turns(&mut session);
    assert!(n >= (1 << 20) / PENDING_BYTES_MAX - 1, "{n} turns");
}

#[test]
fn what_is_refused_plainly_is_refused_compressed_and_the_next_is_understood() {
    let (said, is_closed, _) = said_to(b"a STATUS {70000+}\r\n");
    assert_eq!((said.as_str(), is_closed), ("", false));
    let literal = [b"a STATUS {70000+}\r\n", &vec![b'x'; 70_000][..], b"\r\nb NOOP\r\n"].concat();
    let (said, ..) = said_to(&literal);
    assert_eq!(said, "a NO [TOOBIG] literal too large\r\nb OK done\r\n");
    let line = [&vec![b'x'; 300_000][..], b"\r\nb NOOP\r\n"].concat();
    let (said, is_closed, _) = said_to(&line);
    assert!(!is_closed && said.ends_with("b OK done\r\n"), "{said}");
}

/// A compressor that lived on would refer to what it sent before: what a session says after it waited
/// has to stand alone.
#[test]
fn a_session_that_waits_keeps_no_compressor() {
    let (mut store, mut client, mut zip) = compressed();
    let mut lengths = Vec::new();
    for _ in 0..3 {
        let packed = client.say(&mut store, &zip.pack(b"a CAPABILITY\r\n"));
        let alone = support::zip::Zip::default().unpack(&packed);
        assert!(alone.ends_with(b"\r\na OK done\r\n"), "{}", String::from_utf8_lossy(&alone));
        lengths.push(packed.len());
    }
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}

/// Lines that come near to commands.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "a",
        "LOGIN",
        "u",
        "p",
        "{3}",
        "{3+}",
        "\r\n",
        "abc",
        "APPEND",
        "x",
        "(\\Seen)",
        "SEARCH",
        "FETCH",
        "1:*",
        "BODY[1.2]",
        "(",
        ")",
        "\"",
        "\\",
        "NOOP",
        "IDLE",
        "DONE",
        "SELECT",
        "*",
        "AUTHENTICATE",
        "PLAIN",
        "AHUAcA==",
        "UID",
        "STORE",
        "ID",
        "NIL",
        "LIST",
        "%",
        "{9999999+}",
        "<0.1>",
        "HEADER.FIELDS",
        "LOGOUT",
        "\0",
        "\n",
        "é",
        "CREATE",
        "USE",
        "~{1+}",
    ]);
    prop::collection::vec((words, any::<bool>()), 0..12).prop_map(|words| {
        let mut line = b"a ".to_vec();
        for (word, space) in words {
            line.extend_from_slice(word.as_bytes());
            line.extend_from_slice(if space { b" " } else { b"" });
        }
        line.extend_from_slice(b"\r\n");
        line
    })
}

/// Commands that work, with everything a cut can fall into.
const CONVERSATION: &[u8] = b"a LOGIN {16}\r\nann@example.test {6+}\r\nsecret\r\n\
    b APPEND INBOX (\\Seen) {20}\r\nSubject: one\r\n\r\ntext\r\n\
    c APPEND {5+}\r\nINBOX {22+}\r\nSubject: two\r\n\r\ntext\r\n\r\n\
    d APPEND Nowhere {5+}\r\n12345\r\n\
    e SELECT INBOX\r\nf FETCH 1:* (FLAGS BODY[])\r\n\
    g SEARCH CHARSET UTF-8 SUBJECT {3}\r\none\r\n\
    h IDLE\r\nDONE\r\ni STORE 1 +FLAGS (\\Deleted)\r\nj EXPUNGE\r\nk COPY 1 Trash\r\n\
    l MOVE 1 Trash\r\nm LIST \"\" *\r\nn AUTHENTICATE PLAIN\r\no CLOSE\r\np LOGOUT\r\n";

fn work_off(pieces: &[&[u8]]) -> String {
    let mut store = support::Store::new();
    let mut client = support::Client::new(support::config());
    let sent: Vec<u8> = pieces.iter().flat_map(|piece| client.say(&mut store, piece)).collect();
    assert!(client.is_closed, "{}", String::from_utf8_lossy(&sent));
    String::from_utf8(sent).expect("ASCII")
}

fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = input;
    for cut in cuts.iter().cycle() {
        let (piece, behind) = rest.split_at((*cut).max(1).min(rest.len()));
        pieces.push(piece);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

#[test]
fn octet_by_octet_is_like_all_at_once() {
    let all = work_off(&[CONVERSATION]);
    for tag in ["a", "b", "c", "e", "f", "g", "h", "i", "j", "k", "l", "m", "o", "p"] {
        assert!(all.contains(&format!("\r\n{tag} OK ")), "{tag}: {all}");
    }
    assert_eq!(work_off(&pieces(CONVERSATION, &[1])), all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn cuts_of_what_works_do_not_matter(cuts in prop::collection::vec(0usize..40, 1..40)) {
        prop_assert_eq!(work_off(&pieces(CONVERSATION, &cuts)), work_off(&[CONVERSATION]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cuts_do_not_matter(
        lines in prop::collection::vec(line(), 1..12),
        logged_in: bool,
        cuts in prop::collection::vec(0usize..40, 1..40),
    ) {
        let mut input = if logged_in { b"l LOGIN u p\r\n".to_vec() } else { Vec::new() };
        input.extend(lines.concat());
        prop_assert_eq!(converse(&pieces(&input, &cuts)), converse(&[&input]));
    }

    #[test]
    fn no_octets_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), logged_in: bool) {
        let login: &[u8] = if logged_in { b"l LOGIN u p\r\n" } else { b"" };
        converse(&[login, &bytes, b"\r\n"]);
    }
}
