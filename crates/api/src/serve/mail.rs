//! Service mail over a [`MailHandler`].

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use mailbox::{AccountId, ShardId, StoredChunk};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::convert::id;
use crate::convert::mail::{change_to_wire, chunk_ref, decode, encode};
use crate::mail::{MailError, MailHandler};
use crate::proto::mail as wire;
use crate::proto::mail::mail_server::Mail;
use wire::{chunk_response, maildrop_response, propose_response, query_response};

/// Limit: changes in one message of a watch; those that are there at once travel together.
const CHANGES_PER_MESSAGE_MAX: usize = 64;

pub(super) struct MailService {
    pub(super) handler: Arc<dyn MailHandler>,
    pub(super) stopped: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Mail for MailService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn propose(
        &self,
        request: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        let message = request.into_inner();
        let request = decode(&message.request, "request")?;
        let chunks: Result<Vec<_>, _> =
            message.chunks.into_iter().map(StoredChunk::try_from).collect();
        let result = self.handler.propose(ShardId(message.shard), request, chunks?).await;
        let result = match result {
            Ok(outcome) => propose_response::Result::Outcome(encode(&outcome)),
            Err(error) => propose_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::ProposeResponse { result: Some(result) }))
    }

    async fn query(
        &self,
        request: Request<wire::QueryRequest>,
    ) -> Result<Response<wire::QueryResponse>, Status> {
        let message = request.into_inner();
        let query = decode(&message.query, "query")?;
        let shard = ShardId(message.shard);
        let mut chunks = Vec::new();
        let result = match self.handler.query(shard, query, message.linearizable).await {
            Ok(answer) => {
                let beside = self.handler.beside(shard, &answer);
                chunks = beside.into_iter().map(Into::into).collect();
                query_response::Result::Answer(encode(&answer))
            }
            Err(error) => query_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::QueryResponse { result: Some(result), chunks }))
    }

    async fn chunk(
        &self,
        request: Request<wire::ChunkRequest>,
    ) -> Result<Response<wire::ChunkResponse>, Status> {
        let message = request.into_inner();
        let chunk = chunk_ref(&message.digest, message.raw_len)?;
        let result = match self.handler.chunk(ShardId(message.shard), chunk).await {
            Ok(stored) => chunk_response::Result::Chunk(stored.into()),
            Err(error) => chunk_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::ChunkResponse { result: Some(result) }))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let message = request.into_inner();
        let stopped = super::ended(self.stopped.clone());
        let failed = |error: MailError| wire::WatchResponse {
            changes: Vec::new(),
            error: Some(error.into()),
        };
        let stream: Self::WatchStream =
            match self.handler.watch(ShardId(message.shard), message.from).await {
                Ok(changes) => {
                    // The first message is empty: it says that the subscription stands.
                    let first = futures_util::stream::iter([wire::WatchResponse::default()]);
                    let batches = changes.ready_chunks(CHANGES_PER_MESSAGE_MAX).map(batch);
                    Box::pin(first.chain(batches).map(Ok).take_until(Box::pin(stopped)))
                }
                Err(error) => {
                    Box::pin(futures_util::stream::once(async move { Ok(failed(error)) }))
                }
            };
        Ok(Response::new(stream))
    }

    async fn leader(
        &self,
        request: Request<wire::LeaderRequest>,
    ) -> Result<Response<wire::LeaderResponse>, Status> {
        let shard = ShardId(request.into_inner().shard);
        let response = match self.handler.leader(shard).await {
            Ok(known) => wire::LeaderResponse {
                leader: known.leader.unwrap_or_default(),
                term: known.term,
                error: None,
            },
            Err(error) => wire::LeaderResponse { error: Some(error.into()), ..Default::default() },
        };
        Ok(Response::new(response))
    }

    async fn maildrop(
        &self,
        request: Request<wire::MaildropRequest>,
    ) -> Result<Response<wire::MaildropResponse>, Status> {
        let message = request.into_inner();
        let account = AccountId(id(&message.account, "id of an account")?);
        let token = id(&message.token, "token of a maildrop")?;
        let shard = ShardId(message.shard);
        let held = match message.release {
            true => self.handler.unlock_maildrop(shard, account, token).await.map(|()| false),
            false => self.handler.lock_maildrop(shard, account, token).await,
        };
        let result = match held {
            Ok(held) => maildrop_response::Result::Held(held),
            Err(error) => maildrop_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::MaildropResponse { result: Some(result) }))
    }
}

/// Changes that were there at once as one message; an error ends it.
fn batch(changes: Vec<Result<(u64, mailbox::Change), MailError>>) -> wire::WatchResponse {
    let mut message = wire::WatchResponse::default();
    for change in changes {
        match change {
            Ok((log_index, change)) => message.changes.push(change_to_wire(log_index, &change)),
            Err(error) => {
                message.error = Some(error.into());
                break;
            }
        }
    }
    message
}
