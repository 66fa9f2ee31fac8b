//! What operators see: tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use mailbox::ShardId;
use mailbox::answer::{AccountRecord, GroupRecord};
use mailbox::command::Quota;
use serde_json::{Value, json};

use crate::cluster::ClusterStatus;
use crate::explain::Explanation;
use crate::message::MessageStatus;

/// A line for whoever reads standard output. What is done goes on when nobody does any more: `| head` is no
/// reason to leave a node half drained.
pub fn say(text: impl Display) {
    if let Err(error) = writeln!(io::stdout(), "{text}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("rookery: write to standard output: {error}");
        std::process::exit(1);
    }
}

/// `ctl account list`
pub fn accounts(all: &[(ShardId, AccountRecord)], as_json: bool) -> Result<()> {
    if as_json {
        let all: Vec<Value> =
            all.iter().map(|(shard, record)| account_json(*shard, record)).collect();
        return print_json(&Value::Array(all));
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["account", "state", "messages", "octets", "shard"]);
    for (shard, record) in all {
        table.add_row([
            record.name.to_string(),
            format!("{:?}", record.state).to_lowercase(),
            record.n_messages.to_string(),
            record.storage_bytes.to_string(),
            shard.to_string(),
        ]);
    }
    say(table);
    Ok(())
}

/// `ctl group list`
pub fn groups(all: &[GroupRecord], as_json: bool) -> Result<()> {
    let members = |group: &GroupRecord| -> Vec<String> {
        group.members.iter().map(ToString::to_string).collect()
    };
    if as_json {
        let one = |group: &GroupRecord| -> Value {
            json!({ "address": group.address.as_str(), "members": members(group) })
        };
        return print_json(&Value::Array(all.iter().map(one).collect()));
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["group", "members"]);
    for group in all {
        table.add_row([group.address.to_string(), members(group).join(" ")]);
    }
    say(table);
    Ok(())
}

/// `ctl account show`
pub fn account(shard: ShardId, record: &AccountRecord, as_json: bool) -> Result<()> {
    let value = account_json(shard, record);
    if as_json {
        return print_json(&value);
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        say(format_args!("{key:<20}{text}"));
    }
    Ok(())
}

/// What an account may have, in words.
pub fn limits(quota: &Quota) -> String {
    let words = |most: Option<u64>, what: &str| match most {
        Some(n) => format!("{n} {what}"),
        None => format!("any number of {what}"),
    };
    let octets = words(quota.storage_bytes, "octets");
    format!("{octets} and {}", words(quota.n_messages, "messages"))
}

/// `ctl cluster status`
pub fn status(status: &ClusterStatus, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(&status.to_json());
    }
    say(status.tables());
    Ok(())
}

/// `ctl message status`
pub fn message(status: &MessageStatus, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(&status.to_json());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    say(status.table(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)));
    Ok(())
}

/// `ctl explain`
pub fn explanation(explanation: &Explanation, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(&explanation.to_json());
    }
    say(explanation.text());
    Ok(())
}

fn account_json(shard: ShardId, record: &AccountRecord) -> Value {
    let aliases: Vec<&str> = record.aliases.iter().map(mailbox::Address::as_str).collect();
    json!({
        "name": record.name.as_str(),
        "id": record.account.to_string(),
        "state": format!("{:?}", record.state).to_lowercase(),
        "aliases": aliases,
        "messages": record.n_messages,
        "storage_bytes": record.storage_bytes,
        "quota_messages": record.quota.n_messages,
        "quota_storage_bytes": record.quota.storage_bytes,
        "shard": shard.0,
    })
}

fn print_json(value: &Value) -> Result<()> {
    say(serde_json::to_string_pretty(value).context("write JSON")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever sets one limit hears that the other is gone.
    #[test]
    fn both_limits_of_an_account_are_told() {
        let quota = Quota { storage_bytes: None, n_messages: Some(100) };
        assert_eq!(limits(&quota), "any number of octets and 100 messages");
        let quota = Quota { storage_bytes: Some(7), n_messages: None };
        assert_eq!(limits(&quota), "7 octets and any number of messages");
    }
}
