//! The drop table as nftables: a table of our own, for kernels that take no BPF programs, or where nft is asked for.
//!
//! Invariants: only the table `inet portcullis` is touched, and changed in whole transactions; what was changed is read
//! back; what nft refused has changed nothing, in the kernel or here, and a table that does not show what was submitted is
//! made anew; a lease has its end in the kernel here too (an element's timeout), rounded up to a second. Networks of each length
//! have a set of their own, since elements of one set must not overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_common::filter::{Net, record};
use serde_json::{Value, json};

use super::command::FilterError;
use super::table::{DropTable, Stats};
use crate::clock;
use crate::config::filter::{Filter, Interfaces};

/// Says that the table is there, over restarts of the agent. Beside the store: /run/portcullis goes with the unit.
const MARK: &str = "/var/lib/portcullis/nft";
const TABLE: &str = "portcullis";
const CHAIN: &str = "drops";
const SECOND: u64 = 1_000_000_000;
/// Before connection tracking and everybody's filters.
const PRIORITY: i32 = -310;

/// The table, and what it is to hold.
pub struct Nft {
    held: BTreeMap<Net, record::Lease>,
    /// What the kernel has of the networks that were changed since the last commit.
    before: BTreeMap<Net, Option<record::Lease>>,
    allowed: BTreeSet<Net>,
    sets: BTreeSet<String>,
    /// What makes an empty table, in the place of one that is there.
    fresh: Vec<Value>,
    /// The table is to be made.
    begin: bool,
    allow_changed: bool,
}

impl Nft {
    /// A table that is made, empty, at the first commit, in the place of one that is there.
    ///
    /// # Errors
    /// There is no nft(8).
    pub fn new(config: &Filter) -> Result<Self, FilterError> {
        run(&["--version"], None)?;
        Ok(Self {
            held: BTreeMap::new(),
            before: BTreeMap::new(),
            allowed: BTreeSet::new(),
            sets: BTreeSet::new(),
            fresh: fresh(config),
            begin: true,
            allow_changed: false,
        })
    }

    /// Takes the table away, if one of ours is there.
    ///
    /// # Errors
    /// nft(8) refuses.
    pub fn take_away() -> Result<(), FilterError> {
        if !Path::new(MARK).exists() {
            return Ok(());
        }
        // Somebody may have flushed it: what is not there cannot be deleted.
        submit(vec![add(table()), json!({ "delete": table() })])?;
        std::fs::remove_file(MARK)
            .map_err(|error| FilterError::Kernel(format!("cannot remove {MARK}: {error}")))
    }

    /// The commands of what was changed.
    fn commands(&mut self) -> Vec<Value> {
        let mut commands = Vec::new();
        if self.begin {
            // All that is held, not only what has changed.
            commands.clone_from(&self.fresh);
            self.sets.clear();
            for (net, lease) in &self.held {
                self.before.entry(*net).or_insert(Some(*lease));
            }
        }
        if self.allow_changed || self.begin {
            for (name, four) in [("allow_4", true), ("allow_6", false)] {
                commands
                    .push(json!({ "flush": { "set": { "family": "inet", "table": TABLE, "name": name } } }));
                let nets: Vec<Value> = self
                    .allowed
                    .iter()
                    .filter(|net| matches!(net, Net::V4(..)) == four)
                    .map(prefix)
                    .collect();
                if !nets.is_empty() {
                    commands.push(element("add", name, nets));
                }
            }
        }
        let now = clock::boot().map_or(0, |now| now.0);
        let mut touched: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut live: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (net, before) in &self.before {
            let after = self.held.get(net);
            let sets: BTreeSet<String> =
                before.iter().chain(after).flat_map(|lease| sets_of(*net, lease)).collect();
            for name in sets {
                if self.sets.insert(name.clone()) {
                    commands.extend(make_set(&name, *net));
                }
                touched.entry(name).or_default().push(json!(address(*net)));
            }
            let after = after.filter(|lease| lease.until > now);
            for (name, lease) in
                after.iter().flat_map(|lease| sets_of(*net, lease).into_iter().map(move |name| (name, lease)))
            {
                live.entry(name).or_default().push(value(*net, lease, now));
            }
        }
        // An element that is there keeps its timeout, one that has ended cannot be deleted: all of them are put in,
        // taken out, and put in as they are to be, in one transaction.
        for (name, elements) in touched {
            commands.push(element("add", &name, elements.clone()));
            commands.push(element("delete", &name, elements));
        }
        for (name, elements) in live {
            commands.push(element("add", &name, elements));
        }
        commands
    }

    /// Whether the kernel holds what was changed.
    fn read_back(&self) -> Result<(), FilterError> {
        let listed = run(&["-j", "list", "table", "inet", TABLE], None)?;
        let listed: Value = serde_json::from_slice(&listed)
            .map_err(|error| FilterError::Kernel(format!("nft prints no JSON: {error}")))?;
        let mut found: BTreeSet<(String, String)> = BTreeSet::new();
        for set in listed.pointer("/nftables").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = set.pointer("/set/name").and_then(Value::as_str) else { continue };
            for element in set.pointer("/set/elem").and_then(Value::as_array).into_iter().flatten() {
                let text = element.pointer("/elem/val").unwrap_or(element).as_str().unwrap_or_default();
                found.insert((name.to_owned(), text.to_owned()));
            }
        }
        let now = clock::boot().map_or(0, |now| now.0);
        for (net, before) in &self.before {
            let after = self.held.get(net).filter(|lease| lease.until > now.saturating_add(SECOND));
            let wanted: BTreeSet<String> = after.iter().flat_map(|lease| sets_of(*net, lease)).collect();
            let old = before.iter().flat_map(|lease| sets_of(*net, lease));
            for name in old.chain(wanted.iter().cloned()) {
                let there = found.contains(&(name.clone(), address(*net)));
                if there != wanted.contains(&name) && (there || after.is_some()) {
                    let what = if there { "it is still there" } else { "it is not there" };
                    return Err(FilterError::ReadBack {
                        net: *net,
                        what: format!("{what} (nft set {name})"),
                    });
                }
            }
        }
        Ok(())
    }

    /// Submits what was changed and reads it back.
    fn commit_by(
        &mut self,
        submit: impl FnOnce(Vec<Value>) -> Result<(), FilterError>,
        read_back: impl FnOnce(&Self) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        let sets = self.sets.clone();
        let commands = self.commands();
        if commands.is_empty() {
            return Ok(());
        }
        let submitted = submit(commands);
        if submitted.is_err() && !cfg!(feature = "mutation-keep-refused-sets") {
            self.sets = sets;
        }
        let was_submitted = submitted.is_ok();
        match submitted.and_then(|()| read_back(self)) {
            Ok(()) => {
                self.begin = false;
                self.allow_changed = false;
                self.before.clear();
                Ok(())
            }
            Err(error) => {
                // As it was: the next commit says again what the kernel is to hold.
                for (net, before) in &self.before {
                    match before {
                        Some(lease) => self.held.insert(*net, *lease),
                        None => self.held.remove(net),
                    };
                }
                if was_submitted {
                    // Nobody knows what is there now.
                    self.begin = true;
                }
                Err(error)
            }
        }
    }

    fn note(&mut self, net: Net) {
        let before = self.held.get(&net).copied();
        self.before.entry(net).or_insert(before);
    }
}

impl DropTable for Nft {
    fn insert(&mut self, net: Net, lease: &record::Lease) -> Result<(), FilterError> {
        self.note(net);
        self.held.insert(net, *lease);
        Ok(())
    }

    fn remove(&mut self, net: Net) -> Result<bool, FilterError> {
        self.note(net);
        Ok(self.held.remove(&net).is_some())
    }

    fn get(&self, net: Net) -> Result<Option<record::Lease>, FilterError> {
        Ok(self.held.get(&net).copied())
    }

    fn each(&self, see: &mut dyn FnMut(Net, record::Lease)) -> Result<(), FilterError> {
        self.held.iter().for_each(|(net, lease)| see(*net, *lease));
        Ok(())
    }

    fn allow(&mut self, nets: &[Net]) -> Result<(), FilterError> {
        self.allowed = nets.iter().copied().collect();
        self.allow_changed = true;
        Ok(())
    }

    fn allowed(&self) -> Result<BTreeSet<Net>, FilterError> {
        Ok(self.allowed.clone())
    }

    fn pace(&mut self, _samples: u32) -> Result<(), FilterError> {
        Ok(())
    }

    fn stats(&self) -> Result<Stats, FilterError> {
        Ok(Stats::default())
    }

    fn commit(&mut self) -> Result<(), FilterError> {
        // The mark first: a table that nobody knows of would never be taken away.
        self.commit_by(|commands| mark().and_then(|()| submit(commands)), Self::read_back)
    }
}

/// Notes that there is a table.
fn mark() -> Result<(), FilterError> {
    let folder = Path::new(MARK).parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| std::fs::write(MARK, ""))
        .map_err(|error| FilterError::Kernel(format!("cannot write {MARK}: {error}")))
}

fn table() -> Value {
    json!({ "table": { "family": "inet", "name": TABLE } })
}

fn add(what: Value) -> Value {
    json!({ "add": what })
}

fn rule(mut expression: Vec<Value>, verdict: &str) -> Value {
    expression.push(json!({ verdict: null }));
    add(json!({ "rule": { "family": "inet", "table": TABLE, "chain": CHAIN, "expr": expression } }))
}

fn matches(left: Value, operator: &str, right: Value) -> Value {
    json!({ "match": { "op": operator, "left": left, "right": right } })
}

fn source(four: bool) -> Value {
    json!({ "payload": { "protocol": if four { "ip" } else { "ip6" }, "field": "saddr" } })
}

/// A fresh table with the chain and the allow-list.
fn fresh(config: &Filter) -> Vec<Value> {
    let chain = json!({ "chain": {
        "family": "inet", "table": TABLE, "name": CHAIN, "type": "filter", "hook": "prerouting",
        "prio": PRIORITY, "policy": "accept"
    } });
    let mut commands = vec![add(table()), json!({ "delete": table() }), add(table()), add(chain)];
    let interface = || json!({ "meta": { "key": "iifname" } });
    commands.push(rule(vec![matches(interface(), "==", json!("lo"))], "accept"));
    if let Interfaces::Named(names) = &config.interfaces {
        commands.push(rule(vec![matches(interface(), "!=", json!({ "set": names }))], "accept"));
    }
    for (name, kind, four) in [("allow_4", "ipv4_addr", true), ("allow_6", "ipv6_addr", false)] {
        commands.push(add(json!({ "set": {
            "family": "inet", "table": TABLE, "name": name, "type": kind, "flags": ["interval"], "auto-merge": true
        } })));
        commands.push(rule(vec![matches(source(four), "==", json!(format!("@{name}")))], "accept"));
    }
    commands
}

/// The sets that hold a lease: `v4_24_0`, or one for each of its ports.
fn sets_of(net: Net, lease: &record::Lease) -> Vec<String> {
    let family = if matches!(net, Net::V4(..)) { 4 } else { 6 };
    let mut ports: Vec<u16> = lease.ports.into_iter().filter(|port| *port != 0).collect();
    if ports.is_empty() {
        ports.push(0);
    }
    ports.into_iter().map(|port| format!("v{family}_{}_{port}", net.length())).collect()
}

/// A set and its rule.
fn make_set(name: &str, net: Net) -> [Value; 2] {
    let four = matches!(net, Net::V4(..));
    let kind = if four { "ipv4_addr" } else { "ipv6_addr" };
    let set = add(json!({ "set": {
        "family": "inet", "table": TABLE, "name": name, "type": kind, "flags": ["timeout"]
    } }));
    let mut expression = Vec::new();
    let port: u16 = name.rsplit('_').next().and_then(|port| port.parse().ok()).unwrap_or(0);
    if port != 0 {
        let with_ports = json!({ "set": ["tcp", "udp", "dccp", "sctp", "udplite"] });
        expression.push(matches(json!({ "meta": { "key": "l4proto" } }), "==", with_ports));
        let field = json!({ "payload": { "protocol": "th", "field": "dport" } });
        expression.push(matches(field, "==", json!(port)));
    }
    let whole = if four { 32 } else { 128 };
    let left = if net.length() == whole { source(four) } else { json!({ "&": [source(four), mask(net)] }) };
    expression.push(matches(left, "==", json!(format!("@{name}"))));
    expression.push(json!({ "counter": null }));
    [set, rule(expression, "drop")]
}

fn mask(net: Net) -> String {
    match net {
        Net::V4(_, length) => {
            Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).to_string()
        }
        Net::V6(_, length) => {
            Ipv6Addr::from(u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).to_string()
        }
    }
}

fn address(net: Net) -> String {
    net.address().to_string()
}

fn prefix(net: &Net) -> Value {
    json!({ "prefix": { "addr": address(*net), "len": net.length() } })
}

fn value(net: Net, lease: &record::Lease, now: u64) -> Value {
    if lease.until == u64::MAX {
        return json!(address(net));
    }
    let seconds = lease.until.saturating_sub(now).div_ceil(SECOND);
    json!({ "elem": { "val": address(net), "timeout": seconds } })
}

fn element(verb: &str, set: &str, elements: Vec<Value>) -> Value {
    json!({ verb: { "element": { "family": "inet", "table": TABLE, "name": set, "elem": elements } } })
}

/// One transaction.
fn submit(commands: Vec<Value>) -> Result<(), FilterError> {
    let text = json!({ "nftables": commands }).to_string();
    run(&["-j", "-f", "-"], Some(&text)).map(drop)
}

/// Runs nft(8), which is never given anything but these words and JSON.
fn run(arguments: &[&str], input: Option<&str>) -> Result<Vec<u8>, FilterError> {
    let failed = |error: std::io::Error| {
        FilterError::Kernel(format!("cannot run nft ({error}): install nftables, or set backend = \"bpf\""))
    };
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // It reads all before it prints.
        pipe.write_all(text.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said: String = String::from_utf8_lossy(&output.stderr).chars().take(300).collect();
    Err(FilterError::Kernel(format!("nft refuses: {}", crate::text::escape(said.trim().as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_masks_are_by_length_and_port() {
        let net = |text: &str| text.parse::<Net>().unwrap();
        let lease = |ports| record::Lease { ports, ..record::Lease::default() };
        assert_eq!(sets_of(net("192.0.2.0/24"), &lease([0; 4])), ["v4_24_0"]);
        assert_eq!(sets_of(net("2001:db8::/48"), &lease([22, 443, 0, 0])), ["v6_48_22", "v6_48_443"]);
        assert_eq!(mask(net("192.0.2.0/24")), "255.255.255.0");
        assert_eq!(mask(net("0.0.0.0/0")), "0.0.0.0");
        assert_eq!(mask(net("2001:db8::/33")), "ffff:ffff:8000::");
    }

    fn nft(begin: bool) -> Nft {
        Nft {
            held: BTreeMap::new(),
            before: BTreeMap::new(),
            allowed: BTreeSet::new(),
            sets: BTreeSet::new(),
            fresh: vec![json!("fresh")],
            begin,
            allow_changed: false,
        }
    }

    fn refused() -> Result<(), FilterError> {
        Err(FilterError::Kernel("no".to_owned()))
    }

    const FOR_EVER: record::Lease =
        record::Lease { until: u64::MAX, packets: 0, ports: [0; 4], rule: 1, reason: 0, length: 0 };

    /// What the next commit submits, as text.
    fn next(nft: &mut Nft) -> String {
        let mut text = String::new();
        let submit = |commands: Vec<Value>| {
            text = json!(commands).to_string();
            Ok(())
        };
        nft.commit_by(submit, |_| Ok(())).unwrap();
        text
    }

    const SET: &str = r#"{"add":{"set":{"family":"inet","flags":["timeout"],"name":"v4_24_0""#;

    #[test]
    fn a_refused_transaction_blocks_no_length() {
        let mut nft = nft(false);
        let net: Net = "192.0.2.0/24".parse().unwrap();
        nft.insert(net, &FOR_EVER).unwrap();
        nft.commit_by(|_| refused(), |_| Ok(())).unwrap_err();
        assert_eq!(nft.get(net).unwrap(), None);
        nft.insert("198.51.100.0/24".parse().unwrap(), &FOR_EVER).unwrap();
        let text = next(&mut nft);
        assert!(text.contains(SET), "its set was never made: {text}");
        assert!(text.contains("198.51.100.0") && !text.contains("192.0.2.0"), "{text}");
        nft.insert(net, &FOR_EVER).unwrap();
        let text = next(&mut nft);
        assert!(!text.contains(SET) && text.contains("192.0.2.0"), "{text}");
    }

    #[test]
    fn a_table_that_does_not_show_what_was_submitted_is_made_anew_with_all_of_it() {
        let mut nft = nft(true);
        let kept: Net = "192.0.2.0/24".parse().unwrap();
        nft.insert(kept, &FOR_EVER).unwrap();
        assert!(next(&mut nft).contains("fresh"));
        nft.insert("198.51.100.0/24".parse().unwrap(), &FOR_EVER).unwrap();
        nft.commit_by(|_| Ok(()), |_| refused()).unwrap_err();
        let text = next(&mut nft);
        assert!(text.contains("fresh") && text.contains(SET) && text.contains("192.0.2.0"), "{text}");
        assert!(!text.contains("198.51.100.0"), "it was refused: {text}");
        assert_eq!(nft.commands(), Vec::<Value>::new());
    }
}
