//! Linearizable reads: one round to a majority serves all who asked before it began.

use std::sync::{Mutex, PoisonError};

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::oneshot;

use crate::error::ProposeError;
use crate::raft::Types;
use crate::state::Applier;

type Raft = openraft::Raft<Types, Applier>;
type Waiting = Vec<oneshot::Sender<Result<(), ProposeError>>>;

/// Limit: reads that wait for a round.
const READS_MAX: usize = 16_384;

/// Who waits for the next round.
#[derive(Default)]
pub(crate) struct Reads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Waiting,
    is_running: bool,
}

impl Reads {
    /// Waits until this replica leads for sure and has applied everything acknowledged before.
    pub async fn round(self: &std::sync::Arc<Self>, raft: &Raft) -> Result<(), ProposeError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.waiting.len() >= READS_MAX {
                return Err(ProposeError::Overloaded);
            }
            // Invariant: never a round in flight, which may have begun before this read did.
            state.waiting.push(sender);
            if !state.is_running {
                state.is_running = true;
                let (this, raft) = (self.clone(), raft.clone());
                drop(tokio::spawn(async move { this.run(raft).await }));
            }
        }
        receiver.await.unwrap_or(Err(ProposeError::Stopped))
    }

    async fn run(&self, raft: Raft) {
        loop {
            let waiting = {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    state.is_running = false;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let result = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
            let result = result.map(drop).map_err(refusal);
            for sender in waiting {
                // Why: who does not wait any more needs no answer.
                drop(sender.send(result.clone()));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(error: RaftError<Types, LinearizableReadError<Types>>) -> ProposeError {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader { leader: forward.leader_node }
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ProposeError::Unavailable,
        RaftError::Fatal(_) => ProposeError::Stopped,
    }
}
