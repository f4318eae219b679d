//! The gate as it is pinned: switch, bpffs, versions, modes and owners, programs, the module's file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::programs::links::PinnedLink;
use portcullis_common::abi;

use super::finding::{Check, Finding};
use super::root::Root;
use crate::kernel;

/// All of it.
pub fn examine() -> Vec<Finding> {
    vec![switch(), bpffs(), versions(), pins(), gate(), exit_program()]
}

fn switch() -> Finding {
    if kernel::switched_off() {
        let what = format!("`{}` is set: nothing is loaded or refused", abi::OFF_WORD);
        let next = "take the word off the kernel command line and reboot, when whatever it is for is over";
        return Finding::of(Check::KernelWord, what).at("/proc/cmdline").next(next);
    }
    Finding::ok(Check::KernelWord, format!("no `{}` on the kernel command line", abi::OFF_WORD))
}

fn bpffs() -> Finding {
    match nix::sys::statfs::statfs("/sys/fs/bpf") {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC => {
            Finding::ok(Check::Bpffs, "mounted").at("/sys/fs/bpf")
        }
        _ => {
            let next = "mount -t bpf bpf /sys/fs/bpf, then start portcullis-gate.service";
            Finding::of(Check::Bpffs, "no BPF file system is mounted").at("/sys/fs/bpf").next(next)
        }
    }
}

fn versions() -> Finding {
    const CHECK: Check = Check::OtherVersions;
    match kernel::other_versions() {
        Ok(found) => match found.into_iter().next() {
            None => Finding::ok(CHECK, "no pins of another version"),
            Some(path) => {
                let path = crate::text::escape(path.as_os_str().as_encoded_bytes());
                let next = format!("stop its agent, `rm -r {path}`, start portcullis-gate and portcullisd");
                Finding::of(CHECK, "pins of another version of Portcullis").at(path).next(next)
            }
        },
        Err(error) => Finding::of(CHECK, error.to_string()).next("run doctor as root"),
    }
}

fn pins() -> Finding {
    const CHECK: Check = Check::Pins;
    let wrong = |path: &Path, mode: u32, uid: u32, wanted: &str| {
        let path = crate::text::escape(path.as_os_str().as_encoded_bytes());
        let next = format!("chmod {wanted} {path}; chown root {path}");
        let what = format!("mode {mode:04o} of uid {uid}: others than root can reach the gate");
        Finding::of(CHECK, what).at(path).next(next)
    };
    for folder in [abi::PIN_ROOT, abi::PIN_DIR] {
        match fs::symlink_metadata(folder) {
            Ok(data) if data.mode() & 0o7777 == 0o700 && data.uid() == 0 => {}
            Ok(data) => return wrong(Path::new(folder), data.mode() & 0o7777, data.uid(), "0700"),
            Err(error) => {
                return Finding::of(CHECK, format!("no pins: {error}"))
                    .at(folder)
                    .next("start portcullis-gate.service");
            }
        }
    }
    match kernel::pin_states() {
        Ok(states) => match states.iter().find(|pin| pin.mode != 0o600 || pin.uid != 0) {
            None => Finding::ok(CHECK, format!("{} pins, 0600 in folders of 0700, root's", states.len()))
                .at(abi::PIN_DIR),
            Some(pin) => wrong(&pin.path, pin.mode, pin.uid, "0600"),
        },
        Err(error) => Finding::of(CHECK, error.to_string()).next("start portcullis-gate.service"),
    }
}

fn gate() -> Finding {
    match kernel::gate::probe() {
        Ok(()) => Finding::ok(Check::Gate, format!("answers, ABI {}", abi::ABI)).at(abi::PIN_GATE),
        Err(error) => Finding::of(Check::Gate, format!("nothing is counted or refused: {error}"))
            .at(abi::PIN_GATE)
            .next("systemctl restart portcullis-gate portcullisd"),
    }
}

fn exit_program() -> Finding {
    for link in abi::PIN_EXIT_LINKS {
        if let Err(error) = PinnedLink::from_pin(link) {
            let what =
                format!("no link ({error}): attempts of killed processes count at their maximum age only");
            let next = "systemctl restart portcullis-gate portcullisd";
            return Finding::of(Check::ExitProgram, what).at(link).next(next);
        }
    }
    Finding::ok(Check::ExitProgram, "attached").at(abi::PIN_DIR)
}

/// The module must be beside pam_unix.so: there libpam looks.
pub fn module(root: &Root) -> Finding {
    let mut folders = Vec::new();
    for base in ["/lib", "/usr/lib", "/lib64", "/usr/lib64"] {
        folders.push(format!("{base}/security"));
        // /usr/lib/x86_64-linux-gnu/security and the like.
        let triples = root.list(base).into_iter().filter(|name| name.contains("-linux-"));
        folders.extend(triples.map(|name| format!("{base}/{name}/security")));
    }
    folders.retain(|folder| root.metadata(&format!("{folder}/pam_unix.so")).is_ok());
    let paths = folders.iter().map(|folder| format!("{folder}/pam_portcullis.so"));
    let found = paths.filter_map(|path| root.metadata(&path).ok().map(|data| (path, data))).next();
    match found {
        Some((path, data)) if data.uid() == 0 && data.mode() & 0o022 == 0 => {
            Finding::ok(Check::Module, "there, and root's").at(path)
        }
        Some((path, data)) => {
            let what =
                format!("mode {:04o} of uid {}: others can change it", data.mode() & 0o7777, data.uid());
            let next = format!("chown root {path}; chmod 0644 {path}");
            Finding::of(Check::Module, what).at(path).next(next)
        }
        None => {
            let what = "pam_portcullis.so is not beside pam_unix.so: its lines fail";
            Finding::of(Check::Module, what).next("install Portcullis, or take its lines out of the stacks")
        }
    }
}
