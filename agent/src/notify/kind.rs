//! Which class an event is of.
//!
//! Invariant: each event is of exactly one class; an event of a later version is an alarm until it is named here.

/// The classes.
pub const CLASSES: [&str; 5] = ["attempt", "lock", "action", "source", "alarm"];

/// The class of an event by its name.
#[must_use]
pub fn class(event: &str) -> &'static str {
    match event {
        "refused" | "busy" | "pass" | "fail" | "void" | "died" | "cleared" | "due" | "uncounted"
        | "unknown" => "attempt",
        "tripped" | "pair_tripped" | "locked" | "unlocked" | "lock_noted" | "released"
        | "pair_lock_noted" | "pair_released" => "lock",
        "shadow_lock" | "shadow_unlock" | "expire" | "unexpire" | "end_sessions" | "gate_lock"
        | "gate_unlock" => "action",
        other if other.starts_with("source_") || other.starts_with("drop") || other == "undropped" => {
            "source"
        }
        _ => "alarm",
    }
}

/// Whether an event is meant by a word of the configuration: its own name, its class, or `all`.
#[must_use]
pub fn matches(word: &str, event: &str) -> bool {
    word == "all" || word == event || word == class(event)
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, class, matches};

    #[test]
    fn every_event_of_the_documentation_has_one_class() {
        let text = include_str!("../../../docs/events.md");
        let rows = text.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 4);
        let names: Vec<&str> = rows
            .filter_map(|line| line.split('|').nth(1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert!(CLASSES.contains(&class(name)));
        }
        assert!(matches("lock", "tripped") && matches("tripped", "tripped") && matches("all", "fail"));
        assert!(!matches("lock", "fail") && !matches("trip", "tripped"));
    }
}
