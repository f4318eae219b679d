//! A host that guesses at sshd with the real ssh client, and another that logs on.

use std::net::IpAddr;
use std::path::Path;

use crate::ssh::Sshd;
use crate::stack::must;
use crate::system::{portcullis, read, run, wait_for, write};
use crate::wire::Host;
use crate::{Error, Result};

const PORT: u16 = 2323;

/// What came of a logon by ssh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logon {
    /// The command ran.
    LetIn,
    /// sshd was there and refused.
    Refused,
    /// Nobody answered.
    NoAnswer,
}

/// Both hosts, behind filtered interfaces, and an sshd for them.
pub struct Siege {
    /// The one that guesses.
    pub attacker: Host,
    /// The one that logs on.
    pub innocent: Host,
    _sshd: Sshd,
}

impl Siege {
    /// Makes the hosts and starts the sshd. The configuration has enabled the filter.
    ///
    /// # Errors
    /// When one of them cannot be made, or the filter does not come to an interface.
    pub fn begin() -> Result<Self> {
        Self::of(Host::new("besieger", 11)?, Host::new("visitor", 12)?)
    }

    /// The same with both hosts and this system on one IPv6 network, by which they come: 2001:db8:77::2, ::3 and ::1.
    ///
    /// # Errors
    /// As [`Siege::begin`].
    pub fn on_one_network() -> Result<Self> {
        Self::of(Host::new("besieger", 11)?.on_bridge(2)?, Host::new("visitor", 12)?.on_bridge(3)?)
    }

    fn of(attacker: Host, innocent: Host) -> Result<Self> {
        for host in [&attacker, &innocent] {
            wait_for("the filter on the interface", 10, || filtered(&host.interface))?;
            wait_for("the wire", 10, || host.pings())?;
        }
        let all = attacker.here.into_iter().chain(innocent.here);
        let mut here: Vec<String> = all.map(|address| format!("ListenAddress {address}")).collect();
        here.sort();
        here.dedup();
        let sshd = Sshd::start(PORT, &format!("{}\nPasswordAuthentication yes", here.join("\n")))?;
        Ok(Self { attacker, innocent, _sshd: sshd })
    }

    /// A logon by ssh with a password.
    ///
    /// # Errors
    /// When ssh cannot be started.
    pub fn logon(&self, from: &Host, user: &str, password: &str) -> Result<Logon> {
        self.logon_by(from, &[], user, password)
    }

    /// A logon from one of several addresses that a host has.
    ///
    /// # Errors
    /// As [`Siege::logon`].
    pub fn logon_from(&self, from: &Host, address: IpAddr, user: &str, password: &str) -> Result<Logon> {
        self.logon_by(from, &["-b", &address.to_string()], user, password)
    }

    fn logon_by(&self, from: &Host, more: &[&str], user: &str, password: &str) -> Result<Logon> {
        let target = format!("{user}@{}", from.here[0]);
        let port = PORT.to_string();
        let options = [
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oLogLevel=ERROR",
            "-oConnectTimeout=2",
            "-oNumberOfPasswordPrompts=1",
            "-oPubkeyAuthentication=no",
            "-oPreferredAuthentications=password",
        ];
        let mut all = vec!["-p", password, "ssh", "-p", port.as_str()];
        all.extend(options);
        all.extend(more);
        all.extend([target.as_str(), "id -un"]);
        let (_, text) = from.run("sshpass", &all)?;
        Ok(if text.lines().any(|line| line.trim() == user) {
            Logon::LetIn
        } else if text.contains("Permission denied") {
            Logon::Refused
        } else {
            Logon::NoAnswer
        })
    }

    /// Waits until the attacker's address is dropped, or is not any more.
    ///
    /// # Errors
    /// When that does not come.
    pub fn wait_dropped(&self, dropped: bool) -> Result<()> {
        let what = if dropped { "the drop" } else { "the end of the drop" };
        wait_for(what, 40, || Ok(is_dropped(self.attacker.addresses[0])? == dropped))
    }
}

fn filtered(interface: &str) -> Result<bool> {
    let status = portcullis(&["status"])?;
    let places = status.pointer("/filter/interfaces").and_then(|places| places.as_array());
    Ok(places.is_some_and(|places| {
        places.iter().any(|place| place.get("name").is_some_and(|name| name == interface))
    }))
}

/// Whether an address is among the drops.
///
/// # Errors
/// When the agent does not answer.
pub fn is_dropped(address: IpAddr) -> Result<bool> {
    let drops = portcullis(&["drops"])?;
    let text = address.to_string();
    Ok(drops.as_array().is_some_and(|drops| {
        drops.iter().any(|drop| drop.get("net").is_some_and(|net| *net == text.as_str()))
    }))
}

/// What `portcullis sources` shows of an address; null where it shows nothing.
///
/// # Errors
/// When the agent does not answer.
pub fn source(address: IpAddr) -> Result<serde_json::Value> {
    portcullis(&["explain", &address.to_string()])
}

/// Prints the sources, for people.
///
/// # Errors
/// When the command fails.
pub fn show() -> Result<String> {
    let (done, text) = run("portcullis", &["sources"])?;
    if done { Ok(text) } else { Err(Error::Answer { program: "portcullis sources".into(), output: text }) }
}

/// What the story adds to the configuration: a source is dropped for ten seconds at its fourth failure.
const DROPS: &str = r#"
[filter]
enabled = true
[sc5]
guess = "drop"
spray = "drop"
deny = 4
drop_time = "10s"
"#;

/// The demo's second half: a host guesses at sshd and is dropped, another logs on, the lease ends.
///
/// # Errors
/// With the step that was not seen.
pub fn story(right: &str) -> Result<()> {
    say("another host guesses at jon by ssh; there is a second one, which does nothing wrong");
    let config = Path::new("/etc/portcullis/portcullis.toml");
    write(config, &(read(config)? + DROPS))?;
    must("portcullis", &["reload"])?;
    let siege = Siege::begin()?;
    let (attacker, innocent) = (&siege.attacker, &siege.innocent);
    for _ in 0..3 {
        told(attacker, siege.logon(attacker, "jon", "wrong")?, &[Logon::Refused])?;
    }
    say("the fourth guess is one too many from there: its packets are dropped in the kernel");
    told(attacker, siege.logon(attacker, "jon", "wrong")?, &[Logon::Refused, Logon::NoAnswer])?;
    siege.wait_dropped(true)?;
    told(attacker, siege.logon(attacker, "jon", right)?, &[Logon::NoAnswer])?;
    seen("its ping is not answered either", !attacker.pings()?)?;
    print("portcullis sources", &show()?);
    say("the other host logs on as jon meanwhile");
    told(innocent, siege.logon(innocent, "jon", right)?, &[Logon::LetIn])?;
    say("the lease ends by itself after 10 s");
    siege.wait_dropped(false)?;
    wait_for("the attacker's way back", 10, || attacker.pings())?;
    seen("its ping is answered again", true)
}

fn say(text: &str) {
    println!("\n# {text}");
}

fn print(command: &str, output: &str) {
    println!("$ {command}");
    output.lines().for_each(|line| println!("  {line}"));
}

fn told(from: &Host, logon: Logon, expected: &[Logon]) -> Result<()> {
    println!("{}$ ssh jon@{} id -un", from.name, from.here[0]);
    let what = match logon {
        Logon::LetIn => "jon is let in",
        Logon::Refused => "refused",
        Logon::NoAnswer => "no answer",
    };
    seen(what, expected.contains(&logon))
}

fn seen(what: &str, seen: bool) -> Result<()> {
    println!("  seen: {what}: {}", if seen { "yes" } else { "NO" });
    if seen {
        Ok(())
    } else {
        Err(Error::Answer { program: "the demo".into(), output: format!("not seen: {what}") })
    }
}
