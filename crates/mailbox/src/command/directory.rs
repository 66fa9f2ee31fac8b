//! ClaimAddress, ReleaseAddress, RepointAddress: the directory slots this shard keeps.

use crate::command::{ClaimAddress, Place, ReleaseAddress};
use crate::outcome::{Outcome, Refusal};
use crate::row;
use crate::rows::Rows;
use crate::table;

/// The address is this account's, if it was nobody's or already its own.
pub(crate) fn claim(rows: &mut Rows<'_>, cmd: &ClaimAddress) -> Result<Outcome, Refusal> {
    let key = table::address(&cmd.address);
    if let Some(place) = row::load::<Place>(rows, &key)
        && (place.account != cmd.place.account || place.epoch > cmd.place.epoch)
    {
        return Err(Refusal::Taken);
    }
    row::save(rows, key, &cmd.place);
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
