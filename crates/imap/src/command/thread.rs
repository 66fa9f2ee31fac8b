//! THREAD (RFC 5256 3, 4): finds, then asks for the conversations.

use std::fmt::Write as _;

use mailbox::answer::ThreadNode;
use mailbox::dialogue::{Question, Reply};
use mailbox::query::{self, ThreadBy};
use mailbox::{Answer, ModSeq, Query};

use super::find::Finding;
use crate::context::Context;
use crate::parse::{Parsed, Thread};
use crate::work::{Ending, Next, Work, misplaced};

/// Nodes written before what was written is sent.
const NODES_AT_ONCE: usize = 2048;

/// Tells conversations.
struct Threading {
    uid: bool,
    by: ThreadBy,
    finding: Finding,
    nodes: Vec<ThreadNode>,
    /// When the first page of them was made.
    as_of: Option<ModSeq>,
    /// Whether each node has more than one child; known once all nodes are.
    branches: Vec<bool>,
    /// Nodes told, once telling has begun.
    n_told: Option<usize>,
    /// Parentheses open, each with the depth it was opened at.
    open: Vec<u32>,
    /// The node being told and those above it.
    path: Vec<usize>,
}

pub(super) fn begin(cx: &mut Context, thread: Thread) -> Parsed<Box<dyn Work>> {
    Ok(Box::new(Threading {
        uid: thread.uid,
        by: thread.by,
        finding: Finding::new(cx, thread.key)?,
        nodes: Vec::new(),
        as_of: None,
        branches: Vec::new(),
        n_told: None,
        open: Vec::new(),
        path: Vec::new(),
    }))
}

/// Whether each node has more than one child.
fn branches(nodes: &[ThreadNode]) -> Vec<bool> {
    let mut n_children = vec![0u32; nodes.len()];
    let mut path: Vec<usize> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        path.truncate(node.depth as usize);
        if let Some(parent) = path.last() {
            n_children[*parent] += 1;
        }
        path.push(at);
    }
    n_children.iter().map(|n_children| *n_children > 1).collect()
}

impl Threading {
    fn ask(&self, cx: &mut Context) -> Next {
        let (of, uids) = (cx.selected().of, self.finding.found.clone());
        let from = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let thread = query::Thread { of, uids, by: self.by, from, as_of: self.as_of };
        Next::Ask(Question::Query(Query::Thread(thread)))
    }

    fn begin_telling(&mut self, cx: &mut Context) -> Next {
        self.branches = branches(&self.nodes);
        self.n_told = Some(0);
        cx.out.text("* THREAD");
        self.tell(cx, 0)
    }

    /// RFC 5256 4: `(1 2 (3)(4 5))`. An only child stands beside its parent, others in
    /// parentheses.
    fn tell(&mut self, cx: &mut Context, from: usize) -> Next {
        let (out, selected, _) = cx.parts();
        let Some(selected) = selected else { return misplaced() };
        let to = self.nodes.len().min(from + NODES_AT_ONCE);
        for at in from..to {
            let ThreadNode { depth, uid } = self.nodes[at];
            while self.open.last().is_some_and(|open| *open >= depth) {
                self.open.pop();
                out.text(")");
            }
            self.path.truncate(depth as usize);
            if self.path.last().is_none_or(|parent| self.branches[*parent]) {
                out.text(if at == 0 { " (" } else { "(" });
                self.open.push(depth);
            } else {
                out.text(" ");
            }
            self.path.push(at);
            let number = uid.and_then(|uid| match self.uid {
                true => Some(uid.value()),
                false => selected.view.seqnum(uid),
            });
            if let Some(number) = number {
                let _ = write!(out, "{number}");
                // Before the parentheses of several children stands a space.
                if self.branches[at] {
                    out.text(" ");
                }
            }
        }
        self.n_told = Some(to);
        if to < self.nodes.len() {
            return Next::More;
        }
        self.open.drain(..).for_each(|_| out.text(")"));
        out.text("\r\n");
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Threading {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        let question = match reply {
            None => match self.n_told {
                Some(n_told) => return self.tell(cx, n_told),
                None => self.finding.begin_for_another_look(cx),
            },
            Some(Reply::Answer(Answer::Found(uids, modseq, next))) => {
                self.finding.take(cx, (uids, modseq, next))
            }
            Some(Reply::Answer(Answer::Threads(nodes, next, as_of))) => {
                self.nodes.extend(nodes);
                self.as_of = self.as_of.or(as_of);
                return match next {
                    Some(_) => self.ask(cx),
                    None => self.begin_telling(cx),
                };
            }
            _ => return misplaced(),
        };
        match question {
            Some(question) => Next::Ask(question),
            None if self.finding.found.is_empty() => self.begin_telling(cx),
            None => self.ask(cx),
        }
    }
}
