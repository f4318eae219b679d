//! The next ABI version, to which tests upgrade: see feature `abi-next` of portcullis-common.

use portcullis_common::abi::{VERSIONS, Version};

use crate::Result;
use crate::inside::NEXT;
use crate::stack::must;

/// The version that runs at first.
pub const OLD: Version = {
    let [own, ..] = VERSIONS;
    own
};
/// The next one.
pub const NEW: Version = Version {
    abi: 2,
    folder: "/sys/fs/bpf/portcullis/v2",
    gate: "/sys/fs/bpf/portcullis/v2/gate",
    gate_c: c"/sys/fs/bpf/portcullis/v2/gate",
    settings_c: c"/sys/fs/bpf/portcullis/v2/SETTINGS",
    exit_links: ["/sys/fs/bpf/portcullis/v2/exit_link", "/sys/fs/bpf/portcullis/v2/exit_pair_link"],
};

/// Where a file of the next version is.
#[must_use]
pub fn built(name: &str) -> String {
    format!("{NEXT}/{name}")
}

/// Puts a new file in the place of an old one, as an upgrade of a package does: who has the old one open keeps it.
fn put(name: &str, place: &str) -> Result<()> {
    let fresh = format!("{place}.new");
    must("cp", &[&built(name), &fresh])?;
    must("mv", &[&fresh, place]).map(drop)
}

/// Puts the new module in place.
///
/// # Errors
/// When there is no old one, or no new one.
pub fn new_module() -> Result<()> {
    let found = must("sh", &["-c", "ls /lib/*/security/pam_portcullis.so"])?;
    put("libpam_portcullis.so", found.trim())
}

/// Puts the new agent in place.
///
/// # Errors
/// When there is no new one.
pub fn new_agent() -> Result<()> {
    put("portcullisd", "/usr/sbin/portcullisd")
}
