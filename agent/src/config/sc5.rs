//! The table `[sc5]`: what is done about sources of failed logons.
//!
//! Invariant: nothing is done unless the file says so.

use portcullis_common::filter::Net;
use portcullis_common::sources::{SourceRule, TRIES};
use portcullis_policy::sources::{self, Answer, Rules};
use serde::{Serialize, Serializer};
use toml::Value;

use super::Span;
use super::raw::{self, Item};
use super::values::{Reader, place, short};
use crate::filter::{PORTS, listening};

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;
/// Longest time of all keys here, seconds.
const LONGEST: u64 = 3_650 * DAY;
/// Networks that may be exempt.
const EXEMPT: usize = 1_024;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Told, nothing else.
    Monitor,
    /// Its packets are dropped.
    Drop,
    /// A local user is refused at other accounts than his own.
    Refuse,
}

/// What is dropped of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Everything it sends.
    All,
    /// What goes to these.
    Listed(Vec<u16>),
    /// What goes to the service that the failures came by.
    Service,
}

/// `[sc5]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sc5 {
    /// About one that guesses at few accounts.
    pub guess: Word,
    /// About one that tries many accounts.
    pub spray: Word,
    /// About a local user.
    pub local: Word,
    /// Failures that trip a source.
    pub deny: u32,
    /// Different accounts that trip it.
    pub accounts: u32,
    /// Within this time.
    pub find_time: Span,
    /// Length of the first answer.
    pub drop_time: Span,
    /// Length of the longest.
    pub max_drop_time: Span,
    /// Quiet after which a repeat is forgotten.
    pub decay: Span,
    /// Dropped members that drop their network; 0: none do.
    #[serde(serialize_with = "number_or_false")]
    pub escalate: u32,
    /// What of it.
    #[serde(serialize_with = "ports")]
    pub ports: Ports,
    /// Never answered.
    #[serde(serialize_with = "nets")]
    pub exempt: Vec<Net>,
    /// Whether networks of administrators who are logged in are exempt.
    pub exempt_administrators: bool,
}

impl Default for Sc5 {
    fn default() -> Self {
        Self {
            guess: Word::Monitor,
            spray: Word::Monitor,
            local: Word::Monitor,
            deny: 5,
            accounts: 4,
            find_time: Span::seconds(10 * MINUTE),
            drop_time: Span::seconds(10 * MINUTE),
            max_drop_time: Span::seconds(DAY),
            decay: Span::seconds(DAY),
            escalate: 8,
            ports: Ports::All,
            exempt: Vec::new(),
            exempt_administrators: true,
        }
    }
}

impl Sc5 {
    /// What the gate counts by.
    #[must_use]
    pub fn rule(&self) -> SourceRule {
        SourceRule { find_time: self.find_time.nanoseconds(), deny: self.deny, accounts: self.accounts }
    }

    /// What the policy decides by.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let answer = |word| if word == Word::Monitor { Answer::Monitor } else { Answer::Act };
        Rules {
            guess: answer(self.guess),
            spray: answer(self.spray),
            local: answer(self.local),
            accounts: self.accounts,
            drop_time: self.drop_time.nanoseconds(),
            max_drop_time: self.max_drop_time.nanoseconds(),
            decay: self.decay.nanoseconds(),
            escalate: self.escalate,
            exempt: self.exempt.iter().map(|net| policy_net(*net)).collect(),
        }
    }
}

/// A network in the policy's words.
#[must_use]
pub fn policy_net(net: Net) -> sources::Net {
    match net {
        Net::V4(address, length) => sources::Net::V4(address, length),
        Net::V6(address, length) => sources::Net::V6(address, length),
    }
}

/// A network in the filter's words.
#[must_use]
pub fn filter_net(net: sources::Net) -> Net {
    match net {
        sources::Net::V4(address, length) => Net::V4(address, length),
        sources::Net::V6(address, length) => Net::V6(address, length),
    }
}

fn number_or_false<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    if *number == 0 { serializer.serialize_bool(false) } else { serializer.serialize_u32(*number) }
}

fn ports<S: Serializer>(ports: &Ports, serializer: S) -> Result<S::Ok, S::Error> {
    match ports {
        Ports::All => serializer.serialize_str("all"),
        Ports::Service => serializer.serialize_str("service"),
        Ports::Listed(ports) => ports.serialize(serializer),
    }
}

fn nets<S: Serializer>(nets: &[Net], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nets.iter().map(ToString::to_string))
}

impl Reader<'_, '_> {
    /// The table.
    pub(super) fn sc5(&mut self, raw: &raw::Sc5) -> Sc5 {
        let default = Sc5::default();
        let remote = [("monitor", Word::Monitor), ("drop", Word::Drop)];
        let local = [("monitor", Word::Monitor), ("refuse", Word::Refuse)];
        let most = TRIES as i64;
        let drop_time = self.time(&raw.drop_time, "sc5.drop_time", 10 * MINUTE, LONGEST);
        let max_drop_time = self.time(&raw.max_drop_time, "sc5.max_drop_time", DAY, LONGEST);
        if max_drop_time < drop_time {
            let at = place(&raw.max_drop_time).or_else(|| place(&raw.drop_time));
            let text = format!("{max_drop_time} is less than drop_time ({drop_time})");
            self.problems.error(at, "sc5.max_drop_time", text);
        }
        Sc5 {
            guess: self.word(&raw.guess, "sc5.guess", default.guess, remote),
            spray: self.word(&raw.spray, "sc5.spray", default.spray, remote),
            local: self.word(&raw.local, "sc5.local", default.local, local),
            deny: self.whole(&raw.deny, "sc5.deny", default.deny, 1, most),
            accounts: self.whole(&raw.accounts, "sc5.accounts", default.accounts, 2, most),
            find_time: self.time(&raw.find_time, "sc5.find_time", 10 * MINUTE, LONGEST),
            drop_time,
            max_drop_time,
            decay: self.time(&raw.decay, "sc5.decay", DAY, LONGEST),
            escalate: match &raw.escalate {
                Some(item) if item.get_ref().as_bool() == Some(false) => 0,
                item => self.whole(item, "sc5.escalate", default.escalate, 2, 256),
            },
            ports: self.ports(&raw.ports),
            exempt: self.exempt(&raw.exempt),
            exempt_administrators: self.flag(
                &raw.exempt_administrators,
                "sc5.exempt_administrators",
                default.exempt_administrators,
            ),
        }
    }

    /// A whole number within bounds.
    fn whole(&mut self, item: &Item, key: &str, default: u32, least: i64, most: i64) -> u32 {
        let Some(item) = item else { return default };
        match item.get_ref().as_integer() {
            Some(number) if (least..=most).contains(&number) => u32::try_from(number).unwrap_or(default),
            _ => {
                let text =
                    format!("must be a whole number from {least} to {most}, not {}", short(item.get_ref()));
                self.problems.error(Some(item.span()), key, text);
                default
            }
        }
    }

    fn ports(&mut self, item: &Item) -> Ports {
        let Some(item) = item else { return Ports::All };
        match item.get_ref().as_str() {
            Some("all") => return Ports::All,
            Some("service") => return Ports::Service,
            _ => {}
        }
        let port = |value: &Value| match value.as_str() {
            Some(name) => listening::named(name),
            None => value.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        };
        let list = item.get_ref().as_array().map(|list| list.iter().map(port).collect::<Option<Vec<_>>>());
        match list {
            Some(Some(list)) if (1..=PORTS).contains(&list.len()) => Ports::Listed(list),
            _ => {
                let text = format!(
                    "must be \"all\", \"service\" or a list of 1 to {PORTS} ports, as in [22] or [\"ssh\"] with names of \
                     /etc/services"
                );
                self.problems.error(Some(item.span()), "sc5.ports", text);
                Ports::All
            }
        }
    }

    fn exempt(&mut self, item: &Item) -> Vec<Net> {
        let key = "sc5.exempt";
        let Some(item) = item else { return Vec::new() };
        let wrong = "must be a list of networks, as in [\"192.0.2.0/24\"]";
        let Some(list) = item.get_ref().as_array().filter(|list| list.len() <= EXEMPT) else {
            let text = format!("{wrong}, at most {EXEMPT}");
            self.problems.error(Some(item.span()), key, text);
            return Vec::new();
        };
        let mut nets = Vec::new();
        for value in list {
            match value.as_str().map(str::parse::<Net>) {
                Some(Ok(net)) => nets.push(net),
                Some(Err(error)) => {
                    let text = format!("{} {error}", short(value));
                    self.problems.error(Some(item.span()), key, text);
                }
                None => {
                    let text = format!("{wrong}; {} is none", short(value));
                    self.problems.error(Some(item.span()), key, text);
                }
            }
        }
        nets
    }
}
