//! The wire: gRPC services between frontends, nodes and operators, and the client side of each.

pub mod peer;
