//! `portcullis doctor`: looks for what is missing or stands open on this host, and says what to do about it.
//!
//! Invariants: changes nothing; each finding names what was looked at; below another root nothing outside it is read and
//! nothing of the running system is asked.

mod auth;
mod factor;
pub mod finding;
mod gate;
mod host;
mod observer;
pub mod pam;
pub mod root;
pub mod services;
mod sshd;
mod users;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

pub use finding::{Finding, Level, render};
use root::Root;

use crate::cli::client::Client;
use pam::load::FOLDERS;

/// Looks at everything. With a `root` other than `/`: at its files only.
pub async fn examine(client: &Client, root: &Path) -> Vec<Finding> {
    let root = Root::new(root);
    let mut findings = Vec::new();
    if root.is_this() {
        findings.extend(gate::examine());
    }
    findings.push(gate::module(&root));
    let names: BTreeSet<String> = FOLDERS.iter().flat_map(|folder| root.list(folder)).collect();
    let judged = services::judge(&names, &|path| root.read(path).ok());
    findings.extend(judged.findings);
    findings.extend(sshd::examine(&root, judged.account.get("sshd").copied()));
    findings.extend(host::configuration(&root));
    if root.is_this() {
        findings.extend(host::agent(client).await);
    }
    findings
}

/// Whether somebody should do something.
#[must_use]
pub fn needs_work(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level >= Level::Warning)
}
