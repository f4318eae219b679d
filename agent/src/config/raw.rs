//! The file as TOML sees it: known keys, values of any type, each with its place.
//!
//! Invariants: unknown keys and keys given twice are errors here; everything else is judged in `read`.

use serde::Deserialize;
use toml::{Spanned, Value};

use super::problem::Problems;

/// A value and its place; none where the key is missing.
pub(super) type Item = Option<Spanned<Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) break_glass: Item,
    pub(super) reservation_max_age: Item,
    pub(super) confirm_time: Item,
    #[serde(default)]
    pub(super) default: Limits,
    #[serde(default)]
    pub(super) break_glass_limits: Limits,
    #[serde(default)]
    pub(super) class: Vec<Spanned<Class>>,
    #[serde(default)]
    pub(super) root: Root,
    #[serde(default)]
    pub(super) metrics: Metrics,
    #[serde(default)]
    pub(super) filter: Filter,
    #[serde(default)]
    pub(super) sc5: Sc5,
    #[serde(default)]
    pub(super) observer: Observer,
    #[serde(default)]
    pub(super) notify: Notify,
    #[serde(default)]
    pub(super) breaker: Breaker,
    #[serde(default)]
    pub(super) agent: Agent,
}

/// A table with the keys of a class's limits and some of its own. A macro, since serde's `flatten` does not go with
/// `deny_unknown_fields`.
macro_rules! with_limits {
    ($name:ident { $($own:ident),* }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $own: Item,)*
            mode: Item,
            scope: Item,
            deny: Item,
            account_deny: Item,
            fail_interval: Item,
            unlock_time: Item,
            backoff_window: Item,
            max_unlock_time: Item,
            delay: Item,
            delay_growth: Item,
            max_delay: Item,
            restrict: Item,
            factor_deny: Item,
            shadow_lock: Item,
            expire_after_trips: Item,
            end_sessions_after_trips: Item,
        }

        impl $name {
            /// The keys of the limits.
            pub(super) fn limits(&self) -> LimitItems<'_> {
                LimitItems {
                    mode: &self.mode,
                    scope: &self.scope,
                    deny: &self.deny,
                    account_deny: &self.account_deny,
                    fail_interval: &self.fail_interval,
                    unlock_time: &self.unlock_time,
                    backoff_window: &self.backoff_window,
                    max_unlock_time: &self.max_unlock_time,
                    delay: &self.delay,
                    delay_growth: &self.delay_growth,
                    max_delay: &self.max_delay,
                    restrict: &self.restrict,
                    factor_deny: &self.factor_deny,
                    shadow_lock: &self.shadow_lock,
                    expire_after_trips: &self.expire_after_trips,
                    end_sessions_after_trips: &self.end_sessions_after_trips,
                }
            }
        }
    };
}

with_limits!(Limits {});
with_limits!(Class { name, users, groups, system, unknown });
with_limits!(Root { even_deny_root, root_unlock_time });

/// The limits of a table.
#[derive(Clone, Copy)]
pub(super) struct LimitItems<'a> {
    pub(super) mode: &'a Item,
    pub(super) scope: &'a Item,
    pub(super) deny: &'a Item,
    pub(super) account_deny: &'a Item,
    pub(super) fail_interval: &'a Item,
    pub(super) unlock_time: &'a Item,
    pub(super) backoff_window: &'a Item,
    pub(super) max_unlock_time: &'a Item,
    pub(super) delay: &'a Item,
    pub(super) delay_growth: &'a Item,
    pub(super) max_delay: &'a Item,
    pub(super) restrict: &'a Item,
    pub(super) factor_deny: &'a Item,
    pub(super) shadow_lock: &'a Item,
    pub(super) expire_after_trips: &'a Item,
    pub(super) end_sessions_after_trips: &'a Item,
}

impl<'a> LimitItems<'a> {
    /// All of them, by name.
    pub(super) fn named(self) -> [(&'static str, &'a Item); 16] {
        [
            ("mode", self.mode),
            ("scope", self.scope),
            ("deny", self.deny),
            ("account_deny", self.account_deny),
            ("fail_interval", self.fail_interval),
            ("unlock_time", self.unlock_time),
            ("backoff_window", self.backoff_window),
            ("max_unlock_time", self.max_unlock_time),
            ("delay", self.delay),
            ("delay_growth", self.delay_growth),
            ("max_delay", self.max_delay),
            ("restrict", self.restrict),
            ("factor_deny", self.factor_deny),
            ("shadow_lock", self.shadow_lock),
            ("expire_after_trips", self.expire_after_trips),
            ("end_sessions_after_trips", self.end_sessions_after_trips),
        ]
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    pub(super) enabled: Item,
    pub(super) interfaces: Item,
    pub(super) xdp: Item,
    pub(super) xdp_mode: Item,
    pub(super) allow: Item,
    pub(super) backend: Item,
    pub(super) samples: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Observer {
    pub(super) enabled: Item,
    pub(super) watch: Item,
    pub(super) count_unrecorded: Item,
    pub(super) deny_exec: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sc5 {
    pub(super) guess: Item,
    pub(super) spray: Item,
    pub(super) local: Item,
    pub(super) deny: Item,
    pub(super) accounts: Item,
    pub(super) find_time: Item,
    pub(super) drop_time: Item,
    pub(super) max_drop_time: Item,
    pub(super) decay: Item,
    pub(super) escalate: Item,
    pub(super) ports: Item,
    pub(super) exempt: Item,
    pub(super) exempt_administrators: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    pub(super) file: Item,
    pub(super) file_megabytes: Item,
    pub(super) parallel: Item,
    pub(super) queue: Item,
    pub(super) timeout: Item,
    #[serde(default)]
    pub(super) command: Vec<Spanned<NotifyCommand>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotifyCommand {
    pub(super) events: Item,
    pub(super) argv: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Breaker {
    pub(super) failing_accounts: Item,
    pub(super) failing_window: Item,
    pub(super) locked_percent: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) socket: Item,
    pub(super) store: Item,
    pub(super) reconcile: Item,
    pub(super) passwd_timeout: Item,
}

/// Reads the text; none, with the problem noted, where it is not of this form.
pub(super) fn parse(text: &str, problems: &mut Problems<'_>) -> Option<File> {
    match toml::from_str(text) {
        Ok(file) => Some(file),
        Err(error) => {
            problems.syntax(&error);
            None
        }
    }
}
