//! The limits of root and of the break-glass account: `[root]`, `[break_glass_limits]`. And what a class of names no user has
//! may say.
//!
//! Invariants: what has no meaning for them is an error, never a key that does nothing; what is shown is a file again.

use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::raw::LimitItems;
use super::values::{Reader, place};
use super::{BreakGlass, CLASS_FIRST, Class, Config, Limits, Scope, Span};

/// Of root: its lock has a length of its own, and its password is never locked, it never expires, its sessions never end.
const NOT_ROOTS: [&str; 4] = ["unlock_time", "shadow_lock", "expire_after_trips", "end_sessions_after_trips"];
/// Of an account that is never locked.
const BREAK_GLASS: [&str; 6] = ["mode", "deny", "fail_interval", "delay", "delay_growth", "max_delay"];
/// Of names that have no account.
const NOT_UNKNOWNS: [&str; 5] =
    ["shadow_lock", "expire_after_trips", "end_sessions_after_trips", "restrict", "factor_deny"];

/// The keys of `limits` that `keep` takes.
fn some<S: Serializer>(limits: &Limits, keep: impl Fn(&str) -> bool, to: S) -> Result<S::Ok, S::Error> {
    let mut table = Table::try_from(limits).map_err(serde::ser::Error::custom)?;
    table.retain(|key, _| keep(key));
    Value::Table(table).serialize(to)
}

/// What `[root]` shows.
pub(super) fn root<S: Serializer>(limits: &Limits, to: S) -> Result<S::Ok, S::Error> {
    some(limits, |key| !NOT_ROOTS.contains(&key), to)
}

/// What `[break_glass_limits]` shows.
pub(super) fn break_glass<S: Serializer>(limits: &Limits, to: S) -> Result<S::Ok, S::Error> {
    some(limits, |key| BREAK_GLASS.contains(&key), to)
}

impl Config {
    /// The class of names no user has.
    #[must_use]
    pub fn class_of_unknown(&self) -> u32 {
        let classes = (CLASS_FIRST..).zip(&self.classes);
        classes.into_iter().find(|(_, class)| class.unknown).map_or(super::CLASS_DEFAULT, |(index, _)| index)
    }
}

impl Class {
    /// Whether names no user has are its only members.
    fn unknown_alone(&self) -> bool {
        self.unknown && self.users.is_empty() && self.groups.is_empty() && !self.system
    }
}

impl Reader<'_, '_> {
    /// `[root]`: nothing without meaning, and a way in that no address can shut.
    pub(super) fn root(&mut self, config: &Config, items: LimitItems<'_>, even_deny_root: &super::raw::Item) {
        for (name, item) in items.named() {
            if item.is_some() && NOT_ROOTS.contains(&name) {
                let text = if name == "unlock_time" {
                    "has another name here: write root_unlock_time"
                } else {
                    "has no meaning for root, whose password is never locked: take it out"
                };
                self.problems.error(place(item), &format!("root.{name}"), text);
            }
        }
        if config.root.even_deny_root && config.break_glass.holds("root") {
            let text =
                "root is a break_glass account and would be locked by nothing: take one of the two out";
            return self.problems.error(place(even_deny_root), "root.even_deny_root", text);
        }
        let limits = &config.root.limits;
        let places =
            limits.restrict.as_ref().is_some_and(|open| !open.networks.is_empty() || !open.ttys.is_empty());
        let open = places || limits.factor_deny.is_some() || limits.scope == Scope::Pair;
        // Written down it is meant, as break_glass = false is.
        let meant = items.restrict.is_some() && limits.restrict.is_none();
        if !config.root.even_deny_root || open || meant {
            return;
        }
        let text = "lets every address lock root: say in [root] from where a locked root stays usable \
                    (restrict = { networks = [...] } or ttys), or scope = \"pair\", or that it is meant (restrict = false)";
        self.problems.error(place(even_deny_root), "root.even_deny_root", text);
    }

    /// `[break_glass_limits]`.
    pub(super) fn break_glass_limits(&mut self, config: &Config, items: LimitItems<'_>) {
        for (name, item) in items.named() {
            if item.is_none() {
                continue;
            }
            let key = format!("break_glass_limits.{name}");
            if !BREAK_GLASS.contains(&name) {
                let text = "has no meaning for an account that is never locked: take it out";
                self.problems.error(place(item), &key, text);
            } else if config.break_glass == BreakGlass::Refused {
                let text = "counts for nobody: there is no break_glass account";
                self.problems.warning(place(item), &key, text);
            }
        }
    }

    /// A class of names no user has.
    pub(super) fn unknown(&mut self, config: &Config, class: &Class, items: LimitItems<'_>) {
        if !class.unknown {
            return;
        }
        let key = format!("class \"{}\".unknown", class.name);
        for (name, item) in items.named() {
            let asked = item.as_ref().is_some_and(|item| item.get_ref().as_bool() != Some(false));
            if asked && class.unknown_alone() && NOT_UNKNOWNS.contains(&name) {
                let text = "has no meaning for names no user has: take it out";
                self.problems.error(place(item), &format!("class \"{}\".{name}", class.name), text);
            }
        }
        let first = config.classes.iter().find(|first| first.unknown);
        if let Some(first) = first.filter(|first| first.name != class.name) {
            let text = format!(
                "names no user has are in the class \"{}\" above already; the first counts",
                first.name
            );
            self.problems.warning(None, &key, text);
        } else if tells(&class.limits) != tells(&config.default) {
            let text = "limits other than [default]'s tell whoever guesses which names exist: he counts the guesses until \
                        he is refused, or measures the delay";
            self.problems.warning(None, &key, text);
        }
    }
}

/// What whoever guesses can see of limits.
fn tells(limits: &Limits) -> (super::Mode, Scope, [u32; 2], [Span; 6], super::Growth) {
    let Limits { mode, scope, deny, account_deny, fail_interval, unlock_time, .. } = limits;
    let Limits { backoff_window, max_unlock_time, delay, delay_growth, max_delay, .. } = limits;
    let spans = [*fail_interval, *unlock_time, *backoff_window, *max_unlock_time, *delay, *max_delay];
    (*mode, *scope, [*deny, *account_deny], spans, *delay_growth)
}
