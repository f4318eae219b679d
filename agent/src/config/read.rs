//! From a file's values to a [`Config`]: types, ranges, defaults, and what must fit together without knowing the host.
//!
//! Invariants: a value that is wrong is an error, never a default.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use portcullis_common::abi::MAX_CLASSES;
use portcullis_common::ledger::SLOTS;
use toml::Value;

use super::problem::{ConfigError, Problem, Problems};
use super::raw::{self, Item};
use super::sc5::Word;
use super::values::{Reader, is_name, place, short};
use super::{
    Agent, BreakGlass, CLASS_FIRST, Class, Config, Growth, Limits, Metrics, Mode, Root, Scope, Span,
};

const MAX_BYTES: u64 = 1 << 20;
/// Classes a file may name: the gate's, less default, root and break-glass.
const MOST: usize = (MAX_CLASSES - CLASS_FIRST) as usize;
const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

/// The text of a file.
pub(super) fn file(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::NoText { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NoText { path: path.to_owned() })
}

/// Warns of a file that others than root may change.
pub(super) fn mode_warning(path: &Path) -> Option<Problem> {
    let meta = std::fs::metadata(path).ok()?;
    let open = meta.permissions().mode() & 0o022 != 0 || meta.uid() != 0;
    open.then(|| Problem {
        path: path.to_owned(),
        line: None,
        key: String::new(),
        text: "others than root may change this file: chown root and chmod 644".to_owned(),
    })
}

/// The configuration that the values make; none, with the problems noted, where any of them is wrong.
pub(super) fn config(file: &raw::File, problems: &mut Problems<'_>) -> Option<Config> {
    let default = Limits {
        mode: Mode::Enforce,
        scope: Scope::Account,
        deny: 3,
        account_deny: 10,
        fail_interval: Span::seconds(15 * MINUTE),
        unlock_time: Span::seconds(10 * MINUTE),
        backoff_window: Span::seconds(0),
        max_unlock_time: Span::seconds(DAY),
        delay: Span::seconds(0),
        delay_growth: Growth::Linear,
        max_delay: Span::seconds(10),
        restrict: None,
        factor_deny: None,
        shadow_lock: false,
        expire_after_trips: 0,
        end_sessions_after_trips: 0,
    };
    let default = limits(file.default.limits(), "default", &default, problems);
    let root = limits(file.root.limits(), "root", &default, problems);
    let break_glass_limits =
        limits(file.break_glass_limits.limits(), "break_glass_limits", &default, problems);
    let mut read = Reader { problems };
    let break_glass = read.break_glass(&file.break_glass);
    let sc5 = read.sc5(&file.sc5);
    let config = Config {
        observer: read.observer(&file.observer, &break_glass, &sc5),
        break_glass,
        reservation_max_age: read.time(&file.reservation_max_age, "reservation_max_age", MINUTE, DAY),
        confirm_time: read.time(&file.confirm_time, "confirm_time", 10 * MINUTE, DAY),
        root: Root {
            even_deny_root: read.flag(&file.root.even_deny_root, "root.even_deny_root", false),
            root_unlock_time: read.span(
                &file.root.root_unlock_time,
                "root.root_unlock_time",
                Span::seconds(MINUTE),
                true,
            ),
            limits: root,
        },
        break_glass_limits,
        metrics: Metrics { listen: read.listen(&file.metrics.listen) },
        filter: read.filter(&file.filter),
        sc5,
        notify: read.notify(&file.notify),
        breaker: read.breaker(&file.breaker),
        agent: Agent {
            socket: read.path(&file.agent.socket, "agent.socket", "/run/portcullis/agent.sock"),
            store: read.path(&file.agent.store, "agent.store", "/var/lib/portcullis/portcullis.db"),
            reconcile: read.time(&file.agent.reconcile, "agent.reconcile", 5, DAY),
            passwd_timeout: read.time(&file.agent.passwd_timeout, "agent.passwd_timeout", 20, 10 * MINUTE),
        },
        classes: read.classes(&file.class, &default),
        default,
    };
    read.together(&config, file);
    (!problems.wrong()).then_some(config)
}

/// The limits of a table; what it does not say is inherited.
fn limits(
    items: raw::LimitItems<'_>,
    table: &str,
    inherited: &Limits,
    problems: &mut Problems<'_>,
) -> Limits {
    let mut read = Reader { problems };
    let key = |name: &str| format!("{table}.{name}");
    let mut span = |item, name, inherited, may_never| read.span(item, &key(name), inherited, may_never);
    let fail_interval = span(items.fail_interval, "fail_interval", inherited.fail_interval, false);
    let unlock_time = span(items.unlock_time, "unlock_time", inherited.unlock_time, true);
    let max_unlock_time = span(items.max_unlock_time, "max_unlock_time", inherited.max_unlock_time, true);
    let mut none = |item, name, inherited| read.span_or_none(item, &key(name), inherited);
    let backoff_window = none(items.backoff_window, "backoff_window", inherited.backoff_window);
    let delay = none(items.delay, "delay", inherited.delay);
    let max_delay = none(items.max_delay, "max_delay", inherited.max_delay);
    let modes = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];
    let scopes = [("account", Scope::Account), ("pair", Scope::Pair)];
    let growths = [("linear", Growth::Linear), ("exponential", Growth::Exponential)];
    Limits {
        mode: read.word(items.mode, &key("mode"), inherited.mode, modes),
        scope: read.word(items.scope, &key("scope"), inherited.scope, scopes),
        deny: read.deny(items.deny, &key("deny"), inherited.deny),
        account_deny: read.deny(items.account_deny, &key("account_deny"), inherited.account_deny),
        fail_interval,
        unlock_time,
        backoff_window,
        max_unlock_time,
        delay,
        delay_growth: read.word(items.delay_growth, &key("delay_growth"), inherited.delay_growth, growths),
        max_delay,
        restrict: read.restrict(items.restrict, &key("restrict"), &inherited.restrict),
        factor_deny: read.factor_deny(items.factor_deny, &key("factor_deny"), inherited.factor_deny),
        shadow_lock: read.flag(items.shadow_lock, &key("shadow_lock"), inherited.shadow_lock),
        expire_after_trips: read.trips(
            items.expire_after_trips,
            &key("expire_after_trips"),
            inherited.expire_after_trips,
        ),
        end_sessions_after_trips: read.trips(
            items.end_sessions_after_trips,
            &key("end_sessions_after_trips"),
            inherited.end_sessions_after_trips,
        ),
    }
}

impl Reader<'_, '_> {
    /// A guess that is made to wait is out meanwhile: the delay must leave time for the check itself.
    fn delays(&mut self, limits: &Limits, items: raw::LimitItems<'_>, max_age: Span) {
        if limits.delay == Span::seconds(0) {
            return;
        }
        let at = place(items.max_delay).or_else(|| place(items.delay));
        if limits.max_delay.nanoseconds() > max_age.nanoseconds() / 2 {
            let text = format!(
                "{} is too long: at most half of reservation_max_age ({max_age}), or guesses fail while they wait",
                limits.max_delay
            );
            self.problems.error(at, "max_delay", text);
        } else if limits.max_delay < limits.delay {
            let text = format!("{} is less than delay ({})", limits.max_delay, limits.delay);
            self.problems.error(at, "max_delay", text);
        }
    }

    /// One source alone must not be able to lock the account before it is locked out itself.
    fn scope(&mut self, limits: &Limits, items: raw::LimitItems<'_>) {
        if limits.scope == Scope::Pair && limits.account_deny <= limits.deny {
            let at = place(items.account_deny).or_else(|| place(items.deny)).or_else(|| place(items.scope));
            let text = format!(
                "{} must be more than deny ({}): with scope = \"pair\" deny locks one source out, account_deny the account",
                limits.account_deny, limits.deny
            );
            self.problems.error(at, "account_deny", text);
        }
    }

    fn break_glass(&mut self, item: &Item) -> BreakGlass {
        let key = "break_glass";
        match item.as_ref().map(|item| item.get_ref()) {
            Some(Value::String(name)) if is_name(name) => return BreakGlass::Accounts(vec![name.clone()]),
            Some(Value::Boolean(false)) => return BreakGlass::Refused,
            Some(Value::Array(list)) if !list.is_empty() => {
                let names: Option<Vec<String>> = list
                    .iter()
                    .map(|name| name.as_str().filter(|name| is_name(name)).map(str::to_owned))
                    .collect();
                match names {
                    Some(names) => return BreakGlass::Accounts(names),
                    None => self.problems.error(place(item), key, "must be a list of names of accounts"),
                }
            }
            Some(_) => {
                self.problems.error(
                    place(item),
                    key,
                    "must be the name of an account, a list of such names, or false to have none",
                );
            }
            None if cfg!(feature = "mutation-no-break-glass") => {}
            None => self.problems.error(
                None,
                key,
                "is missing: name an account that is never locked, so that somebody can always get in \
                 (break_glass = \"admin\"), or write break_glass = false to have none",
            ),
        }
        BreakGlass::Refused
    }

    pub(super) fn deny(&mut self, item: &Item, key: &str, inherited: u32) -> u32 {
        let Some(item) = item else { return inherited };
        let number = item.get_ref().as_integer().and_then(|number| u32::try_from(number).ok());
        match number {
            Some(deny) if (1..=SLOTS as u32).contains(&deny) => deny,
            _ => {
                let text = format!("must be a whole number from 1 to {SLOTS}, not {}", short(item.get_ref()));
                self.problems.error(Some(item.span()), key, text);
                inherited
            }
        }
    }

    fn classes(&mut self, list: &[toml::Spanned<raw::Class>], default: &Limits) -> Vec<Class> {
        if let Some(surplus) = list.get(MOST) {
            let text = format!("is one class too many: there can be {MOST}; use groups to merge some");
            self.problems.error(Some(surplus.span()), "class", text);
        }
        let mut seen: BTreeMap<String, ()> = BTreeMap::new();
        let mut classes = Vec::new();
        for entry in list {
            let raw = entry.get_ref();
            let name = self.class_name(raw, entry.span());
            let table = format!("class \"{name}\"");
            if !name.is_empty() && seen.insert(name.clone(), ()).is_some() {
                let text = format!("the class \"{name}\" is there already: give this one another name");
                self.problems.error(place(&raw.name), "class.name", text);
            }
            let users = self.names(&raw.users, &format!("{table}.users"));
            let groups = self.names(&raw.groups, &format!("{table}.groups"));
            let system = self.flag(&raw.system, &format!("{table}.system"), false);
            let unknown = self.flag(&raw.unknown, &format!("{table}.unknown"), false);
            if users.is_empty() && groups.is_empty() && !system && !unknown {
                let text = format!(
                    "{table} has no members: give it users = [...] or groups = [...], system = true or unknown = true"
                );
                self.problems.error(Some(entry.span()), "class.users", text);
            }
            let limits = limits(raw.limits(), &table, default, self.problems);
            classes.push(Class { name, users, groups, system, unknown, limits });
        }
        classes
    }

    fn class_name(&mut self, raw: &raw::Class, at: Range<usize>) -> String {
        let wrong = "must be 1 to 64 letters, digits, dots, dashes or underscores, and not default, root or break_glass";
        match raw.name.as_ref().map(|name| name.get_ref()) {
            Some(Value::String(name)) if is_class_name(name) => name.clone(),
            Some(_) => {
                self.problems.error(place(&raw.name), "class.name", wrong);
                String::new()
            }
            None => {
                let text = format!("is missing: every [[class]] needs one; it {wrong}");
                self.problems.error(Some(at), "class.name", text);
                String::new()
            }
        }
    }

    /// What must fit together.
    fn together(&mut self, config: &Config, file: &raw::File) {
        let classes = config.classes.iter().zip(&file.class);
        let classes = classes.map(|(class, raw)| (&class.limits, raw.get_ref().limits()));
        let own = [
            (&config.default, file.default.limits()),
            (&config.root.limits, file.root.limits()),
            (&config.break_glass_limits, file.break_glass_limits.limits()),
        ];
        for (limits, items) in own.into_iter().chain(classes) {
            self.delays(limits, items, config.reservation_max_age);
            self.scope(limits, items);
            self.rungs(limits, items);
        }
        self.root(config, file.root.limits(), &file.root.even_deny_root);
        self.break_glass_limits(config, file.break_glass_limits.limits());
        for (class, raw) in config.classes.iter().zip(&file.class) {
            self.unknown(config, class, raw.get_ref().limits());
        }
        if !config.filter.enabled && [config.sc5.guess, config.sc5.spray].contains(&Word::Drop) {
            let at = place(&file.sc5.guess).or_else(|| place(&file.sc5.spray));
            let text = "drops nothing while the filter is off: set enabled = true in [filter]";
            self.problems.warning(at, "sc5", text);
        }
        if config.root.even_deny_root && config.break_glass == BreakGlass::Refused {
            let at = place(&file.root.even_deny_root);
            let key = "root.even_deny_root";
            if config.root.root_unlock_time == Span::NEVER {
                self.problems.error(
                    at,
                    key,
                    "locks everybody out for ever: with break_glass = false and root_unlock_time = \"never\" anybody \
                     can lock root and nobody can unlock it; change one of the three",
                );
            } else {
                self.problems.warning(
                    at,
                    key,
                    "with break_glass = false anybody who reaches a password prompt can lock every account of this \
                     host for a while; name a break_glass account",
                );
            }
        }
    }
}

fn is_class_name(name: &str) -> bool {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    (1..=64).contains(&name.len())
        && name.chars().all(good)
        && !["default", "root", "break_glass"].contains(&name)
}
