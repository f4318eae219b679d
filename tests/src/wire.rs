//! Other hosts: network namespaces behind veth pairs, each on a network of its own with the throw-away system.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::system::run;
use crate::{Error, Result};

/// A host on the other end of a wire.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of its namespace.
    pub name: &'static str,
    /// Its interface as this system sees it.
    pub interface: String,
    /// Its addresses.
    pub addresses: [IpAddr; 2],
    /// This system's addresses on the wire.
    pub here: [IpAddr; 2],
}

fn must(program: &str, arguments: &str) -> Result<()> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    match run(program, &words)? {
        (true, _) => Ok(()),
        (false, output) => Err(Error::Answer { program: format!("{program} {arguments}"), output }),
    }
}

impl Host {
    /// Makes a host: 10.9.NET.2 and 2001:db8:NET::2, this system is .1 and ::1.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn new(name: &'static str, net: u8) -> Result<Self> {
        let interface = format!("v-{name}");
        must("ip", &format!("netns add {name}"))?;
        must("ip", &format!("link add {interface} type veth peer name e0 netns {name}"))?;
        for (place, device, end) in [("", interface.as_str(), 1), (name, "e0", 2)] {
            let ip = |rest: String| {
                let inside = if place.is_empty() { String::new() } else { format!("-n {place} ") };
                must("ip", &format!("{inside}{rest}"))
            };
            ip(format!("addr add 10.9.{net}.{end}/24 dev {device}"))?;
            ip(format!("addr add 2001:db8:{net}::{end}/64 dev {device} nodad"))?;
            ip(format!("link set {device} up"))?;
        }
        let four = |end| IpAddr::from([10, 9, net, end]);
        let six = |end| {
            IpAddr::from([
                0x2001,
                0xdb8,
                u16::from_str_radix(&net.to_string(), 16).unwrap_or(0),
                0,
                0,
                0,
                0,
                end,
            ])
        };
        Ok(Self { name, interface, addresses: [four(2), six(2)], here: [four(1), six(1)] })
    }

    /// Puts it on a bridge with this system and others: 2001:db8:77::END, this system is ::1. From then on these are the
    /// addresses it is known by.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn on_bridge(self, end: u16) -> Result<Self> {
        if !Path::new("/sys/class/net/shared").exists() {
            must("ip", "link add name shared type bridge")?;
            must("ip", "addr add 2001:db8:77::1/64 dev shared nodad")?;
            must("ip", "link set shared up")?;
        }
        let Self { name, interface, .. } = &self;
        must("ip", &format!("addr flush dev {interface}"))?;
        must("ip", &format!("link set {interface} master shared"))?;
        must("ip", &format!("-n {name} addr flush dev e0 scope global"))?;
        must("ip", &format!("-n {name} addr add 2001:db8:77::{end:x}/64 dev e0 nodad"))?;
        let address = |end| IpAddr::from([0x2001, 0xdb8, 0x77, 0, 0, 0, 0, end]);
        Ok(Self { addresses: [address(end); 2], here: [address(1); 2], ..self })
    }

    /// Runs a program there: status 0 or not, and all it printed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<(bool, String)> {
        let mut all = vec!["netns", "exec", self.name, program];
        all.extend(arguments);
        run("ip", &all)
    }

    /// Whether this system answers its ping, by both families alike.
    ///
    /// # Errors
    /// When ping cannot be started.
    pub fn pings(&self) -> Result<bool> {
        self.pings_at(self.here[0])
    }

    /// Whether an address answers its ping.
    ///
    /// # Errors
    /// When ping cannot be started.
    pub fn pings_at(&self, address: IpAddr) -> Result<bool> {
        Ok(self.run("ping", &["-n", "-c1", "-W1", &address.to_string()])?.0)
    }

    /// Whether it gets a page from this system.
    ///
    /// # Errors
    /// When curl cannot be started.
    pub fn gets(&self, port: u16) -> Result<bool> {
        let page = format!("http://{}:{port}/", self.here[0]);
        Ok(self.run("curl", &["-s", "-o", "/dev/null", "--max-time", "1", &page])?.0)
    }

    /// Does something on a thread that is in its network.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let path = Path::new("/run/netns").join(self.name);
        let trouble = |source| Error::File { path: path.clone(), source };
        let namespace = File::open(&path).map_err(trouble)?;
        let thread = std::thread::spawn(move || setns(namespace, CloneFlags::CLONE_NEWNET).map(|()| work()));
        match thread.join() {
            Ok(done) => done.map_err(|errno| trouble(errno.into())),
            Err(_) => Err(trouble(std::io::Error::other("its thread panicked"))),
        }
    }
}
