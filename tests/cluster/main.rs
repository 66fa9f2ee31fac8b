//! Tests with real processes: a demo cluster, its protocols, and `kill -9`.

mod account_left;
mod account_move;
mod account_names;
mod accounts;
mod bad_input;
mod bytes;
mod chaos;
mod clients;
mod demo_options;
mod disk_faults;
mod drill;
mod failover;
mod help_page;
mod idle;
mod large;
mod lifecycle;
mod log_full;
mod mailload;
mod odd_shapes;
mod postfix;
mod recovery;
mod replacement;
mod roll_back;
mod rot;
mod webmail;
mod wrong_config;
