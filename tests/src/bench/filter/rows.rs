//! What is compared. Each row has an interface where what is not listed goes on, and one where everything is dropped that
//! the list let pass: there the verdict is all that differs.

use std::fs;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use serde_json::Value;

use crate::system::{portcullis, wait_for};
use crate::traffic::port::{self, FLOODER, Port};
use crate::traffic::programs::{Programs, by_id, judge};
use crate::traffic::{must, refused};
use crate::{Error, Result, bpf};

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// No rule at all: UDP to a port where nobody listens.
    None,
    /// XDP_DROP and nothing else.
    Bare,
    /// The filter in the driver.
    Filter,
    /// The kernel's own hash in XDP.
    Hash,
    /// TC_ACT_SHOT and nothing else, on tcx.
    BareTcx,
    /// The filter on tcx.
    FilterTcx,
    /// The filter's classifier on clsact.
    FilterClsact,
    /// A set of nftables in the chain netdev ingress.
    NftIngress,
    /// A set of nftables in the chain inet input.
    NftInput,
    /// iptables, one rule an address.
    Iptables,
}

impl Row {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Bare,
        Self::Filter,
        Self::Hash,
        Self::BareTcx,
        Self::FilterTcx,
        Self::FilterClsact,
        Self::NftIngress,
        Self::NftInput,
        Self::Iptables,
        Self::None,
    ];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "no rule",
            Self::Bare => "bare XDP_DROP",
            Self::Filter => "Portcullis, XDP",
            Self::Hash => "kernel hash, XDP",
            Self::BareTcx => "bare drop, tcx",
            Self::FilterTcx => "Portcullis, tcx",
            Self::FilterClsact => "Portcullis, clsact",
            Self::NftIngress => "nftables ingress set",
            Self::NftInput => "nftables input set",
            Self::Iptables => "iptables, one rule each",
        }
    }

    /// Letter in the names of its interfaces.
    const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Bare => 'b',
            Self::Filter => 'x',
            Self::Hash => 'h',
            Self::BareTcx => 'd',
            Self::FilterTcx => 't',
            Self::FilterClsact => 'c',
            Self::NftIngress => 'g',
            Self::NftInput => 'i',
            Self::Iptables => 'r',
        }
    }

    /// The longest list it is measured with; the rest is refused by time: 10,000 rules cost 18 µs a packet already, and
    /// every change of them takes the whole table to the kernel.
    #[must_use]
    pub const fn most(self) -> u32 {
        match self {
            Self::Iptables => 10_000,
            _ => u32::MAX,
        }
    }

    /// Whether it has a list at all.
    #[must_use]
    pub const fn lists(self) -> bool {
        !matches!(self, Self::None | Self::Bare | Self::BareTcx)
    }
}

/// A row, ready.
#[derive(Debug)]
pub struct Ready {
    /// Which.
    pub row: Row,
    /// Where what is not listed goes on.
    pub open: Port,
    /// Where everything ends.
    pub closed: Port,
    /// Its network, where it is not the agent's.
    pub network: Option<&'static str>,
    _programs: Option<Programs>,
}

/// The rows and what they share.
#[derive(Debug)]
pub struct Rows {
    /// Ready ones.
    pub ready: Vec<Ready>,
    /// The benchmark's programs: flood, tests, the kernel's hash.
    pub programs: Programs,
    /// The installed filter's XDP program.
    pub filter: ProgramInfo,
    /// For IPv6 instead of IPv4.
    pub six: bool,
}

/// Makes all rows. `token` begins the interfaces' names, as the agent's configuration has them; `object` is the benchmark's.
///
/// # Errors
/// What ip(8), tc(8), nft(8), iptables(8), the agent or the kernel say.
pub fn make(token: &str, object: &std::path::Path, six: bool) -> Result<Rows> {
    fs::create_dir_all("/run/netns").map_err(|source| Error::File { path: "/run/netns".into(), source })?;
    port::open()?;
    port::network(FLOODER)?;
    let mut programs = Programs::load(object)?;
    let bare = programs.fd("drop_all")?;
    programs.appoint(judge::DROP, &bare)?;
    let hash = programs.fd("hash")?;
    programs.appoint(judge::HASH, &hash)?;
    let mut rows = Vec::new();
    for row in Row::ALL {
        let network = network_of(row);
        if let Some(network) = network {
            port::network(network)?;
        }
        let name = |end| format!("{token}{}{end}", row.letter());
        let open = Port::new(&name('o'), network)?;
        let closed = Port::new(&name('c'), network)?;
        rows.push(Ready { row, open, closed, network, _programs: None });
    }
    let filter = wait_for_filter(&rows)?;
    let fd = filter.fd().map_err(refused("the filter"))?;
    programs.appoint(judge::FILTER, &fd)?;
    for ready in &mut rows {
        ready.attach(&mut programs, six)?;
    }
    Ok(Rows { ready: rows, programs, filter, six })
}

const fn network_of(row: Row) -> Option<&'static str> {
    match row {
        // The agent's own.
        Row::Filter | Row::FilterTcx => None,
        Row::None => Some("none"),
        Row::Bare => Some("bare"),
        Row::Hash => Some("hash"),
        Row::BareTcx => Some("baretcx"),
        Row::FilterClsact => Some("clsact"),
        Row::NftIngress => Some("ingress"),
        Row::NftInput => Some("input"),
        Row::Iptables => Some("iptables"),
    }
}

/// Waits until the agent has put the filter where the configuration says; the XDP program that runs there.
fn wait_for_filter(rows: &[Ready]) -> Result<ProgramInfo> {
    let of = |row| rows.iter().find(|ready| ready.row == row).map(|ready| ready.open.name.clone());
    let wanted = [(Row::Filter, "xdp"), (Row::FilterTcx, "tcx")];
    wait_for("the filter on its interfaces", 20, || {
        let places = portcullis(&["status"])?;
        let places = places.pointer("/filter/interfaces").and_then(Value::as_array).cloned();
        let places = places.unwrap_or_default();
        Ok(wanted.iter().all(|(row, hook)| {
            let is = |place: &Value, key: &str, value: &str| place.get(key).is_some_and(|it| it == value);
            let name = of(*row).unwrap_or_default();
            places.iter().any(|place| is(place, "name", &name) && is(place, "hook", hook))
        }))
    })?;
    let name = of(Row::Filter).unwrap_or_default();
    let text = must("ip", &["-json", "link", "show", "dev", &name])?;
    let link: Value = serde_json::from_str(&text).map_err(refused("ip -json"))?;
    let id = link.pointer("/0/xdp/prog/id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    by_id(id.ok_or_else(|| Error::Answer { program: "ip -json link show".into(), output: text })?)
}

impl Ready {
    /// Puts in place what stays the same for all sizes. The filter's own are there already.
    fn attach(&mut self, shared: &mut Programs, six: bool) -> Result<()> {
        let (open, closed) = (self.open.clone(), self.closed.clone());
        let mut xdp = |on_open: Option<&str>, on_closed: &str| {
            open.inside(|| match on_open {
                Some(name) => shared.attach(name, open.index),
                None => Ok(()),
            })?;
            closed.inside(|| shared.attach(on_closed, closed.index))
        };
        match self.row {
            Row::None => Ok(()),
            Row::Bare => xdp(Some("drop_all"), "then_drop_drop"),
            Row::Filter => xdp(None, "then_drop_filter"),
            Row::Hash => xdp(Some("hash"), "then_drop_hash"),
            Row::BareTcx => {
                open.inside(|| shared.attach_tc_drop(&open.name))?;
                closed.inside(|| shared.attach_tc_drop(&closed.name))
            }
            Row::FilterTcx => closed.inside(|| shared.attach_tc_drop(&closed.name)),
            Row::FilterClsact => self.clsact(shared),
            Row::NftIngress | Row::NftInput => self.nft(&nft_table(self, six)),
            Row::Iptables => {
                let program = if six { "ip6tables" } else { "iptables" };
                self.inside(program, &["-A", "INPUT", "-i", &self.closed.name, "-j", "DROP"])
            }
        }
    }

    /// The classifier that the agent put on tcx, by tc(8).
    fn clsact(&self, shared: &Programs) -> Result<()> {
        const PIN: &str = "/run/bpf/bench-filter";
        const PIN_DROP: &str = "/run/bpf/bench-drop";
        // In another network tc(8) has a /sys of its own, without the pins.
        must("mkdir", &["-p", "/run/bpf"])?;
        must("mount", &["--bind", "/sys/fs/bpf", "/run/bpf"])?;
        let program = classifier(&self.open.name.replacen(
            &format!("{}o", Row::FilterClsact.letter()),
            &format!("{}o", Row::FilterTcx.letter()),
            1,
        ))?;
        bpf::pin(&program.fd().map_err(refused("the classifier"))?, PIN)?;
        bpf::pin(&shared.fd("tc_drop")?, PIN_DROP)?;
        let on = |port: &Port, pref: &str, pin: &str| {
            let words = ["filter", "add", "dev", &port.name, "ingress", "pref", pref, "bpf", "direct-action"];
            must("tc", &[&["-n", "clsact"], words.as_slice(), &["object-pinned", pin]].concat())
        };
        for port in [&self.open, &self.closed] {
            must("tc", &["-n", "clsact", "qdisc", "add", "dev", &port.name, "clsact"])?;
            on(port, "1", PIN)?;
        }
        on(&self.closed, "2", PIN_DROP).map(drop)
    }

    /// Runs a program in the row's network.
    ///
    /// # Errors
    /// Its words.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let enter = self.network.map_or_else(Vec::new, |network| vec!["netns", "exec", network, program]);
        match self.network {
            Some(_) => must("ip", &[enter.as_slice(), arguments].concat()).map(drop),
            None => must(program, arguments).map(drop),
        }
    }

    /// Hands a script to nft(8).
    ///
    /// # Errors
    /// Its words.
    pub fn nft(&self, script: &str) -> Result<()> {
        let file = std::path::Path::new("/run/bench.nft");
        crate::system::write(file, script)?;
        self.inside("nft", &["-f", "/run/bench.nft"])
    }
}

/// The classifier on an interface of the agent's network.
fn classifier(interface: &str) -> Result<ProgramInfo> {
    let found = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let (_, programs) = found.map_err(refused("the filter on tcx"))?;
    programs
        .into_iter()
        .next()
        .ok_or_else(|| Error::Answer { program: interface.into(), output: "no classifier on tcx".into() })
}

fn nft_table(ready: &Ready, six: bool) -> String {
    let (kind, matched) = if six {
        ("ipv6_addr", "ip6 saddr & ffff:ffff:ffff:ffff:: @bad drop")
    } else {
        ("ipv4_addr", "ip saddr @bad drop")
    };
    let set = format!("set bad {{ type {kind}; size 1048576; }}");
    let (open, closed) = (&ready.open.name, &ready.closed.name);
    if ready.row == Row::NftInput {
        let chain = "type filter hook input priority filter;";
        return format!(
            "table inet bench {{ {set}\n chain input {{ {chain}\n {matched}\n iifname \"{closed}\" drop\n }}\n}}\n"
        );
    }
    let chain = |device: &str| format!("type filter hook ingress device \"{device}\" priority 0;");
    format!(
        "table netdev bench {{ {set}\n chain open {{ {}\n {matched}\n }}\n chain closed {{ {}\n {matched}\n drop\n }}\n}}\n",
        chain(open),
        chain(closed)
    )
}
