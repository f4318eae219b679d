//! `restrict = { networks = [...], ttys = [...], hours = "08:00-18:00" }`: from where and when a locked account stays usable.
//!
//! Invariants: pure, the time of day is passed in; nothing here names a place that the gate would have to look up by name.

use std::fmt;
use std::net::IpAddr;

use portcullis_common::abi::{Place, place};
use portcullis_common::filter::net::Net;
use portcullis_common::ledger::{self, rule_flag};
use serde::{Serialize, Serializer};
use toml::Value;

use super::raw::Item;
use super::values::{Reader, short};

/// Networks, and terminals, of one class.
const MOST: usize = 32;
/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Nanoseconds of a minute.
const MINUTE: u64 = 60 * 1_000_000_000;
/// What the value must be.
const WRONG: &str =
    "must be false, or some of networks = [\"192.0.2.0/24\"], ttys = [\"tty1\"], hours = \"08:00-18:00\"";

/// Where a soft lock is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restrict {
    /// For remote logons from these addresses. With no terminals either: from everywhere.
    #[serde(serialize_with = "as_text")]
    pub networks: Vec<Net>,
    /// For logons on these terminals of this host.
    pub ttys: Vec<String>,
    /// At this time of day only; none: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
}

/// A part of the day, from a minute to before another one, over midnight where the second is the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

impl Hours {
    /// Reads `HH:MM-HH:MM`; 24:00 is the end of the day.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let hours = Self { from: minute(from)?, to: minute(to)? };
        (hours.from < DAY && hours.from != hours.to).then_some(hours)
    }

    /// As the gate has them: when they begin, in boot time less whole days, and how long they are, where the local day begins
    /// at `midnight`.
    #[must_use]
    pub fn in_boot_time(self, midnight: u64) -> (u64, u64) {
        let (from, to, day) = (u64::from(self.from), u64::from(self.to), u64::from(DAY));
        let length = if from < to { to - from } else { day - from + to };
        let opens = midnight % ledger::DAY + from * MINUTE;
        (opens % ledger::DAY, length * MINUTE)
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Restrict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(ToString::to_string);
        let places: Vec<String> = networks.chain(self.ttys.iter().cloned()).collect();
        f.write_str(if places.is_empty() { "everywhere" } else { "" })?;
        f.write_str(&places.join(", "))?;
        self.hours.map_or(Ok(()), |hours| write!(f, " at {hours}"))
    }
}

fn as_text<S: Serializer>(networks: &[Net], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(ToString::to_string))
}

impl Restrict {
    /// The gate's flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        let anywhere = self.networks.is_empty() && self.ttys.is_empty();
        rule_flag::RESTRICT | if anywhere { rule_flag::ANYWHERE } else { 0 }
    }

    /// The gate's keys for the places of a class: length in bits, and the place, of no generation yet.
    #[must_use]
    pub fn places(&self, class: u32) -> Vec<(u32, Place)> {
        let networks = self.networks.iter().map(|net| {
            let (bytes, bits) = match net.address() {
                IpAddr::V4(address) => (address.to_ipv6_mapped().octets(), 96 + u32::from(net.length())),
                IpAddr::V6(address) => (address.octets(), u32::from(net.length())),
            };
            (place::HEAD + bits, Place { generation: 0, class, kind: place::NETWORK, bytes })
        });
        let ttys = self.ttys.iter().map(|name| {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(name.bytes()) {
                *to = from;
            }
            (place::HEAD + 128, Place { generation: 0, class, kind: place::TERMINAL, bytes })
        });
        networks.chain(ttys).collect()
    }
}

impl Reader<'_, '_> {
    /// `restrict`.
    pub(super) fn restrict(
        &mut self,
        item: &Item,
        key: &str,
        inherited: &Option<Restrict>,
    ) -> Option<Restrict> {
        let Some(found) = item else { return inherited.clone() };
        if found.get_ref().as_bool() == Some(false) {
            return None;
        }
        let read =
            found.get_ref().as_table().filter(|table| !table.is_empty()).ok_or_else(|| WRONG.to_owned());
        match read.and_then(restrict_of) {
            Ok(restrict) => return Some(restrict),
            Err(text) => self.problems.error(Some(found.span()), key, text),
        }
        inherited.clone()
    }

    /// `factor_deny`.
    pub(super) fn factor_deny(&mut self, item: &Item, key: &str, inherited: Option<u32>) -> Option<u32> {
        match item {
            Some(value) if value.get_ref().as_bool() == Some(false) => None,
            Some(_) => Some(self.deny(item, key, 1)),
            None => inherited,
        }
    }
}

fn restrict_of(table: &toml::Table) -> Result<Restrict, String> {
    let mut restrict = Restrict::default();
    for (name, value) in table {
        match name.as_str() {
            "networks" => {
                for text in texts(value)? {
                    let net = text.parse().map_err(|error| format!("\"{text}\" {error}"))?;
                    restrict.networks.push(net);
                }
            }
            "ttys" => restrict.ttys = texts(value)?.into_iter().map(tty).collect::<Result<_, _>>()?,
            "hours" => {
                let hours = value.as_str().and_then(Hours::parse);
                restrict.hours =
                    Some(hours.ok_or_else(|| {
                        format!("hours must be as in \"08:00-18:00\", not {}", short(value))
                    })?);
            }
            other => return Err(format!("has no key \"{}\": it {WRONG}", other.escape_debug())),
        }
    }
    Ok(restrict)
}

fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let list = value.as_array().ok_or_else(|| WRONG.to_owned())?;
    if list.len() > MOST {
        return Err(format!("has {} entries in one list: at most {MOST}", list.len()));
    }
    list.iter().map(|text| text.as_str().ok_or_else(|| WRONG.to_owned())).collect()
}

fn tty(name: &str) -> Result<String, String> {
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    let good = !name.is_empty() && name.len() <= 16 && name.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong =
        || format!("\"{}\" is no terminal: write it as in \"tty1\", at most 16 letters", name.escape_debug());
    good.then(|| name.to_owned()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the gate reckons it, of a host whose days begin 77 s after the boot.
    fn contain(hours: Hours, minute: u16) -> bool {
        let midnight = 77_000_000_000;
        let (opens, open_for) = hours.in_boot_time(midnight);
        let rule = ledger::Rule { opens, open_for, ..ledger::Rule::DEFAULT };
        rule.open_at(midnight + u64::from(minute) * MINUTE)
    }

    #[test]
    fn hours_begin_end_and_go_over_midnight() {
        let day = Hours::parse("08:00-18:30").unwrap();
        let at = |hours: Hours, text: &str| contain(hours, minute(text).unwrap());
        assert!(at(day, "08:00") && at(day, "18:29") && !at(day, "18:30") && !at(day, "07:59"));
        let night = Hours::parse("22:00-06:00").unwrap();
        assert!(at(night, "22:00") && at(night, "00:00") && at(night, "05:59") && !at(night, "06:00"));
        assert!(at(Hours::parse("00:00-24:00").unwrap(), "23:59"));
        assert_eq!(night.to_string(), "22:00-06:00");
        for wrong in [
            "",
            "8:00-18:00",
            "08:00",
            "08:00-08:00",
            "08:60-09:00",
            "24:00-01:00",
            "08:00-25:00",
            "+8:00-09:00",
        ] {
            assert_eq!(Hours::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_minute_is_inside_or_outside_of_the_opposite() {
        let (one, other) = (Hours::parse("07:15-19:45").unwrap(), Hours::parse("19:45-07:15").unwrap());
        assert!((0..DAY).all(|minute| contain(one, minute) != contain(other, minute)));
    }

    #[test]
    fn places_are_the_gates_keys() {
        let restrict = Restrict {
            networks: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            ttys: vec!["tty1".to_owned()],
            hours: Hours::parse("08:00-18:00"),
        };
        let places = restrict.places(3);
        let of = |index: usize| places.get(index).unwrap();
        assert_eq!((of(0).0, of(0).1.bytes[10..].to_vec()), (96 + 96 + 24, vec![255, 255, 192, 0, 2, 0]));
        assert_eq!((of(1).0, of(1).1.bytes[..4].to_vec()), (96 + 32, vec![0x20, 1, 0xd, 0xb8]));
        assert_eq!((of(2).0, of(2).1.kind, &of(2).1.bytes[..5]), (224, place::TERMINAL, &b"tty1\0"[..]));
        assert_eq!(restrict.flags(), rule_flag::RESTRICT);
        let always = Restrict { networks: Vec::new(), ttys: Vec::new(), ..restrict };
        assert_eq!(always.flags(), rule_flag::RESTRICT | rule_flag::ANYWHERE);
    }
}
