//! The keys of the rungs above the shadow lock.
//!
//! Invariants: off unless the file says otherwise; a number that no row of trips can reach is an error.

use serde::Serializer;

use super::raw::{Item, LimitItems};
use super::values::{Reader, place, short};
use super::{Limits, Span};

/// The longest row that is waited for.
const MOST: u32 = 1_000;

/// No number is `false` in the file.
pub(super) fn number_or_false<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    if *number == 0 { serializer.serialize_bool(false) } else { serializer.serialize_u32(*number) }
}

impl Reader<'_, '_> {
    /// A number of trips, or false.
    pub(super) fn trips(&mut self, item: &Item, key: &str, inherited: u32) -> u32 {
        let Some(item) = item else { return inherited };
        if item.get_ref().as_bool() == Some(false) {
            return 0;
        }
        match item.get_ref().as_integer().and_then(|number| u32::try_from(number).ok()) {
            Some(trips) if (1..=MOST).contains(&trips) => trips,
            _ => {
                let text = format!(
                    "must be a whole number from 1 to {MOST}, or false, not {}",
                    short(item.get_ref())
                );
                self.problems.error(Some(item.span()), key, text);
                inherited
            }
        }
    }

    /// Without a back-off window every trip is the first of a row.
    pub(super) fn rungs(&mut self, limits: &Limits, items: LimitItems<'_>) {
        let rungs = [
            (limits.expire_after_trips, items.expire_after_trips, "expire_after_trips"),
            (limits.end_sessions_after_trips, items.end_sessions_after_trips, "end_sessions_after_trips"),
        ];
        for (trips, item, key) in rungs {
            if trips > 1 && limits.backoff_window == Span::seconds(0) {
                let at = place(item).or_else(|| place(items.backoff_window));
                let text = format!(
                    "{trips} trips in a row need a backoff_window in which they count as such: set it, or write 1"
                );
                self.problems.error(at, key, text);
            }
        }
    }
}
