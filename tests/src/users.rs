//! Users beside the sandbox's own.

use crate::stack::must;
use crate::system::read;
use crate::{Error, Result};

/// Adds `name` with the uid, and jon's password.
///
/// # Errors
/// When useradd fails, or jon has no password.
pub fn add_like_jon(name: &str, uid: u32) -> Result<()> {
    let shadow = read("/etc/shadow".as_ref())?;
    let hash = shadow.lines().find_map(|line| line.strip_prefix("jon:")?.split(':').next());
    let hash = hash.ok_or_else(|| Error::Answer { program: "/etc/shadow".into(), output: shadow.clone() })?;
    let uid = uid.to_string();
    let home = ["--no-create-home", "--home-dir", "/"];
    must("useradd", &[&["--uid", &uid, "--password", hash][..], &home, &[name]].concat()).map(drop)
}
