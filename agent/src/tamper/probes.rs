//! Somebody else's breakpoints in the code that sees passwords: the way of those who steal credentials.
//!
//! Invariants: a breakpoint for the whole machine is found whichever call set it (perf, tracefs, a link of bpf(2)), since it
//! stands in our own mapping too; who set it is looked for only then. One for a single process is found where it is a
//! link, and where the one who holds it is in our pid namespace.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Kind;
use super::book::Key;
use super::files::module_folders;
use super::pins::Found;
use super::who::Who;
use crate::kernel::mapping::Mapping;
use crate::kernel::objects::{self, Link, On};

/// Where tracefs lists breakpoints, in one of its two places.
const EVENTS: [&str; 2] = ["/sys/kernel/tracing/uprobe_events", "/sys/kernel/debug/tracing/uprobe_events"];
/// Beside the modules' folder or above it.
const LIBRARIES: [&str; 2] = ["libpam.so.0", "libcrypt.so.1"];
const MODULES: [&str; 2] = ["pam_unix.so", "pam_portcullis.so"];

/// A file and our mapping of it.
struct Watched {
    path: PathBuf,
    inode: Option<(u64, u64)>,
    mapping: Option<Mapping>,
    /// The breakpoints that were seen last, and by whom.
    told: Option<(Breakpoints, Vec<String>)>,
}

/// Where the mapping differs from the file, and the links on it.
#[derive(PartialEq, Eq)]
struct Breakpoints {
    inode: Option<(u64, u64)>,
    place: Option<u64>,
    links: Vec<u32>,
}

/// The files.
pub struct Probes {
    files: Vec<Watched>,
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

impl Probes {
    /// Those of this host.
    #[must_use]
    pub fn of_this_host() -> Self {
        let mut paths = Vec::new();
        for folder in module_folders() {
            paths.extend(MODULES.map(|name| folder.join(name)));
            paths
                .extend(folder.parent().into_iter().flat_map(|above| LIBRARIES.map(|name| above.join(name))));
        }
        paths.retain(|path| path.exists());
        Self::of(paths)
    }

    /// Those at these paths.
    #[must_use]
    pub fn of(paths: Vec<PathBuf>) -> Self {
        Self {
            files: paths
                .into_iter()
                .map(|path| Watched { path, inode: None, mapping: None, told: None })
                .collect(),
        }
    }

    /// What is probed now.
    pub fn look(&mut self, wrong: &mut BTreeMap<Key, Found>) {
        let links = objects::user_links().unwrap_or_default();
        for file in &mut self.files {
            let now = inode(&file.path);
            if now != file.inode {
                file.inode = now;
                file.mapping = Mapping::new(&file.path).ok();
            }
            let place = file.mapping.as_ref().and_then(|mapping| mapping.differs().ok().flatten());
            let place = place.filter(|_| !cfg!(feature = "mutation-breakpoint-blind"));
            let on_it: Vec<&Link> = links.iter().filter(|link| is_on(link, file.inode)).collect();
            let links = on_it.iter().map(|link| link.id).collect();
            let now = Breakpoints { inode: file.inode, place, links };
            // All descriptors of all processes are gone through for it: once, not at each look.
            let by = match file.told.take() {
                Some((before, by)) if before == now => by,
                _ => who_set(&now, &on_it),
            };
            if place.is_none() && by.is_empty() {
                continue;
            }
            file.told = Some((now, by.clone()));
            let name = crate::text::escape(file.path.as_os_str().as_encoded_bytes());
            let at = place.map_or_else(String::new, |place| format!(" at offset 0x{place:x}"));
            let detail = format!(
                "somebody else's breakpoint (uprobe) is in {name}{at}: whoever set it can read passwords"
            );
            let who = (!by.is_empty()).then(|| by.join("; "));
            wrong.insert((Kind::Uprobe, name.clone()), Found { who, ..Found::new(detail, name) });
        }
    }
}

/// Whether a link hangs on that file.
fn is_on(link: &Link, file: Option<(u64, u64)>) -> bool {
    matches!(&link.on, On::User { path } if file.is_some() && inode(path) == file)
}

/// Those who can be seen here to have set breakpoints.
fn who_set(breakpoints: &Breakpoints, links: &[&Link]) -> Vec<String> {
    let mut by: Vec<String> = links.iter().filter_map(|link| by_link(link)).collect();
    if breakpoints.place.is_some() {
        by.extend(by_perf(breakpoints.inode));
        by.extend(by_tracefs(breakpoints.inode));
    }
    by.dedup();
    by
}

/// The holder of a link, where he can be seen here.
fn by_link(link: &Link) -> Option<String> {
    let id = format!("link_id:\t{}", link.id);
    let holder = each_fd("bpf_link").find(|(pid, fd)| {
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        info.lines().any(|line| line == id)
    });
    let (pid, _) = holder?;
    Some(format!("{} by the program {} of bpf(2)", Who::look(pid, None), objects::name_of(link.program)))
}

/// Processes with a perf event on that file; where the kernel tells of no perf event what it is on (without a program of
/// bpf(2) it does not), those with any.
fn by_perf(file: Option<(u64, u64)>) -> Vec<String> {
    let events: Vec<(u32, u32)> = each_fd("perf_event").collect();
    let probing = |(pid, fd): &&(u32, u32)| {
        objects::probed_by(*pid, *fd).is_some_and(|path| file.is_some() && inode(&path) == file)
    };
    let sure: Vec<u32> = events.iter().filter(probing).map(|(pid, _)| *pid).collect();
    if !sure.is_empty() {
        return sure.iter().map(|pid| format!("{} by perf_event_open(2)", Who::look(*pid, None))).collect();
    }
    let mut pids: Vec<u32> = events.iter().map(|(pid, _)| *pid).collect();
    pids.dedup();
    pids.iter().map(|pid| format!("perhaps {}, which holds a perf event", Who::look(*pid, None))).collect()
}

/// Lines of tracefs for that file.
fn by_tracefs(file: Option<(u64, u64)>) -> Vec<String> {
    let text = EVENTS.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let probing = |line: &&str| {
        let path = line.split_whitespace().nth(1).and_then(|place| place.rsplit_once(':'));
        path.is_some_and(|(path, _)| file.is_some() && inode(Path::new(path)) == file)
    };
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    text.lines()
        .filter(probing)
        .map(|line| format!("tracefs event {}", crate::text::escape(name(line).as_bytes())))
        .collect()
}

/// Descriptors of all processes whose target names `kind`.
fn each_fd(kind: &'static str) -> impl Iterator<Item = (u32, u32)> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).flat_map(move |pid| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.filter_map(move |entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            target.to_string_lossy().contains(kind).then_some(())?;
            Some((pid, entry.file_name().to_str()?.parse().ok()?))
        })
    })
}
