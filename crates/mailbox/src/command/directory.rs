//! ClaimAddress, ReleaseAddress, RepointAddress, SetGroup: the directory slots this shard keeps.

use crate::answer::GroupRecord;
use crate::command::{ClaimAddress, Place, ReleaseAddress, SetGroup};
use crate::outcome::{Outcome, Refusal};
use crate::row;
use crate::rows::{Rows, Source};
use crate::table;

/// Limit: members of a group, since each message for it becomes so many deliveries.
pub const GROUP_MEMBERS_MAX: usize = 100;

/// The address is this account's, if it was nobody's or already its own. What may be its login is not
/// made an alias by this.
pub(crate) fn claim(rows: &mut Rows<'_>, cmd: &ClaimAddress) -> Result<Outcome, Refusal> {
    let key = table::address(&cmd.address);
    let mut claimed = cmd.place;
    if let Some(place) = row::load::<Place>(rows, &key) {
        if place.account != cmd.place.account || place.epoch > cmd.place.epoch {
            return Err(Refusal::Taken);
        }
        // Why: nobody logs in at an alias, so its account would be locked out.
        claimed.alias &= place.alias;
    }
    if rows.row(&table::group(&cmd.address)).is_some() {
        return Err(Refusal::Taken);
    }
    row::save(rows, key, &claimed);
    Ok(Outcome::Done)
}

/// The address is nobody's; a repetition is nothing.
pub(crate) fn release(rows: &mut Rows<'_>, cmd: &ReleaseAddress) -> Result<Outcome, Refusal> {
    let key = table::address(&cmd.address);
    match row::load::<Place>(rows, &key) {
        Some(place) if place.account != cmd.account => Err(Refusal::Taken),
        _ => {
            rows.remove(&key);
            Ok(Outcome::Done)
        }
    }
}

/// The account moved to another shard.
pub(crate) fn repoint(rows: &mut Rows<'_>, cmd: &ClaimAddress) -> Result<Outcome, Refusal> {
    let key = table::address(&cmd.address);
    match row::load::<Place>(rows, &key) {
        None => Err(Refusal::NoSuchAccount),
        Some(place) if place.account != cmd.place.account => Err(Refusal::Taken),
        Some(place) if place.epoch >= cmd.place.epoch => Err(Refusal::Moved(place)),
        Some(_) => {
            row::save(rows, key, &cmd.place);
            Ok(Outcome::Done)
        }
    }
}

/// The address is the group's, if it is no account's; without members it is nobody's.
pub(crate) fn set_group(rows: &mut Rows<'_>, cmd: &SetGroup) -> Result<Outcome, Refusal> {
    if rows.row(&table::address(&cmd.address)).is_some() {
        return Err(Refusal::Taken);
    }
    let key = table::group(&cmd.address);
    if let Some(expected) = &cmd.expected {
        let group: Option<GroupRecord> = row::load(rows, &key);
        if group.map_or(Vec::new(), |group| group.members) != *expected {
            return Err(Refusal::Taken);
        }
    }
    let mut members = cmd.members.clone();
    members.sort_unstable();
    members.dedup();
    if members.len() > GROUP_MEMBERS_MAX {
        return Err(Refusal::Limit("members of a group".into()));
    }
    if members.is_empty() {
        rows.remove(&key);
    } else {
        row::save(rows, key, &GroupRecord { address: cmd.address.clone(), members });
    }
    Ok(Outcome::Done)
}
