//! Resolve: who has an address.

use crate::address::Address;
use crate::answer::Answer;
use crate::row;
use crate::rows::Source;
use crate::table;

pub(super) fn answer(rows: &dyn Source, address: &Address) -> Answer {
    Answer::Place(row::load(rows, &table::address(address)))
}
