//! A replica's refusals in the words of each service.

use api::mail::MailError;
use api::meta::MetaError;
use replica::{ChunkError, ProposeError};

/// For frontends.
pub(crate) fn propose(error: ProposeError) -> MailError {
    match error {
        ProposeError::NotLeader { leader } => {
            MailError::NotLeader { leader: leader.map(|member| member.node) }
        }
        ProposeError::Unavailable | ProposeError::Stopped => MailError::Unavailable,
        ProposeError::Unknown => MailError::Unknown,
        ProposeError::Full => MailError::Full,
        ProposeError::Overloaded => MailError::Overloaded,
        ProposeError::Damaged => MailError::Damaged,
    }
}

/// For nodes and operators.
pub(crate) fn meta(error: ProposeError) -> MetaError {
    match error {
        ProposeError::NotLeader { leader } => {
            MetaError::NotLeader { leader: leader.map(|member| member.node) }
        }
        other => MetaError::Unavailable(other.to_string()),
    }
}

/// For readers of bodies.
pub(crate) fn chunk(error: ChunkError) -> MailError {
    match error {
        ChunkError::Missing => MailError::NoSuchChunk,
        ChunkError::Unavailable => MailError::Unavailable,
    }
}
