//! Questions in a few words, for transcripts.

use mailbox::command::OfMailbox;
use mailbox::dialogue::Question;
use mailbox::*;

use super::Store;

pub(super) fn of(store: &Store, question: &Question) -> String {
    match question {
        Question::Authenticate(credentials) => format!("authenticate {}", credentials.login),
        Question::Query(query) => of_query(store, query),
        Question::Command(command, inline) => {
            let beside = match inline.len() {
                0 => String::new(),
                n => format!(" beside {n} chunks"),
            };
            format!("{}{beside}", of_command(store, command))
        }
        Question::CommandAnd(command, _, then) => {
            format!("{}, then {}", of_command(store, command), of_query(store, then))
        }
        Question::BeginBody(_) => "begin body".into(),
        Question::BeginReplacement(_, it) => {
            format!("begin body for {} {}", store.name_of(it.mailbox), it.uid)
        }
        Question::Body(octets) => format!("body {} octets", octets.len()),
        Question::EndBody => "end body".into(),
        Question::DropBody => "drop body".into(),
        Question::Chunk(_, chunk) => match store.chunks.get(&chunk.digest) {
            Some((_, label)) => format!("chunk {label}"),
            None => "chunk unknown".into(),
        },
        Question::Watch(of) => format!("watch {}", name(store, *of)),
        Question::Listen(_) => "listen".into(),
        Question::Unwatch => "unwatch".into(),
        other => format!("{other:?}"),
    }
}

fn name(store: &Store, of: OfMailbox) -> String {
    store.name_of(of.mailbox)
}

fn of_query(store: &Store, query: &Query) -> String {
    match query {
        Query::Mailbox(named) => format!("mailbox {}", named.name.join('/')),
        Query::Open(named, true) => format!("open {} with unseen", named.name.join('/')),
        Query::Open(named, false) => format!("open {}", named.name.join('/')),
        Query::Mailboxes(_) => "mailboxes".into(),
        Query::Account(_) => "account".into(),
        Query::Uids(uids) => format!("uids {} from {}", name(store, uids.of), uids.from),
        Query::Messages(messages) | Query::Bodies(messages) => {
            let word = if matches!(query, Query::Bodies(_)) { "bodies" } else { "messages" };
            let mut text = format!("{word} {} {}", name(store, messages.of), all(&messages.uids));
            if let Some(since) = messages.changed_since {
                text += &format!(" since {since}");
            }
            for (is_wanted, word) in [
                (messages.metadata, " metadata"),
                (messages.chunks, " chunks"),
                (messages.expunged, " expunged"),
            ] {
                text += if is_wanted { word } else { "" };
            }
            text
        }
        Query::Vanished(vanished) => format!(
            "vanished {} since {} of {}",
            name(store, vanished.of),
            vanished.since,
            vanished.known
        ),
        Query::News(vanished, messages, _) => {
            let changed = of_query(store, &Query::Messages(messages.clone()));
            format!("news: {}; {changed}", of_query(store, &Query::Vanished(vanished.clone())))
        }
        Query::Search(search) => {
            format!("search {} {} {:?}", name(store, search.of), search.among, search.key)
        }
        Query::Sort(sort) => {
            let order = sort
                .order
                .iter()
                .map(|by| format!(" {}{:?}", if by.reverse { "reverse " } else { "" }, by.field));
            let by = order.collect::<String>();
            format!("sort {} {} by{by} from {}", name(store, sort.of), sort.uids, sort.from)
        }
        Query::Thread(thread) => {
            let (of, uids) = (name(store, thread.of), &thread.uids);
            format!("thread {of} {uids} by {:?} from {}", thread.by, thread.from)
        }
        other => format!("{other:?}"),
    }
}

/// Where a command says that messages go.
fn target(store: &Store, mailbox: MailboxId, name: Option<&MailboxName>) -> String {
    name.map_or_else(|| store.name_of(mailbox), |name| name.join('/'))
}

fn of_append(store: &Store, append: &command::Append) -> String {
    let heads = append.messages.iter().map(|message| {
        let date = match message.internal_date {
            Some(date) => format!(" at {} {:+}", date.unix_s, date.zone_minutes),
            None => String::new(),
        };
        format!(" ({}){date} {} octets", flags(&message.flags), message.message.size)
    });
    let replaces =
        append.replaces.map(|it| format!(" for {} {}", store.name_of(it.mailbox), it.uid));
    let heads = heads.collect::<String>();
    let into = target(store, append.mailbox, append.name.as_ref());
    format!("append {into}{heads}{}", replaces.unwrap_or_default())
}

fn of_command(store: &Store, command: &Command) -> String {
    let at = |mailbox| store.name_of(mailbox);
    match command {
        Command::CreateMailbox(create) => match create.special_use {
            Some(special_use) => format!("create {} as {special_use:?}", create.name.join('/')),
            None => format!("create {}", create.name.join('/')),
        },
        Command::DeleteMailbox(named) => format!("delete {}", named.name.join('/')),
        Command::RenameMailbox(rename) => {
            let further = if rename.further { " further" } else { "" };
            format!("rename {} to {}{further}", rename.from.join('/'), rename.to.join('/'))
        }
        Command::Subscribe(subscribe) => {
            let verb = if subscribe.on { "subscribe" } else { "unsubscribe" };
            format!("{verb} {}", subscribe.name.join('/'))
        }
        Command::ClaimRecent(of, None) => format!("claim recent {}", name(store, *of)),
        Command::ClaimRecent(of, Some(below)) => {
            format!("claim recent {} below {below}", name(store, *of))
        }
        Command::Append(append) => of_append(store, append),
        Command::Store(store) => {
            let change = match &store.change {
                FlagChange::Replace(to) => format!("={}", flags(to)),
                FlagChange::Add(more) => format!("+{}", flags(more)),
                FlagChange::Remove(less) => format!("-{}", flags(less)),
            };
            let since = match store.unchanged_since {
                Some(since) => format!(" unless changed since {since}"),
                None => String::new(),
            };
            format!("store {} {} {change}{since}", at(store.mailbox), store.uids)
        }
        Command::Copy(it) => {
            let to = target(store, it.to, it.to_name.as_ref());
            format!("copy {} {} to {to}", at(it.from), it.uids)
        }
        Command::Move(it) => {
            let to = target(store, it.to, it.to_name.as_ref());
            format!("move {} {} to {to}", at(it.from), it.uids)
        }
        Command::Expunge(expunge) => format!("expunge {} {}", at(expunge.mailbox), expunge.uids),
        other => format!("{other:?}"),
    }
}

fn all(uids: &UidSet) -> String {
    if *uids == UidSet::all() { "all".into() } else { uids.to_string() }
}

fn flags(flags: &Flags) -> String {
    let system = [
        (SystemFlags::SEEN, "Seen"),
        (SystemFlags::ANSWERED, "Answered"),
        (SystemFlags::FLAGGED, "Flagged"),
        (SystemFlags::DELETED, "Deleted"),
        (SystemFlags::DRAFT, "Draft"),
    ];
    let system = system.iter().filter(|(flag, _)| flags.system.contains(*flag));
    let names = system.map(|(_, name)| *name).chain(flags.keywords.iter().map(|k| k.as_str()));
    names.collect::<Vec<_>>().join(" ")
}
