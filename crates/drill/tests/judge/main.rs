//! The judge of histories: what it must catch, what it must let pass, and how histories are kept.

mod history;
mod promises;
mod support;
