//! One file for each verb; [`begin`] finds the one for a command, if the command may be given now.

pub(crate) mod append;
mod authenticate;
mod capability;
mod close;
mod compress;
mod copy;
mod create;
mod delete;
mod enable;
mod expunge;
mod fetch;
mod find;
mod id;
mod idle;
mod leave;
mod list;
mod login;
mod logout;
mod lsub;
mod move_messages;
mod namespace;
mod noop;
mod patterns;
mod quota;
mod rename;
mod search;
mod select;
mod sort;
mod starttls;
mod status;
mod store;
mod subscribe;
mod thread;

use mailbox::dialogue::Reply;

use crate::context::Context;
use crate::news::Tell;
use crate::parse::{Command, Fault, Parsed};
use crate::work::{Ending, Next, Work};

/// A command that may be worked off.
pub(crate) struct Begun {
    /// What may be told at its end.
    pub(crate) tell: Tell,
    pub(crate) work: Box<dyn Work>,
}

/// A command that is over as soon as it begins.
struct Immediate(Option<Ending>);

impl Work for Immediate {
    fn go_on(&mut self, _: &mut Context, _: Option<Reply>) -> Next {
        Next::Done(self.0.take().unwrap_or_else(|| Ending::ok("done")))
    }
}

fn immediate(ending: Ending) -> Box<dyn Work> {
    Box::new(Immediate(Some(ending)))
}

/// When a command may be given (RFC 9051 6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Any,
    BeforeLogin,
    AfterLogin,
    Selected,
}

fn stage(command: &Command) -> Stage {
    match command {
        Command::Capability | Command::Noop | Command::Logout | Command::Id => Stage::Any,
        Command::StartTls | Command::Authenticate { .. } | Command::Login { .. } => {
            Stage::BeforeLogin
        }
        Command::Enable(_)
        | Command::Namespace
        | Command::Select(_)
        | Command::Create(_)
        | Command::Delete(_)
        | Command::Rename { .. }
        | Command::Subscribe { .. }
        | Command::List(_)
        | Command::Lsub(_)
        | Command::Status(_)
        | Command::GetQuota(_)
        | Command::GetQuotaRoot(_)
        | Command::SetQuota
        | Command::Compress
        | Command::Idle => Stage::AfterLogin,
        Command::Check
        | Command::Close
        | Command::Unselect
        | Command::Expunge(_)
        | Command::Search(_)
        | Command::Sort(_)
        | Command::Thread(_)
        | Command::Fetch(_)
        | Command::Store(_)
        | Command::Copy { .. }
        | Command::Move { .. } => Stage::Selected,
    }
}

/// What may be told at the end of a command (RFC 9051 7.5.1, RFC 2180 4).
fn tell(command: &Command) -> Tell {
    match command {
        Command::Noop | Command::Check => Tell::All,
        Command::Search(search) if !search.uid => Tell::NoExpunges,
        Command::Sort(sort) if !sort.uid => Tell::NoExpunges,
        Command::Thread(thread) if !thread.uid => Tell::NoExpunges,
        Command::Fetch(fetch) if !fetch.uid => Tell::NoExpunges,
        Command::Store(store) if !store.uid => Tell::NoExpunges,
        Command::Logout
        | Command::Select(_)
        | Command::Close
        | Command::Unselect
        | Command::Compress => Tell::Nothing,
        // It tells by itself until its end.
        Command::Idle => Tell::Nothing,
        _ => Tell::Heard,
    }
}

/// Whether the selected mailbox is left, whatever comes of the command.
fn leaves(command: &Command) -> bool {
    use Command::{Close, Logout, Select, Unselect};
    matches!(command, Logout | Select(_) | Close | Unselect)
}

/// The work of a command, or why it may not be given now.
pub(crate) fn begin(cx: &mut Context, command: Command) -> Parsed<Begun> {
    let fits = match stage(&command) {
        Stage::Any => Ok(()),
        Stage::BeforeLogin if cx.login.is_some() => Err("logged in already"),
        Stage::AfterLogin if cx.login.is_none() => Err("log in first"),
        Stage::Selected if cx.login.is_none() => Err("log in first"),
        Stage::Selected if cx.selected.is_none() => Err("no mailbox is selected"),
        _ => Ok(()),
    };
    fits.map_err(Fault::Bad)?;
    let (tell, leaves) = (tell(&command), leaves(&command));
    let work = work(cx, command)?;
    let work = if leaves { leave::begin(cx, work) } else { work };
    Ok(Begun { tell, work })
}

fn work(cx: &mut Context, command: Command) -> Parsed<Box<dyn Work>> {
    Ok(match command {
        Command::Capability => capability::begin(cx),
        Command::Noop | Command::Check => noop::begin(),
        Command::Logout => logout::begin(cx),
        Command::Id => id::begin(cx),
        Command::StartTls => starttls::begin(cx)?,
        Command::Authenticate { mechanism, initial } => {
            authenticate::begin(cx, &mechanism, initial)?
        }
        Command::Login { name, password } => login::begin(cx, name, password)?,
        Command::Enable(names) => enable::begin(cx, &names),
        Command::Namespace => namespace::begin(cx),
        Command::Select(select) => Box::new(select::Selecting::new(select)),
        Command::Create(create) => Box::new(create::Creating(create)),
        Command::Delete(given) => Box::new(delete::Deleting::new(given)),
        Command::Rename { from, to } => Box::new(rename::Renaming::new(from, to)),
        Command::Subscribe { name, on } => Box::new(subscribe::Subscribing { name, on }),
        Command::List(list) => list::begin(cx, list),
        Command::Lsub(lsub) => lsub::begin(cx, &lsub),
        Command::Status(status) => Box::new(status::Telling(status)),
        Command::GetQuota(root) => quota::of_root(&root)?,
        Command::GetQuotaRoot(name) => quota::of_mailbox(name),
        Command::SetQuota => quota::set(),
        Command::Compress => compress::begin(cx)?,
        Command::Idle => Box::new(idle::Idling::new()),
        Command::Close => Box::new(close::Closing::new(true)),
        Command::Unselect => Box::new(close::Closing::new(false)),
        Command::Expunge(set) => expunge::begin(cx, set.as_ref())?,
        Command::Search(search) => search::begin(cx, search)?,
        Command::Sort(sort) => sort::begin(cx, sort)?,
        Command::Thread(thread) => thread::begin(cx, thread)?,
        Command::Fetch(fetch) => fetch::begin(cx, fetch)?,
        Command::Store(store) => store::begin(cx, store)?,
        Command::Copy { uid, set, to } => copy::begin(cx, uid, &set, to)?,
        Command::Move { uid, set, to } => move_messages::begin(cx, uid, &set, to)?,
    })
}

/// Refused in a mailbox opened by EXAMINE.
fn must_be_writable(cx: &mut Context) -> Parsed<()> {
    match cx.selected().read_only {
        true => Err(Fault::No("READ-ONLY", "the mailbox was opened read-only")),
        false => Ok(()),
    }
}
