//! Results as text for people. Nothing here prints, and nothing here knows of a terminal: colours are codes in
//! the text, which the output leaves out where they have no place.

mod sheet;
mod table;
mod units;

pub(crate) use sheet::{Level, Sheet};
pub(crate) use table::Table;
pub(crate) use units::{Unit, count, duration, rate};
