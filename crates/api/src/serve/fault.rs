//! Service fault over a [`FaultHandler`].

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::fault::{Fault, FaultHandler};
use crate::proto::fault as wire;
use crate::proto::fault::fault_server;

pub(super) struct FaultService {
    pub(super) handler: Arc<dyn FaultHandler>,
}

#[tonic::async_trait]
impl fault_server::Fault for FaultService {
    async fn inflict(
        &self,
        request: Request<wire::InflictRequest>,
    ) -> Result<Response<wire::InflictResponse>, Status> {
        let message = request.into_inner();
        let kind = message.fault.ok_or_else(|| Status::invalid_argument("which fault?"))?;
        let result = self.handler.inflict(&message.node, Fault::try_from(kind)?).await;
        Ok(Response::new(match result {
            Ok(n_bits) => wire::InflictResponse { error: None, n_bits },
            Err(error) => wire::InflictResponse { error: Some(error.into()), n_bits: 0 },
        }))
    }
}
