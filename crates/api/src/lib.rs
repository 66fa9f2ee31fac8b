//! The wire: gRPC services between frontends, nodes and operators, and the client side of each.
//!
//! A node implements [`mail::MailHandler`], [`meta::MetaHandler`], [`admin::AdminHandler`] and
//! [`peer::PeerHandler`]; one that may be drilled also [`fault::FaultHandler`]. A frontend holds one
//! client, an operator an admin client.

pub mod admin;
pub mod client;
pub mod config;
mod convert;
pub mod counter;
mod dial;
pub mod fault;
pub mod mail;
pub mod meta;
pub mod peer;
pub mod peer_grpc;
pub mod placement;
pub mod probes;
pub mod serve;
pub mod tls;

pub use dial::{MESSAGE_BYTES_MAX, Resolver};

/// What prost and tonic generate from `proto/`.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, clippy::unwrap_used)]
pub(crate) mod proto {
    pub(crate) mod rookery {
        pub(crate) mod mail {
            pub(crate) mod v1 {
                tonic::include_proto!("rookery.mail.v1");
            }
        }
        pub(crate) mod raft {
            pub(crate) mod v1 {
                tonic::include_proto!("rookery.raft.v1");
            }
        }
        pub(crate) mod meta {
            pub(crate) mod v1 {
                tonic::include_proto!("rookery.meta.v1");
            }
        }
        pub(crate) mod admin {
            pub(crate) mod v1 {
                tonic::include_proto!("rookery.admin.v1");
            }
        }
        pub(crate) mod fault {
            pub(crate) mod v1 {
                tonic::include_proto!("rookery.fault.v1");
            }
        }
    }
    pub(crate) use rookery::admin::v1 as admin;
    pub(crate) use rookery::fault::v1 as fault;
    pub(crate) use rookery::mail::v1 as mail;
    pub(crate) use rookery::meta::v1 as meta;
    pub(crate) use rookery::raft::v1 as raft;
}
