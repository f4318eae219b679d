//! One victim behind each defence: a network with a veth pair, the same address in each, and a service.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use super::server::Server;
use crate::system::{portcullis, wait_for};
use crate::traffic::must;
use crate::traffic::port::{self, FLOODER, Port};
use crate::traffic::programs::Programs;
use crate::traffic::template::VICTIM_4;
use crate::{Error, Result};

/// Port of the service.
pub const SERVICE: u16 = 8080;
/// Port of sshd: the usual one is that of the throw-away system's own.
pub const SSHD: u16 = 2222;
/// Addresses from which connection floods come, behind each port.
pub const ATTACKERS: u8 = 200;

/// What stands between flood and victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defence {
    /// Nothing.
    None,
    /// Portcullis, in the driver.
    Xdp,
    /// Portcullis, on tcx.
    Tcx,
    /// nftables, netdev ingress.
    Ingress,
    /// nftables, inet input.
    Input,
}

impl Defence {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::None, Self::Xdp, Self::Tcx, Self::Ingress, Self::Input];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Xdp => "Portcullis, XDP",
            Self::Tcx => "Portcullis, tcx",
            Self::Ingress => "nftables ingress",
            Self::Input => "nftables input",
        }
    }

    /// Whether it is ours.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Xdp | Self::Tcx)
    }

    const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Xdp => 'x',
            Self::Tcx => 't',
            Self::Ingress => 'g',
            Self::Input => 'i',
        }
    }

    /// Its network; none: the throw-away system's own, where the agent is.
    const fn network(self) -> Option<&'static str> {
        match self {
            Self::None => Some("nothing"),
            Self::Xdp | Self::Tcx => None,
            Self::Ingress => Some("ingress"),
            Self::Input => Some("input"),
        }
    }
}

/// A victim.
#[derive(Debug)]
pub struct Place {
    /// What is in front of it.
    pub defence: Defence,
    /// Its wire.
    pub port: Port,
    /// Which of all: part of the addresses behind its wire.
    pub number: u8,
    /// What serves it; none where another place of the same network has it.
    _server: Option<Server>,
}

/// All victims.
#[derive(Debug)]
pub struct Scene {
    /// One behind each defence.
    pub places: Vec<Place>,
    /// The floods' program.
    pub programs: Programs,
}

/// The victim's address.
#[must_use]
pub fn victim() -> Ipv4Addr {
    Ipv4Addr::from(VICTIM_4)
}

impl Place {
    /// The address of the innocents behind this wire.
    #[must_use]
    pub const fn innocent(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, self.number, 2)
    }

    /// One of the addresses of connection floods behind this wire.
    #[must_use]
    pub const fn attacker(&self, which: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, self.number, 1 + which % ATTACKERS)
    }

    /// Name of the sending end.
    #[must_use]
    pub fn sender(&self) -> String {
        format!("s-{}", self.port.name)
    }

    /// Runs a program in the victim's network.
    ///
    /// # Errors
    /// Its words.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Result<()> {
        match &self.port.network {
            Some(network) => {
                must("ip", &[&["netns", "exec", network, program], arguments].concat()).map(drop)
            }
            None => must(program, arguments).map(drop),
        }
    }

    /// Ways to and fro, without a question of neighbours on them.
    fn wire(&self) -> Result<()> {
        self.port.one_queue()?;
        let (own, sender, number) = (&self.port.name, self.sender(), self.number);
        let metric = number.to_string();
        let (victim, innocent) = (victim().to_string(), self.innocent().to_string());
        let there = |line: String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            must("ip", &[&["-n", FLOODER], words.as_slice()].concat()).map(drop)
        };
        there(format!("link set {sender} address 02:00:00:00:00:02"))?;
        there(format!("addr add {innocent}/24 dev {sender}"))?;
        there(format!("route add {victim}/32 dev {sender} metric {metric}"))?;
        there(format!("neigh replace {victim} lladdr 02:00:00:00:00:01 dev {sender} nud permanent"))?;
        there(format!("route add local 10.88.{number}.0/24 dev lo"))?;
        let here = |line: String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            self.inside("ip", &words)
        };
        here(format!("route add {innocent}/32 dev {own}"))?;
        here(format!("neigh replace {innocent} lladdr 02:00:00:00:00:02 dev {own} nud permanent"))?;
        here(format!("route add 10.88.{number}.0/24 via {innocent} dev {own} onlink"))?;
        // Whatever answers to the flood goes the same way.
        here(format!("route add 128.0.0.0/2 via {innocent} dev {own} onlink metric {metric}"))
    }
}

/// Makes all of it. `token` begins the interfaces' names, as the agent's configuration has them.
///
/// # Errors
/// What ip(8), the agent or the kernel say.
pub fn make(token: &str, object: &Path, victims: usize) -> Result<Scene> {
    fs::create_dir_all("/run/netns").map_err(|source| Error::File { path: "/run/netns".into(), source })?;
    port::open()?;
    port::network(FLOODER)?;
    let programs = Programs::load(object)?;
    let mut places: Vec<Place> = Vec::new();
    for (number, defence) in (1..).zip(Defence::ALL) {
        let network = defence.network();
        let there = places.iter().any(|place| place.defence.network() == network);
        if let Some(network) = network {
            port::network(network)?;
        }
        let port = Port::new(&format!("{token}{}", defence.letter()), network)?;
        let server = if there { None } else { Some(Server::start(network, victims)?) };
        let place = Place { defence, port, number, _server: server };
        place.wire()?;
        places.push(place);
    }
    wait_for("the filter on its interfaces", 20, || {
        let status = portcullis(&["status"])?;
        let found = status.pointer("/filter/interfaces").and_then(Value::as_array).cloned();
        let found = found.unwrap_or_default();
        Ok([(Defence::Xdp, "xdp"), (Defence::Tcx, "tcx")].iter().all(|(defence, hook)| {
            let name = format!("{token}{}", defence.letter());
            let is = |place: &Value, key: &str, value: &str| place.get(key).is_some_and(|it| it == value);
            found.iter().any(|place| is(place, "name", &name) && is(place, "hook", hook))
        }))
    })?;
    Ok(Scene { places, programs })
}
