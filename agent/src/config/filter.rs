//! The table `[filter]`.
//!
//! Invariants: off unless the file says otherwise; a network of the allow-list has no bits behind its length.

use portcullis_common::filter::{MAX_ALLOW, Net};
use serde::{Serialize, Serializer};
use toml::Value;

use super::raw::{self, Item};
use super::values::{Reader, place, short};

/// Longest name of an interface.
const NAME: usize = 15;

/// Which interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// All but the loopback, also those that come later.
    All,
    /// These, whenever they are there.
    Named(Vec<String>),
}

/// Where XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Driver,
    /// Before the stack, without the driver's help.
    Generic,
}

/// What drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// eBPF programs; nftables where the kernel takes none.
    Bpf,
    /// nftables, a table of our own.
    Nft,
}

/// The filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// Whether anything is dropped at all.
    pub enabled: bool,
    /// Where.
    #[serde(serialize_with = "interfaces")]
    pub interfaces: Interfaces,
    /// Interfaces that get the XDP program.
    pub xdp: Vec<String>,
    /// How it is attached there.
    pub xdp_mode: XdpMode,
    /// Networks that are never dropped.
    #[serde(serialize_with = "nets")]
    pub allow: Vec<Net>,
    /// What drops.
    pub backend: Backend,
    /// Samples of dropped packets a second and processor.
    pub samples: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            enabled: false,
            interfaces: Interfaces::All,
            xdp: Vec::new(),
            xdp_mode: XdpMode::Driver,
            allow: Vec::new(),
            backend: Backend::Bpf,
            samples: 10,
        }
    }
}

impl Filter {
    /// Whether an interface of that name is to be filtered.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.enabled
            && match &self.interfaces {
                Interfaces::All => true,
                Interfaces::Named(names) => names.iter().any(|other| other == name),
            }
    }

    /// The names it gives.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let named = match &self.interfaces {
            Interfaces::All => &[],
            Interfaces::Named(names) => names.as_slice(),
        };
        named.iter().chain(&self.xdp).map(String::as_str)
    }
}

fn interfaces<S: Serializer>(interfaces: &Interfaces, serializer: S) -> Result<S::Ok, S::Error> {
    match interfaces {
        Interfaces::All => serializer.serialize_str("all"),
        Interfaces::Named(names) => names.serialize(serializer),
    }
}

fn nets<S: Serializer>(nets: &[Net], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nets.iter().map(ToString::to_string))
}

impl Reader<'_, '_> {
    /// The table.
    pub(super) fn filter(&mut self, raw: &raw::Filter) -> Filter {
        let default = Filter::default();
        let interfaces = match raw.interfaces.as_ref().map(|item| item.get_ref().as_str()) {
            None | Some(Some("all")) => Interfaces::All,
            Some(_) => Interfaces::Named(self.interface_names(&raw.interfaces, "filter.interfaces")),
        };
        let xdp = self.interface_names(&raw.xdp, "filter.xdp");
        if let Interfaces::Named(names) = &interfaces
            && let Some(other) = xdp.iter().find(|name| !names.contains(name))
        {
            let text = format!("names {other}, which is not in filter.interfaces: add it there");
            self.problems.error(place(&raw.xdp), "filter.xdp", text);
        }
        Filter {
            enabled: self.flag(&raw.enabled, "filter.enabled", default.enabled),
            interfaces,
            xdp,
            xdp_mode: self.word(
                &raw.xdp_mode,
                "filter.xdp_mode",
                default.xdp_mode,
                [("driver", XdpMode::Driver), ("generic", XdpMode::Generic)],
            ),
            allow: self.allow(&raw.allow),
            backend: self.word(
                &raw.backend,
                "filter.backend",
                default.backend,
                [("bpf", Backend::Bpf), ("nft", Backend::Nft)],
            ),
            samples: self.samples(&raw.samples, default.samples),
        }
    }

    fn samples(&mut self, item: &Item, default: u32) -> u32 {
        let Some(item) = item else { return default };
        match item.get_ref().as_integer().and_then(|number| u32::try_from(number).ok()) {
            Some(number @ 0..=1_000) => number,
            _ => {
                let text = format!("must be a whole number from 0 to 1000, not {}", short(item.get_ref()));
                self.problems.error(Some(item.span()), "filter.samples", text);
                default
            }
        }
    }

    fn allow(&mut self, item: &Item) -> Vec<Net> {
        let key = "filter.allow";
        let mut nets = Vec::new();
        for text in self.texts(item, key, "must be a list of networks, as in [\"192.0.2.0/24\"]") {
            match text.parse::<Net>() {
                Ok(net) if net.length() == 0 => {
                    let text =
                        format!("{net} is everybody: with it nothing is ever dropped; write enabled = false");
                    self.problems.error(place(item), key, text);
                }
                Ok(net) => nets.push(net),
                Err(error) => {
                    let text = format!("\"{}\" {error}", crate::text::escape(text.as_bytes()));
                    self.problems.error(place(item), key, text);
                }
            }
        }
        if nets.len() > MAX_ALLOW as usize / 2 {
            let text = format!("names {} networks, at most {} fit", nets.len(), MAX_ALLOW / 2);
            self.problems.error(place(item), key, text);
        }
        nets
    }

    fn interface_names(&mut self, item: &Item, key: &str) -> Vec<String> {
        let wrong = "must be a list of interfaces, as in [\"eth0\"]";
        let names = self.texts(item, key, wrong);
        for name in &names {
            let odd = |letter: char| {
                letter.is_control() || letter.is_whitespace() || letter == '/' || letter == ':'
            };
            let text = if name.is_empty() || name.len() > NAME || name.contains(odd) {
                format!("{wrong}; \"{}\" can be none", crate::text::escape(name.as_bytes()))
            } else if name == "lo" {
                "names lo: what comes from this host itself is never filtered".to_owned()
            } else {
                continue;
            };
            self.problems.error(place(item), key, text);
        }
        names
    }

    fn texts(&mut self, item: &Item, key: &str, wrong: &str) -> Vec<String> {
        let Some(item) = item else { return Vec::new() };
        let texts = item.get_ref().as_array().and_then(|list| {
            list.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.unwrap_or_else(|| {
            let found: &Value = item.get_ref();
            self.problems.error(Some(item.span()), key, format!("{wrong}, not {}", short(found)));
            Vec::new()
        })
    }
}
