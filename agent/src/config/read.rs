//! From a file's values to a [`Config`]: types, ranges, defaults, and what must fit together without knowing the host.
//!
//! Invariants: a value that is wrong is an error, never a default.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use portcullis_common::abi::MAX_CLASSES;
use portcullis_common::ledger::SLOTS;
use toml::Value;

use super::problem::{ConfigError, Problem, Problems};
use super::raw::{self, Item};
use super::{Agent, BreakGlass, CLASS_FIRST, Class, Config, Limits, Metrics, Root, Span};

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
        deny: 3,
        fail_interval: Span::seconds(15 * MINUTE),
        unlock_time: Span::seconds(10 * MINUTE),
        shadow_lock: false,
    };
    let own = &file.default;
    let items = [&own.deny, &own.fail_interval, &own.unlock_time, &own.shadow_lock];
    let default = limits(items, "default", &default, problems);
    let mut read = Reader { problems };
    let config = Config {
        break_glass: read.break_glass(&file.break_glass),
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
        },
        metrics: Metrics { listen: read.listen(&file.metrics.listen) },
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

/// Place of an item.
pub(super) fn place(item: &Item) -> Option<Range<usize>> {
    item.as_ref().map(toml::Spanned::span)
}

/// The limits of a table; what it does not say is inherited.
fn limits(items: [&Item; 4], table: &str, inherited: &Limits, problems: &mut Problems<'_>) -> Limits {
    let [deny, fail_interval, unlock_time, shadow_lock] = items;
    let mut read = Reader { problems };
    Limits {
        deny: read.deny(deny, &format!("{table}.deny"), inherited.deny),
        fail_interval: read.span(
            fail_interval,
            &format!("{table}.fail_interval"),
            inherited.fail_interval,
            false,
        ),
        unlock_time: read.span(unlock_time, &format!("{table}.unlock_time"), inherited.unlock_time, true),
        shadow_lock: read.flag(shadow_lock, &format!("{table}.shadow_lock"), inherited.shadow_lock),
    }
}

/// Judges one value after the other.
struct Reader<'a, 'b> {
    problems: &'a mut Problems<'b>,
}

impl Reader<'_, '_> {
    fn break_glass(&mut self, item: &Item) -> BreakGlass {
        let key = "break_glass";
        match item.as_ref().map(|item| item.get_ref()) {
            Some(Value::String(name)) if is_name(name) => return BreakGlass::Account(name.clone()),
            Some(Value::Boolean(false)) => return BreakGlass::Refused,
            Some(_) => {
                self.problems.error(
                    place(item),
                    key,
                    "must be the name of an account, or false to have none",
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

    fn deny(&mut self, item: &Item, key: &str, inherited: u32) -> u32 {
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

    /// A length of time, or, where that may be, never.
    fn span(&mut self, item: &Item, key: &str, inherited: Span, may_never: bool) -> Span {
        let Some(item) = item else { return inherited };
        let text = match item.get_ref() {
            Value::String(text) => text.clone(),
            // What faillock.conf would say.
            Value::Integer(seconds) => seconds.to_string(),
            other => short(other),
        };
        if text == "never" {
            if may_never {
                return Span::NEVER;
            }
            self.problems.error(Some(item.span()), key, "cannot be never here: write a length of time");
            return inherited;
        }
        match Span::parse(&text) {
            Ok(span) => span,
            Err(error) => {
                self.problems.error(
                    Some(item.span()),
                    key,
                    format_args!("{} {error}", short(item.get_ref())),
                );
                inherited
            }
        }
    }

    /// A length of time with a default and an upper bound, in seconds.
    fn time(&mut self, item: &Item, key: &str, default: u64, longest: u64) -> Span {
        let span = self.span(item, key, Span::seconds(default), false);
        if span > Span::seconds(longest) {
            let text = format!("{span} is too long: write at most \"{}\"", Span::seconds(longest));
            self.problems.error(place(item), key, text);
        }
        span
    }

    fn flag(&mut self, item: &Item, key: &str, inherited: bool) -> bool {
        let Some(item) = item else { return inherited };
        item.get_ref().as_bool().unwrap_or_else(|| {
            let text = format!("must be true or false, not {}", short(item.get_ref()));
            self.problems.error(Some(item.span()), key, text);
            inherited
        })
    }

    fn path(&mut self, item: &Item, key: &str, default: &str) -> PathBuf {
        let Some(item) = item else { return default.into() };
        match item.get_ref() {
            Value::String(path) if path.starts_with('/') && !path.contains('\0') => path.into(),
            other => {
                let text = format!("must be an absolute path, not {}", short(other));
                self.problems.error(Some(item.span()), key, text);
                default.into()
            }
        }
    }

    fn listen(&mut self, item: &Item) -> Option<SocketAddr> {
        let key = "metrics.listen";
        let Some(item) = item else { return Some(SocketAddr::from(([127, 0, 0, 1], 9456))) };
        if item.get_ref().as_bool() == Some(false) {
            return None;
        }
        let address = item.get_ref().as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        match address {
            Some(address) if !address.ip().is_loopback() => {
                self.problems.warning(
                    Some(item.span()),
                    key,
                    "is no loopback address: whoever reaches it can read the metrics, which name no account but \
                     count attempts",
                );
            }
            Some(_) => {}
            None => self.problems.error(
                Some(item.span()),
                key,
                format_args!(
                    "must be an address and a port (\"127.0.0.1:9456\", \"[::1]:9456\"), or false, not {}",
                    short(item.get_ref())
                ),
            ),
        }
        address
    }

    /// A list of names of users or groups.
    fn names(&mut self, item: &Item, key: &str) -> Vec<String> {
        let Some(item) = item else { return Vec::new() };
        let wrong = "must be a list of names, as in [\"jon\", \"kon\"]";
        let Some(list) = item.get_ref().as_array() else {
            self.problems.error(Some(item.span()), key, wrong);
            return Vec::new();
        };
        let mut names = Vec::new();
        for value in list {
            match value.as_str() {
                Some(name) if is_name(name) => names.push(name.to_owned()),
                _ => {
                    let text = format!("{wrong}; {} is none", short(value));
                    self.problems.error(Some(item.span()), key, text);
                }
            }
        }
        names
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
            if users.is_empty() && groups.is_empty() {
                let text = format!("{table} has no members: give it users = [...] or groups = [...]");
                self.problems.error(Some(entry.span()), "class.users", text);
            }
            let items = [&raw.deny, &raw.fail_interval, &raw.unlock_time, &raw.shadow_lock];
            let limits = limits(items, &table, default, self.problems);
            classes.push(Class { name, users, groups, limits });
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

/// A value, short enough for a message.
fn short(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        other => {
            let mut text = other.to_string();
            if text.chars().count() > 40 {
                text = text.chars().take(40).chain(['…']).collect();
            }
            text
        }
    }
}

/// Whether a user database could hold it, and `passwd` take it.
fn is_name(name: &str) -> bool {
    let odd = |letter: char| letter.is_control() || letter.is_whitespace() || ":/,".contains(letter);
    !name.is_empty() && name.len() <= 256 && !name.starts_with('-') && !name.contains(odd)
}

fn is_class_name(name: &str) -> bool {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    (1..=64).contains(&name.len())
        && name.chars().all(good)
        && !["default", "root", "break_glass"].contains(&name)
}
