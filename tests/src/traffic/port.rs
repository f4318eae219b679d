//! A veth pair: frames go in at the sending end, in the network [`FLOODER`], and come out at the receiving end, whose
//! packets are all handled by one kernel thread: threaded NAPI, as with a driver, and GRO on.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::template::{VICTIM_4, VICTIM_6};
use super::{must, refused};
use crate::{Error, Result};

/// Name of the network of the sending ends.
pub const FLOODER: &str = "flooder";
/// The machine's own /proc, shown inside by `cargo xtask bench`: kernel threads belong to no sandbox.
pub const MACHINE: &str = "/opt/portcullis-machine";

const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_STSO: u32 = 0x1f;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// A veth pair.
#[derive(Clone, Debug)]
pub struct Port {
    /// The receiving end.
    pub name: String,
    /// Network it is in; none: the throw-away system's own.
    pub network: Option<String>,
    /// Index of the receiving end.
    pub index: u32,
    /// Index of the sending end.
    pub sender: u32,
}

/// Does something in a network.
///
/// # Errors
/// The network cannot be entered; what `work` says.
pub fn in_network<T: Send>(network: Option<&str>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(network) = network else { return work() };
    let path = Path::new("/run/netns").join(network);
    let namespace = fs::File::open(&path).map_err(|source| Error::File { path, source })?;
    // A thread of its own: this one stays where it is.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(refused("setns"))?;
            work()
        });
        thread.join().unwrap_or_else(|_| {
            Err(Error::Answer { program: "a thread".into(), output: "it panicked".into() })
        })
    })
}

/// Makes a network; its own loopback is up, and any source is taken.
///
/// # Errors
/// ip(8)'s words.
pub fn network(name: &str) -> Result<()> {
    must("ip", &["netns", "add", name])?;
    must("ip", &["-n", name, "link", "set", "lo", "up"])?;
    in_network(Some(name), open)
}

/// Takes any source in the calling thread's network, with or without a way back to it.
///
/// # Errors
/// A setting cannot be written.
pub fn open() -> Result<()> {
    for (setting, value) in [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ] {
        let path = PathBuf::from("/proc/sys/net").join(setting);
        fs::write(&path, value).map_err(|source| Error::File { path, source })?;
    }
    Ok(())
}

impl Port {
    /// Makes the pair.
    ///
    /// # Errors
    /// ip(8)'s or the kernel's words.
    pub fn new(name: &str, network: Option<&str>) -> Result<Self> {
        let sender = format!("s-{name}");
        must("ip", &["link", "add", name, "type", "veth", "peer", "name", &sender, "netns", FLOODER])?;
        if let Some(network) = network {
            must("ip", &["link", "set", name, "netns", network])?;
        }
        let place = network.map_or_else(Vec::new, |network| vec!["-n", network]);
        let ip = |words: &[&str]| must("ip", &[place.as_slice(), words].concat());
        ip(&["link", "set", name, "address", "02:00:00:00:00:01"])?;
        let four = std::net::Ipv4Addr::from(VICTIM_4);
        let six = std::net::Ipv6Addr::from(VICTIM_6);
        ip(&["addr", "add", &format!("{four}/32"), "dev", name])?;
        ip(&["addr", "add", &format!("{six}/128"), "dev", name, "nodad"])?;
        in_network(network, || {
            let path = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
            fs::write(&path, "0").map_err(|source| Error::File { path, source })?;
            offload(name, ETHTOOL_SGRO, 1)
        })?;
        ip(&["link", "set", name, "up"])?;
        must("ip", &["-n", FLOODER, "link", "set", &sender, "up"])?;
        // A sysfs that shows this network; the throw-away system's own is read-only.
        let script = format!(
            "mkdir -p /run/sys && mount -t sysfs none /run/sys && mount -o remount,rw /run/sys && echo 1 > /run/sys/class/net/{name}/threaded"
        );
        let enter = ["unshare", "--mount", "sh", "-c", &script];
        match network {
            Some(network) => must("ip", &[&["netns", "exec", network], enter.as_slice()].concat())?,
            None => must("unshare", enter.get(1..).unwrap_or_default())?,
        };
        let number = |name: String| {
            move || nix::net::if_::if_nametoindex(name.as_str()).map_err(refused("an interface's index"))
        };
        Ok(Self {
            name: name.to_owned(),
            network: network.map(str::to_owned),
            index: in_network(network, number(name.to_owned()))?,
            sender: in_network(Some(FLOODER), number(sender))?,
        })
    }

    /// Does something in the network of the receiving end.
    ///
    /// # Errors
    /// As [`in_network`].
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_network(self.network.as_deref(), work)
    }

    /// Has what sockets send by the sending end wait in the same queue as a flood: with TSO, veth hands it to the stack
    /// past that queue and on the sender's processor, unless an XDP program is there.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn one_queue(&self) -> Result<()> {
        in_network(Some(FLOODER), || offload(&format!("s-{}", self.name), ETHTOOL_STSO, 0))
    }

    /// Folder in [`MACHINE`] of the kernel thread that handles what is received.
    ///
    /// # Errors
    /// There is none.
    pub fn thread(&self) -> Result<PathBuf> {
        let prefix = format!("napi/{}-", self.name);
        let trouble = |source| Error::File { path: MACHINE.into(), source };
        for entry in fs::read_dir(MACHINE).map_err(trouble)? {
            let folder = entry.map_err(trouble)?.path();
            // Processes end while they are listed.
            if fs::read_to_string(folder.join("comm")).unwrap_or_default().starts_with(&prefix) {
                return Ok(folder);
            }
        }
        Err(Error::Answer { program: MACHINE.into(), output: format!("no kernel thread {prefix}*") })
    }
}

/// `ethtool --offload NAME …`.
fn offload(name: &str, command: u32, value: u32) -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")
        .map_err(|source| Error::Program { program: "a socket".into(), source })?;
    let mut order = [command, value];
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: order.as_mut_ptr().cast() },
    };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *place = libc::c_char::try_from(byte).unwrap_or(0);
    }
    use std::os::fd::AsRawFd as _;
    // SAFETY: SIOCETHTOOL reads one ifreq and the two words that it leads to; both outlive the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if answer == 0 {
        return Ok(());
    }
    Err(Error::Program { program: format!("offloads of {name}"), source: std::io::Error::last_os_error() })
}
