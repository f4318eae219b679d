//! Where the filter is attached: one program an interface, tcx or clsact, or XDP where the configuration says so.
//!
//! Invariants: an XDP program of somebody else's is never replaced; a new hook is there before an old one goes; links are
//! pinned, so that they outlive the agent; what could not be done is kept as words for people and tried again when
//! something changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, XdpMode as AyaMode, loaded_programs};
use aya::util::KernelVersion;
use portcullis_common::filter::{FILTER_DIR, clsact};

use super::command::FilterError;
use super::links::{Interface, Link};
use super::load::{Programs, RAW, TC, XDP};
use crate::api::drops::PlaceView;
use crate::config::filter::{Filter, XdpMode};

/// Since this kernel a classifier is attached by a link.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);
const HANDLE: TcHandle = TcHandle::new(0, clsact::HANDLE);

/// How the filter hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A classifier by a link.
    Tcx,
    /// A classifier at the qdisc clsact.
    Clsact,
    /// In the driver.
    Xdp,
    /// XDP without the driver.
    XdpGeneric,
    /// nftables.
    Nft,
}

impl Hook {
    /// Its word for people, the API and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Nft => "nft",
        }
    }
}

/// An interface that is to be filtered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// How the filter hangs on it; none: not at all.
    pub hook: Option<Hook>,
    /// What is not as asked.
    pub problem: Option<String>,
}

/// All interfaces that are to be filtered, by index.
#[derive(Debug)]
pub struct Places {
    places: BTreeMap<u32, Place>,
    /// Whether the kernel has tcx.
    tcx: bool,
}

impl Place {
    /// Whether it hangs where this configuration wants it.
    fn is_as(&self, config: &Filter) -> bool {
        let xdp = config.xdp.contains(&self.name).then_some(config.xdp_mode);
        let hangs = match self.hook {
            Some(Hook::Xdp) => Some(XdpMode::Driver),
            Some(Hook::XdpGeneric) => Some(XdpMode::Generic),
            _ => None,
        };
        self.problem.is_none() && xdp == hangs
    }

    /// Whose classifier of tcx runs before the filter: what it lets through does not come by here.
    fn overtaken(&self, ours: &[u32]) -> Option<String> {
        if self.hook != Some(Hook::Tcx) {
            return None;
        }
        let (_, chain) = SchedClassifier::query_tcx(&self.name, TcAttachType::Ingress).ok()?;
        let first = chain.first().filter(|first| !ours.contains(&first.id()))?;
        let name = first.name_as_str().map(|name| crate::text::escape(name.as_bytes())).unwrap_or_default();
        Some(format!(
            "the tcx program {name} ({}) was put before the filter: what it lets through is not dropped; attach it behind",
            first.id()
        ))
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::by(KernelVersion::current().is_ok_and(|kernel| kernel >= TCX))
    }
}

fn pin(kind: &str, index: u32) -> PathBuf {
    Path::new(FILTER_DIR).join(format!("{kind}-{index}"))
}

fn words<E: std::error::Error + 'static>(error: E) -> String {
    crate::text::chain(&error)
}

impl Places {
    /// None yet. `tcx`: whether classifiers are attached by links, as from Linux 6.6 on.
    #[must_use]
    pub const fn by(tcx: bool) -> Self {
        Self { places: BTreeMap::new(), tcx }
    }

    /// The interfaces.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Place)> {
        self.places.iter().map(|(index, place)| (*index, place))
    }

    /// The interfaces for people, with what others have done there since. `ours`: the classifiers' numbers.
    pub fn views(&self, ours: &[u32]) -> Vec<PlaceView> {
        let view = |place: &Place| PlaceView {
            name: place.name.clone(),
            hook: place.hook.map(|hook| hook.word().to_owned()),
            problem: place.problem.clone().or_else(|| place.overtaken(ours)),
        };
        self.places.values().map(view).collect()
    }

    /// Notes the interfaces that nftables filters: it hangs on none.
    pub fn follow_nft(&mut self, config: &Filter, interfaces: &[Interface]) {
        let wanted = |other: &&Interface| other.link != Link::Loopback && config.wants(&other.name);
        let place = |other: &Interface| {
            let xdp = config.xdp.contains(&other.name);
            let problem = xdp.then(|| "no XDP, nftables is used".to_owned());
            (other.index, Place { name: other.name.clone(), hook: Some(Hook::Nft), problem })
        };
        self.places = interfaces.iter().filter(wanted).map(place).collect();
    }

    /// Attaches where the configuration wants it and is not, lets go where it does not any more. `fresh`: the programs
    /// are new, links of older ones take them over.
    pub fn follow(
        &mut self,
        programs: &mut Programs,
        config: &Filter,
        interfaces: &[Interface],
        fresh: bool,
    ) -> Result<(), FilterError> {
        let before = std::mem::take(&mut self.places);
        for interface in interfaces {
            if interface.link == Link::Loopback || !config.wants(&interface.name) {
                continue;
            }
            let old = before.get(&interface.index).filter(|_| !fresh);
            let place = match old {
                Some(place) if place.name == interface.name && place.is_as(config) => place.clone(),
                _ => place(programs, config, interface, self.tcx),
            };
            if old != Some(&place) {
                match (&place.hook, &place.problem) {
                    (Some(hook), None) => log::info!("the filter is on {} ({})", place.name, hook.word()),
                    (_, Some(problem)) => log::warn!("the filter and {}: {problem}", place.name),
                    (None, None) => {}
                }
            }
            self.places.insert(interface.index, place);
        }
        self.sweep()
    }

    /// Takes away pins of hooks that are not wanted any more, which detaches them.
    fn sweep(&self) -> Result<(), FilterError> {
        for (kind, index, path) in pins()? {
            let hook = self.places.get(&index).and_then(|place| place.hook);
            let wanted = match kind {
                "tc" => hook == Some(Hook::Tcx),
                "xdp" => hook == Some(Hook::Xdp),
                "skb" => hook == Some(Hook::XdpGeneric),
                _ => hook == Some(Hook::Clsact),
            };
            if wanted {
                continue;
            }
            if kind == "clsact" {
                detach_clsact(index);
            }
            std::fs::remove_file(&path)
                .map_err(|error| FilterError::Kernel(format!("cannot remove {}: {error}", path.display())))?;
        }
        Ok(())
    }
}

/// Lets go of every interface.
///
/// # Errors
/// A pin cannot be removed.
pub fn let_go() -> Result<(), FilterError> {
    Places::default().sweep()
}

/// The pins of hooks: kind, index of the interface, path.
fn pins() -> Result<Vec<(&'static str, u32, PathBuf)>, FilterError> {
    let entries = match std::fs::read_dir(FILTER_DIR) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| FilterError::Kernel(format!("cannot read {FILTER_DIR}: {error}")))?,
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for kind in ["tc", "xdp", "skb", "clsact"] {
            let index = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('-'));
            if let Some(index) = index.and_then(|index| index.parse().ok()) {
                found.push((kind, index, path.clone()));
            }
        }
    }
    Ok(found)
}

/// Attaches to one interface, as well as can be.
fn place(programs: &mut Programs, config: &Filter, interface: &Interface, by_link: bool) -> Place {
    let name = interface.name.clone();
    let mut problem = None;
    if config.xdp.contains(&name) {
        match xdp(programs, config.xdp_mode, interface) {
            Ok(hook) => return Place { name, hook: Some(hook), problem },
            Err(why) => problem = Some(format!("no XDP, the classifier is used: {why}")),
        }
    }
    match classifier(programs, interface, by_link) {
        Ok(hook) => Place { name, hook: Some(hook), problem },
        Err(why) => Place { name, hook: None, problem: Some(format!("not filtered: {why}")) },
    }
}

fn classifier(programs: &mut Programs, interface: &Interface, by_link: bool) -> Result<Hook, String> {
    let program = match interface.link {
        Link::Ethernet => TC,
        Link::Raw => RAW,
        Link::Loopback => return Err("it is the loopback".to_owned()),
        Link::Other(kind) => return Err(format!("packets of its kind (ARPHRD {kind}) are not read")),
    };
    let program = programs.classifier(program).map_err(words)?;
    if by_link { tcx(program, interface) } else { clsact(program, interface) }
}

fn tcx(program: &mut SchedClassifier, interface: &Interface) -> Result<Hook, String> {
    let path = pin("tc", interface.index);
    if let Ok(old) = PinnedLink::from_pin(&path) {
        let link = SchedClassifierLink::try_from(FdLink::from(old)).map_err(words)?;
        if let Ok(id) = program.attach_to_link(link) {
            let link: FdLink = program.take_link(id).map_err(words)?.try_into().map_err(words)?;
            drop(link);
            return Ok(Hook::Tcx);
        }
        // Of an interface that is gone.
        std::fs::remove_file(&path).map_err(words)?;
    }
    // Before all others: what they redirect would not come by here.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, TcAttachType::Ingress, options).map_err(words)?;
    let link: FdLink = program.take_link(id).map_err(words)?.try_into().map_err(words)?;
    keep(link, &path)?;
    Ok(Hook::Tcx)
}

/// Pins a link, for root alone.
fn keep(link: FdLink, path: &Path) -> Result<(), String> {
    link.pin(path).map_err(words)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(words)
}

/// Before tcx: a filter of the qdisc, which has no link. The pinned program beside says that it is ours.
fn clsact(program: &mut SchedClassifier, interface: &Interface) -> Result<Hook, String> {
    let path = pin("clsact", interface.index);
    let ours = path.exists();
    match qdisc_add_clsact(&interface.name) {
        Ok(()) => {}
        // The qdisc is there already, ours or somebody else's.
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(words(error)),
    }
    let id = if ours {
        let old = SchedClassifierLink::attached(
            &interface.name,
            TcAttachType::Ingress,
            clsact::PRIORITY,
            HANDLE,
            None,
        )
        .map_err(words)?;
        program.attach_to_link(old).map_err(words)?
    } else {
        let options = NlOptions { priority: clsact::PRIORITY, handle: HANDLE, classid: None };
        program
            .attach_with_options(&interface.name, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
            .map_err(words)?
    };
    // It stays when this process ends.
    std::mem::forget(program.take_link(id).map_err(words)?);
    if !ours {
        program.pin(&path).map_err(words)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(words)?;
    }
    Ok(Hook::Clsact)
}

fn detach_clsact(index: u32) {
    let Ok(interfaces) = super::links::list() else { return };
    let Some(interface) = interfaces.into_iter().find(|interface| interface.index == index) else { return };
    // Dropped, a link of this kind detaches.
    match SchedClassifierLink::attached(
        &interface.name,
        TcAttachType::Ingress,
        clsact::PRIORITY,
        HANDLE,
        None,
    ) {
        Ok(link) => drop(link),
        Err(error) => log::warn!("the filter stays on {}: {error}", interface.name),
    }
}

fn xdp(programs: &mut Programs, mode: XdpMode, interface: &Interface) -> Result<Hook, String> {
    if interface.link != Link::Ethernet {
        return Err("its packets have no Ethernet header".to_owned());
    }
    let (mode, hook, kind, other) = match mode {
        XdpMode::Driver => (AyaMode::Driver, Hook::Xdp, "xdp", "skb"),
        XdpMode::Generic => (AyaMode::Skb, Hook::XdpGeneric, "skb", "xdp"),
    };
    let path = pin(kind, interface.index);
    // An interface takes one of the two at a time.
    let changes = std::fs::remove_file(pin(other, interface.index)).is_ok();
    let program = programs.xdp().map_err(words)?;
    if let Ok(old) = PinnedLink::from_pin(&path) {
        let link = XdpLink::try_from(FdLink::from(old)).map_err(words)?;
        if let Ok(id) = program.attach_to_link(link) {
            let link: FdLink = program.take_link(id).map_err(words)?.try_into().map_err(words)?;
            drop(link);
            return Ok(hook);
        }
        std::fs::remove_file(&path).map_err(words)?;
    } else if let Some(id) = interface.xdp.filter(|_| !changes) {
        return Err(format!("{} is attached already, and is left alone", name_of(id)));
    }
    let id = program.attach_to_if_index(interface.index, mode).map_err(words)?;
    let link: FdLink = program.take_link(id).map_err(words)?.try_into().map_err(words)?;
    keep(link, &path)?;
    Ok(hook)
}

/// A program for people.
fn name_of(id: u32) -> String {
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(|name| crate::text::escape(name.as_bytes())));
    let name = name.filter(|name| name != XDP);
    name.map_or_else(|| format!("the XDP program {id}"), |name| format!("the XDP program {name} ({id})"))
}
