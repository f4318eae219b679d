//! The filter on its interfaces: those the configuration names that are gone, and classifiers that hang on no link.
//!
//! Invariant: looking asks the kernel by netlink and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::socket::SockProtocol;
use portcullis_common::filter::{FILTER_DIR, clsact};

use super::Kind;
use super::book::Key;
use super::pins::{Found, Heal};
use crate::config::Config;
use crate::filter::links;
use crate::filter::netlink::{DUMP, Netlink, array};

const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS).
const INGRESS: u32 = 0xffff_fff2;

/// Interfaces that were there.
#[derive(Default)]
pub struct Traffic {
    seen: BTreeSet<String>,
}

impl Traffic {
    /// What is not filtered any more.
    pub fn look(&mut self, config: &Config, wrong: &mut BTreeMap<Key, Found>) {
        if !config.filter.enabled {
            self.seen.clear();
            return;
        }
        let named: Vec<&str> = config.filter.named().collect();
        if !named.is_empty()
            && let Ok(all) = links::list()
        {
            for name in named {
                if all.iter().any(|other| other.name == name) {
                    self.seen.insert(name.to_owned());
                } else if self.seen.contains(name) {
                    let name = crate::text::escape(name.as_bytes());
                    let detail =
                        format!("the interface {name} is gone: it is filtered again when it comes back");
                    wrong.insert((Kind::InterfaceGone, name.clone()), Found::new(detail, name));
                }
            }
        }
        for index in clsact_pins() {
            if !classified(index) {
                let pin = format!("{FILTER_DIR}/clsact-{index}");
                let detail = format!("the classifier that {pin} stands for is gone from its interface");
                let found = Found { heal: Some(Heal::Filter), ..Found::new(detail, pin.clone()) };
                wrong.insert((Kind::Detached, pin), found);
            }
        }
    }
}

/// Interfaces whose classifier hangs on the qdisc clsact.
fn clsact_pins() -> Vec<u32> {
    let entries = std::fs::read_dir(FILTER_DIR).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("clsact-")?.parse().ok()).collect()
}

/// Whether our classifier is on that interface; yes where the kernel does not say, and where the interface is gone.
fn classified(index: u32) -> bool {
    // struct tcmsg: family, interface, handle, parent, priority and protocol.
    let mut body = [0_u8; 20];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[12..16].copy_from_slice(&INGRESS.to_ne_bytes());
    let mut found = false;
    let asked = Netlink::open(SockProtocol::NetlinkRoute, 0).and_then(|mut netlink| {
        netlink.ask(RTM_GETTFILTER, DUMP, &body, |kind, body| {
            let field = |at| array(body, at).map(u32::from_ne_bytes);
            let ours = field(8) == Some(clsact::HANDLE.into())
                && field(16).is_some_and(|info| info >> 16 == u32::from(clsact::PRIORITY));
            found |= kind == RTM_NEWTFILTER && ours;
        })
    });
    // Without the qdisc there is nothing to list (EINVAL on some kernels, an empty list on others).
    match asked {
        Ok(()) => found,
        Err(error) => error.raw_os_error() == Some(libc::ENODEV),
    }
}
