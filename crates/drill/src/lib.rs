//! The failover drill: clients that keep using a mail store while it is hurt, and the judge of what
//! they saw. Enter at [`check`]: it reads a [`History`] and names every broken promise.

mod availability;
mod check;
mod history;

pub use availability::{Availability, ClientAvailability, availability};
pub use check::{Promise, Violation, check};
pub use history::{
    Event, Fault, FlagChange, History, Operation, Placed, ReadHistoryError, Record, ReplicaState,
    Reply, Target, Verdict, View, ViewedMessage,
};
