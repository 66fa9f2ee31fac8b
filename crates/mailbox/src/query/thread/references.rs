//! THREAD=REFERENCES: the algorithm of RFC 5256 4, its steps numbered as there.

use std::collections::{BTreeMap, BTreeSet};

use super::{IdHash, Message};
use crate::answer::ThreadNode;
use crate::outcome::Refusal;
use crate::query::sort::{COMPARED_AT_ONCE, Room};

/// Limit: ancestors looked at for loops, for all that one message refers to. Real threads are far shallower;
/// beyond it a link that might be a loop is not made, so that no message costs more than this.
const ANCESTORS_MAX: usize = 2048;

/// A message-id: with its message if there is one, else a dummy.
#[derive(Default)]
struct Container {
    message: Option<usize>,
    parent: Option<usize>,
    /// How many have it for their parent, while links are made.
    n_children: usize,
    /// Which, once all links are made: taken out one by one, of many they would cost too much.
    children: Vec<usize>,
}

/// Octets of a container, with its place among its parent's children.
const CONTAINER_BYTES: usize = size_of::<Container>() + size_of::<usize>();

/// Containers by number; the messages they refer to by number, too.
struct Forest<'p> {
    messages: Vec<Message>,
    containers: Vec<Container>,
    /// Called for each of them in each step: a million take seconds.
    pause: &'p dyn Fn(),
}

/// The threads, each from its root down; refused if there is no room for all that is referred to.
pub(super) fn threads(
    messages: Vec<Message>,
    mut room: Room,
    pause: &dyn Fn(),
) -> Result<Vec<ThreadNode>, Refusal> {
    let mut forest = Forest { messages, containers: Vec::new(), pause };
    forest.link(&mut room)?;
    let roots: Vec<usize> =
        (0..forest.containers.len()).filter(|at| forest.containers[*at].parent.is_none()).collect();
    let roots = forest.prune(roots);
    let roots = forest.sorted(roots);
    let roots = forest.gather_subjects(roots);
    Ok(forest.flatten(roots))
}

impl Forest<'_> {
    fn add(&mut self) -> usize {
        self.containers.push(Container::default());
        self.containers.len() - 1
    }

    /// Step 1: parents by References.
    fn link(&mut self, room: &mut Room) -> Result<(), Refusal> {
        let n_ids = |one: &Message| one.references.len() + usize::from(one.id.is_some());
        let n_ids: usize = self.messages.iter().map(n_ids).sum();
        room.take(n_ids * size_of::<IdHash>())?;
        let mut known: Vec<IdHash> = Vec::with_capacity(n_ids);
        for message in &self.messages {
            known.extend(message.references.iter().chain(&message.id));
        }
        known.sort_unstable();
        known.dedup();
        room.take(known.len() * CONTAINER_BYTES)?;
        self.containers.resize_with(known.len(), Container::default);
        let by_id = |id: &IdHash| known.binary_search(id).expect("all ids are known");
        for number in 0..self.messages.len() {
            (self.pause)();
            let references = std::mem::take(&mut self.messages[number].references);
            let own = self.messages[number].id.as_ref().map(by_id);
            let own = match own.filter(|at| self.containers[*at].message.is_none()) {
                Some(at) => at,
                // It has no id, or another message has the same: it stands for itself.
                None => {
                    room.take(CONTAINER_BYTES)?;
                    self.add()
                }
            };
            self.containers[own].message = Some(number);
            let mut n_steps_left = ANCESTORS_MAX;
            let mut above = None;
            for id in &references {
                let at = by_id(id);
                if let Some(parent) = above
                    && self.containers[at].parent.is_none()
                {
                    self.attach(at, parent, &mut n_steps_left);
                }
                above = Some(at);
            }
            // The message's own word about its parent counts more than others'.
            self.detach(own);
            if let Some(parent) = above {
                self.attach(own, parent, &mut n_steps_left);
            }
        }
        drop(known);
        self.list_children();
        Ok(())
    }

    fn list_children(&mut self) {
        for container in &mut self.containers {
            container.children.reserve_exact(container.n_children);
        }
        for at in 0..self.containers.len() {
            if let Some(parent) = self.containers[at].parent {
                self.containers[parent].children.push(at);
            }
        }
    }

    fn detach(&mut self, at: usize) {
        if let Some(parent) = self.containers[at].parent.take() {
            self.containers[parent].n_children -= 1;
        }
    }

    /// Makes a link unless that would make a loop.
    fn attach(&mut self, at: usize, parent: usize, n_steps_left: &mut usize) {
        if at == parent || self.may_be_above(at, parent, n_steps_left) {
            return;
        }
        self.containers[at].parent = Some(parent);
        self.containers[parent].n_children += 1;
    }

    fn may_be_above(&self, at: usize, below: usize, n_steps_left: &mut usize) -> bool {
        if self.containers[at].n_children == 0 {
            return false;
        }
        let mut above = self.containers[below].parent;
        while let Some(here) = above {
            if here == at || *n_steps_left == 0 {
                return true;
            }
            *n_steps_left -= 1;
            above = self.containers[here].parent;
        }
        false
    }

    /// Step 3: dummies go, their children take their place; at the top only a single child does.
    fn prune(&mut self, roots: Vec<usize>) -> Vec<usize> {
        // From the leaves up, so that what takes a dummy's place is pruned already.
        for at in self.below(&roots).into_iter().rev() {
            (self.pause)();
            let children = std::mem::take(&mut self.containers[at].children);
            let mut kept = Vec::with_capacity(children.len());
            for child in children {
                if self.containers[child].message.is_some() {
                    kept.push(child);
                } else {
                    kept.append(&mut self.containers[child].children);
                }
            }
            self.containers[at].children = kept;
        }
        let mut kept = Vec::new();
        for root in roots {
            let container = &mut self.containers[root];
            match (container.message, container.children.len()) {
                (None, 0) => {}
                (None, 1) => kept.append(&mut container.children),
                _ => kept.push(root),
            }
        }
        kept
    }

    /// All containers from these down, parents before children.
    fn below(&self, roots: &[usize]) -> Vec<usize> {
        let mut all = Vec::new();
        let mut next: Vec<usize> = roots.to_vec();
        while let Some(at) = next.pop() {
            all.push(at);
            next.extend_from_slice(&self.containers[at].children);
        }
        all
    }

    /// Steps 4 and 6: siblings by sent date, a dummy by its first child; then by number.
    fn sorted(&mut self, mut roots: Vec<usize>) -> Vec<usize> {
        for at in self.below(&roots).into_iter().rev() {
            (self.pause)();
            let mut children = std::mem::take(&mut self.containers[at].children);
            self.sort(&mut children);
            self.containers[at].children = children;
        }
        self.sort(&mut roots);
        roots
    }

    /// Why pauses: a million that nobody answered are as many roots, each looked up some forty times.
    fn sort(&self, siblings: &mut [usize]) {
        let mut n_looked_up: usize = 0;
        siblings.sort_by_key(|at| {
            n_looked_up += 1;
            if n_looked_up.is_multiple_of(COMPARED_AT_ONCE) {
                (self.pause)();
            }
            self.date(*at)
        });
    }

    /// The message that stands for a container.
    fn first_message(&self, at: usize) -> Option<&Message> {
        let container = &self.containers[at];
        let first = || container.children.first().and_then(|child| self.containers[*child].message);
        container.message.or_else(first).map(|number| &self.messages[number])
    }

    fn date(&self, at: usize) -> (i64, u32) {
        let message = self.first_message(at);
        message.map_or((0, 0), |message| (message.sent_unix_s, message.uid.value()))
    }

    fn is_dummy(&self, at: usize) -> bool {
        self.containers[at].message.is_none()
    }

    fn subject(&self, at: usize) -> (String, bool) {
        match self.first_message(at) {
            Some(message) => (message.subject.clone(), message.has_re),
            None => (String::new(), false),
        }
    }

    /// Step 5: threads of one base subject become one.
    fn gather_subjects(&mut self, roots: Vec<usize>) -> Vec<usize> {
        let mut by_subject: BTreeMap<String, usize> = BTreeMap::new();
        for &root in &roots {
            (self.pause)();
            let (subject, has_re) = self.subject(root);
            if subject.is_empty() {
                continue;
            }
            let entry = by_subject.entry(subject).or_insert(root);
            let there = *entry;
            let is_better = self.is_dummy(root) && !self.is_dummy(there)
                || !self.is_dummy(there) && self.subject(there).1 && !has_re;
            if is_better {
                *entry = root;
            }
        }
        let mut gone: BTreeSet<usize> = BTreeSet::new();
        let mut dummies = Vec::new();
        for &root in &roots {
            (self.pause)();
            let (subject, has_re) = self.subject(root);
            let there = by_subject.get(&subject).copied();
            let Some(there) = there.filter(|there| *there != root && !gone.contains(&root)) else {
                continue;
            };
            gone.insert(root);
            let merged = self.merge(there, root, has_re);
            if merged != there {
                gone.insert(there);
                dummies.push(merged);
                by_subject.insert(subject, merged);
            }
        }
        let kept = roots.into_iter().chain(dummies).filter(|root| !gone.contains(root)).collect();
        self.sorted(kept)
    }

    /// Step 5C: what both become.
    fn merge(&mut self, there: usize, root: usize, has_re: bool) -> usize {
        match (self.is_dummy(there), self.is_dummy(root)) {
            (true, true) => {
                let mut children = std::mem::take(&mut self.containers[root].children);
                self.containers[there].children.append(&mut children);
                there
            }
            (true, false) => {
                self.containers[there].children.push(root);
                there
            }
            (false, _) if has_re && !self.subject(there).1 => {
                self.containers[there].children.push(root);
                there
            }
            (false, _) => {
                let dummy = self.add();
                self.containers[dummy].children = vec![there, root];
                dummy
            }
        }
    }

    /// From each root down, in order.
    fn flatten(&self, roots: Vec<usize>) -> Vec<ThreadNode> {
        let mut nodes = Vec::new();
        let mut next: Vec<(usize, u32)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
        while let Some((at, depth)) = next.pop() {
            let container = &self.containers[at];
            let uid = container.message.map(|number| self.messages[number].uid);
            nodes.push(ThreadNode { depth, uid });
            next.extend(container.children.iter().rev().map(|child| (*child, depth + 1)));
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ids::Uid;
    use crate::query::sort::GATHERED_BYTES_MAX;

    /// A message whose id is its UID, which is also when it was sent.
    fn message(uid: u32, references: &[IdHash]) -> Message {
        Message {
            uid: Uid::new(uid).expect("a UID"),
            sent_unix_s: i64::from(uid),
            subject: String::new(),
            has_re: false,
            id: Some(IdHash::from(uid)),
            references: references.to_vec(),
        }
    }

    fn threads_of(messages: Vec<Message>) -> Vec<ThreadNode> {
        threads(messages, Room(GATHERED_BYTES_MAX), &|| {}).expect("they fit")
    }

    fn depth(nodes: &[ThreadNode], uid: u32) -> Option<u32> {
        let node = nodes.iter().find(|node| node.uid.is_some_and(|there| there.value() == uid));
        node.map(|node| node.depth)
    }

    #[test]
    fn what_would_be_a_loop_costs_a_message_its_further_links() {
        const DEEPEST: IdHash = 2000;
        for (n_loops, wanted) in [(0, 2), (1, 2), (2, 0)] {
            let mut messages = vec![message(1, &[])];
            messages.extend((2..=2000).map(|uid| message(uid, &[IdHash::from(uid - 1)])));
            messages.push(message(3000, &[]));
            messages.push(message(3001, &[3000]));
            messages.push(message(3002, &[]));
            messages.push(message(3003, &[3002]));
            let loops = [DEEPEST, 1].repeat(n_loops);
            messages.push(message(4000, &[&loops[..], &[3001, 3002]].concat()));
            let nodes = threads_of(messages);
            assert_eq!(depth(&nodes, 2000), Some(1999));
            assert_eq!(depth(&nodes, 3001), Some(1));
            assert_eq!(depth(&nodes, 3002), Some(wanted), "{n_loops} loops");
            assert_eq!(depth(&nodes, 4000), Some(wanted + 1), "{n_loops} loops");
        }
    }

    /// Anything quadratic in them takes minutes.
    #[test]
    fn many_children_leave_their_parent_soon() {
        const N_CHILDREN: u32 = 200_000;
        let root = IdHash::from(u32::MAX);
        let ids = 1..=N_CHILDREN;
        let named = ids.clone().map(|id| message(N_CHILDREN + id, &[root, IdHash::from(id)]));
        let nodes = threads_of(named.chain(ids.map(|id| message(id, &[]))).collect());
        assert_eq!(nodes.len(), 2 * N_CHILDREN as usize);
        assert_eq!((depth(&nodes, 1), depth(&nodes, N_CHILDREN + 1)), (Some(0), Some(1)));
    }

    /// Of a thousandth of the messages, in a thousandth of the room.
    #[test]
    fn a_million_ordinary_messages_become_threads() {
        let letter = |uid: u32| {
            let before: Vec<IdHash> = (uid - 10..uid).map(IdHash::from).collect();
            Message { subject: "x".repeat(40), ..message(uid, &before) }
        };
        let messages: Vec<Message> = (11..=1010).map(letter).collect();
        let mut room = Room(GATHERED_BYTES_MAX / 1000);
        room.take(messages.iter().map(Message::n_bytes).sum()).expect("they fit");
        let n_pauses = Cell::new(0);
        let pause = || n_pauses.set(n_pauses.get() + 1);
        assert!(threads(messages, room, &pause).is_ok());
        assert!(n_pauses.get() >= 4 * 1000, "{n_pauses:?}");
    }

    #[test]
    fn who_sorts_roots_pauses() {
        const N_ROOTS: u32 = 10_000;
        let letter = |uid: u32| {
            let sent_unix_s = i64::from(uid.reverse_bits());
            Message { sent_unix_s, ..message(uid, &[]) }
        };
        let n_pauses = Cell::new(0);
        let pause = || n_pauses.set(n_pauses.get() + 1);
        let nodes = threads((1..=N_ROOTS).map(letter).collect(), Room(GATHERED_BYTES_MAX), &pause);
        assert_eq!(nodes.expect("they fit").len(), N_ROOTS as usize);
        // Six for each beside, and in any order of so many are at least five comparisons of two for each.
        let least = 6 * N_ROOTS as usize + 10 * N_ROOTS as usize / COMPARED_AT_ONCE;
        assert!(n_pauses.get() >= least, "{n_pauses:?}");
    }

    #[test]
    fn what_is_referred_to_and_is_nowhere_is_refused_where_it_fills_the_memory() {
        for (n_further, is_refused) in [(0, false), (100, true)] {
            let letter = |uid: u32| {
                let first = IdHash::from(1000 + n_further * uid);
                let nowhere: Vec<IdHash> = (first..first + 100).collect();
                message(uid, &nowhere)
            };
            let room = Room(GATHERED_BYTES_MAX / 1000);
            let threads = threads((1..=100).map(letter).collect(), room, &|| {});
            assert_eq!(matches!(threads, Err(Refusal::Limit(_))), is_refused, "{n_further}");
        }
    }
}
