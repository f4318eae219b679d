//! Which class an event is of.
//!
//! Invariant: each event is of exactly one class; an event of a later version is an alarm until it is named here.

/// The classes.
pub const CLASSES: [&str; 5] = ["attempt", "lock", "action", "source", "alarm"];

/// All events, by their classes in the order of [`CLASSES`].
const EVENTS: [&[&str]; 5] = [
    &[
        "refused",
        "busy",
        "pass",
        "fail",
        "void",
        "died",
        "cleared",
        "due",
        "uncounted",
        "reported",
        "reported_pass",
        "unknown",
    ],
    &[
        "tripped",
        "pair_tripped",
        "locked",
        "unlocked",
        "lock_noted",
        "released",
        "pair_lock_noted",
        "pair_released",
    ],
    &["shadow_lock", "shadow_unlock", "expire", "unexpire", "end_sessions", "gate_lock", "gate_unlock"],
    &[
        "dropped",
        "undropped",
        "drop_ended",
        "throttled",
        "unthrottled",
        "throttle_ended",
        "source_tripped",
        "source_dropped",
        "source_refused",
        "source_ended",
        "source_exempt",
        "source_failed",
        "source_not_held",
    ],
    &[
        "notice",
        "unrecorded_attempt",
        "record_without_process",
        "own_guess",
        "exec_denied",
        "observer_lost",
        "events_lost",
        "gate_gone",
        "gate_back",
        "gate_unreachable",
        "store_degraded",
        "store_set_aside",
        "breaker_open",
        "breaker_closed",
        "pam_line",
        "module_replaced",
        "pin_gone",
        "pin_replaced",
        "pin_mode",
        "detached",
        "interface_gone",
        "uprobe",
        "config_changed",
        "store_changed",
        "alarm_ended",
        "healed",
        "missed",
    ],
];

/// The class of an event by its name.
#[must_use]
pub fn class(event: &str) -> &'static str {
    let named = CLASSES.into_iter().zip(EVENTS).find(|(_, events)| events.contains(&event));
    named.map_or("alarm", |(class, _)| class)
}

/// Whether there is such an event.
#[must_use]
pub fn known(event: &str) -> bool {
    EVENTS.iter().any(|events| events.contains(&event))
}

/// Whether a word of the configuration means anything.
#[must_use]
pub fn is_word(word: &str) -> bool {
    word == "all" || CLASSES.contains(&word) || known(word)
}

/// Whether an event is meant by a word of the configuration: its own name, its class, or `all`.
#[must_use]
pub fn matches(word: &str, event: &str) -> bool {
    word == "all" || word == event || word == class(event)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{EVENTS, class, is_word, known, matches};

    #[test]
    fn the_documentation_has_every_event_and_no_other() {
        let text = include_str!("../../../docs/events.md");
        let mut rows = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            match line.split('|').nth(1).map(str::trim) {
                None => inside = false,
                Some("event") => inside = true,
                Some(cell) if inside => rows.extend(cell.split('`').skip(1).step_by(2)),
                Some(_) => {}
            }
        }
        let documented: BTreeSet<&str> = rows.iter().copied().collect();
        let all: BTreeSet<&str> = EVENTS.iter().flat_map(|events| events.iter().copied()).collect();
        assert_eq!(documented, all);
        assert_eq!(rows.len(), all.len(), "an event is there twice");
        assert_eq!(
            EVENTS.iter().map(|events| events.len()).sum::<usize>(),
            all.len(),
            "an event is of two classes"
        );
    }

    #[test]
    fn what_the_gate_tells_and_the_agent_does_is_known() {
        for number in 1..=u32::from(u8::MAX) {
            let kind = crate::event::Kind::of(number);
            // That one is for the observer alone.
            assert!(kind == crate::event::Kind::Abandoned || known(kind.name()), "{kind:?}");
        }
        for kind in crate::tamper::Kind::ALL {
            assert_eq!(class(kind.word()), "alarm");
            assert!(known(kind.word()));
        }
    }

    #[test]
    fn words_are_names_classes_or_all() {
        assert!(matches("lock", "tripped") && matches("tripped", "tripped") && matches("all", "fail"));
        assert!(!matches("lock", "fail") && !matches("trip", "tripped"));
        assert!(is_word("all") && is_word("alarm") && is_word("tripped") && !is_word("trip"));
        assert_eq!(class("of_a_later_version"), "alarm");
    }
}
