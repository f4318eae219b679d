//! Judges the PAM stacks of every service. Pure: names and files are given.

use std::collections::{BTreeMap, BTreeSet};

use super::auth;
use super::finding::{Check, Finding};
use portcullis_common::services::{is_logon, is_switch};

use super::pam::load::{Handler, Kind, OTHER, Stacks, What, service};
use super::pam::modules::{Nature, nature};
use super::pam::walk::{Passed, Role, walk};
use super::words;

/// The service that asks for the current password outside the auth stack.
const PASSWD: &str = "passwd";

/// What was found in the stacks.
#[derive(Debug, Default)]
pub struct Judged {
    /// The findings.
    pub findings: Vec<Finding>,
    /// For each logon service, whether its account line refuses locked accounts.
    pub account: BTreeMap<String, bool>,
}

/// What libpam makes of a module here.
pub(super) fn role(handler: &Handler) -> Role {
    match nature(handler) {
        Nature::Ours => Role::Ours,
        Nature::Permit => Role::Permit,
        Nature::Deny => Role::Deny,
        nature if nature.secret() => Role::Secret,
        _ => Role::Other,
    }
}

/// Left over by package managers and editors.
fn left_over(name: &str) -> bool {
    let ends = ["~", ".rpmnew", ".rpmsave", ".rpmorig", ".bak", ".orig", ".old", ".pam-new", ".swp"];
    name.starts_with('.')
        || name.contains(".dpkg-")
        || name.contains(".ucf-")
        || ends.iter().any(|end| name.ends_with(end))
}

/// Judges the services that have these files, by what `read` gives.
#[must_use]
pub fn judge(names: &BTreeSet<String>, read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Judged {
    let mut judged = Judged::default();
    let mut services: BTreeMap<&str, Stacks> = BTreeMap::new();
    for name in names.iter().filter(|name| !left_over(name)) {
        if name.chars().any(|letter| letter.is_ascii_uppercase()) {
            let what = "has a capital letter in its name, which libpam never asks for";
            let next = "rename it if it is meant for a service, else leave it";
            judged.findings.push(Finding::of(Check::StackNeverRead, what).on(name).next(next));
        } else if let Some(stacks) = service(name, read) {
            services.insert(name, stacks);
        }
    }
    if services.is_empty() {
        let next = "install libpam-runtime, or name the right folder with --root";
        let none = Finding::of(Check::StackNone, "no service has a PAM file").at("/etc/pam.d").next(next);
        judged.findings.push(none);
        return judged;
    }
    judged.faults(&services);
    let included: BTreeSet<&str> = services
        .values()
        .flat_map(|stacks| &stacks.included)
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    let other = services.get(OTHER);
    let stack_of = |stacks: &Stacks, kind: Kind| {
        let own = stacks.stack(kind);
        // Where a service has no line of a kind, those of `other` stand in.
        if own.is_empty() { other.map(|other| other.stack(kind)).unwrap_or_default() } else { own }
    };
    for (name, stacks) in &services {
        let own = stacks.stack(Kind::Auth);
        // A file that others include and that has half of the kinds is no service itself.
        let part = included.contains(name) && (own.is_empty() || stacks.stack(Kind::Account).is_empty());
        if stacks.broken.is_some() || part {
            continue;
        }
        if !own.is_empty() {
            auth::judge(name, &own, &mut judged.findings);
        }
        if is_logon(name.as_bytes()) || is_switch(name.as_bytes()) {
            judged.account_of(name, &stack_of(stacks, Kind::Account));
        }
        if *name == PASSWD {
            judged.password_of(name, &stack_of(stacks, Kind::Password));
        }
    }
    judged.lines(&services, read);
    judged
}

impl Judged {
    /// What is wrong with the files themselves, once for each place.
    fn faults(&mut self, services: &BTreeMap<&str, Stacks>) {
        let mut found: BTreeMap<(Check, String, String), Vec<&str>> = BTreeMap::new();
        for (name, stacks) in services {
            let broken = stacks.broken.iter().map(|fault| (Check::StackBroken, fault));
            let faults = stacks.faults.iter().map(|fault| (Check::StackFault, fault));
            for (check, fault) in broken.chain(faults) {
                let services = found.entry((check, fault.place.to_string(), fault.what.clone())).or_default();
                if services.last() != Some(name) {
                    services.push(name);
                }
            }
        }
        for ((check, place, what), names) in found {
            let (what, next) = if check == Check::StackBroken {
                let all = if names.contains(&OTHER) { ", and every other service with `other`" } else { "" };
                (format!("{what}: libpam refuses every attempt{all}"), "correct the line")
            } else {
                (what, "correct the line; see pam.conf(5)")
            };
            let mut finding = Finding::of(check, what).at(place).next(next);
            for name in names {
                finding = finding.on(name);
            }
            self.findings.push(finding);
        }
    }

    fn account_of(&mut self, name: &str, stack: &[Handler]) {
        let ours = stack.iter().find(|handler| nature(handler) == Nature::Ours);
        let Some(ours) = ours else {
            let what = "no account line: a locked account still gets in where no password is asked, by a key";
            let next = "pam-auth-update --enable portcullis, or put `account required pam_portcullis.so` above the \
                        other account lines";
            self.account.insert(name.to_owned(), false);
            return self.findings.push(Finding::of(Check::AccountMissing, what).on(name).next(next));
        };
        let seen = walk(stack, &role);
        let (skipped, vain) = (seen.lets_in.contains(&Passed::Not), seen.lets_in.contains(&Passed::Refused));
        self.account.insert(name.to_owned(), !skipped && !vain);
        if seen.gave_up {
            self.findings.push(auth::tangled(name));
        }
        if vain {
            let what =
                format!("`{}`: a locked account that our line refuses gets in all the same", ours.word);
            let next = "make it `account required pam_portcullis.so`";
            self.findings.push(Finding::of(Check::AccountNoEffect, what).on(name).at(&ours.place).next(next));
        }
        if skipped {
            let what = "the account stack can end well before our line is asked";
            let next = "move our account line above the others";
            self.findings.push(Finding::of(Check::AccountAround, what).on(name).at(&ours.place).next(next));
        }
        if !skipped && !vain {
            let what = "refuses a locked account";
            self.findings.push(Finding::ok(Check::AccountLine, what).on(name).at(&ours.place));
        }
    }

    fn password_of(&mut self, name: &str, stack: &[Handler]) {
        let ours = stack.iter().find(|handler| nature(handler) == Nature::Ours);
        let Some(ours) = ours else {
            let what = "no password line: the question for the current password is not counted; it is the user's own";
            let next =
                "to count it put `password requisite pam_portcullis.so` above pam_unix in common-password";
            return self.findings.push(Finding::of(Check::PasswordMissing, what).on(name).next(next));
        };
        let seen = walk(stack, &role);
        let secret = |at: usize| stack.get(at).is_some_and(|handler| role(handler) == Role::Secret);
        let open =
            [Passed::Not, Passed::Refused].iter().any(|passed| seen.of(*passed, &secret).next().is_some());
        let finding = if open {
            Finding::of(
                Check::PasswordOpen,
                "the current password is checked before our line, or after its refusal",
            )
            .next("put `password requisite pam_portcullis.so` above the modules that check it")
        } else {
            Finding::ok(Check::PasswordLine, "counts the question for the current password")
        };
        self.findings.push(finding.on(name).at(&ours.place));
    }

    /// What is about single lines, once for each line.
    fn lines(&mut self, services: &BTreeMap<&str, Stacks>, read: &dyn Fn(&str) -> Option<Vec<u8>>) {
        let mut found: BTreeMap<(Check, String), Finding> = BTreeMap::new();
        for (name, stacks) in services {
            for kind in [Kind::Auth, Kind::Account, Kind::Password] {
                for handler in stacks.stack(kind) {
                    for finding in about(kind, &handler, read) {
                        let key = (finding.check, handler.place.to_string());
                        let known = found.entry(key).or_insert_with(|| finding.at(&handler.place));
                        if known.services.last().map(String::as_str) != Some(*name) {
                            known.services.push((*name).to_owned());
                        }
                    }
                }
            }
        }
        self.findings.extend(found.into_values());
    }
}

/// Findings about one line, whatever service it is for.
fn about(kind: Kind, handler: &Handler, read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Vec<Finding> {
    let What::Module { path, words } = &handler.what else {
        return Vec::new();
    };
    let mut found = Vec::new();
    match nature(handler) {
        Nature::Counter if kind == Kind::Auth => {
            let what = format!("{} counts failures too: two counters, two rules", handler.module());
            let next =
                "take its lines out (pam-auth-update, or by hand) and leave the counting to one of them";
            found.push(Finding::of(Check::TwoCounters, what).next(next));
        }
        Nature::Ours => {
            let unknown = words::unknown(kind, words);
            if !unknown.is_empty() {
                let what =
                    format!("words that the line does not know and passes over: {}", unknown.join(" "));
                found.push(Finding::of(Check::LineWords, what).next("correct them; see docs/pam.md"));
            }
            if path.first() == Some(&b'/')
                && !std::str::from_utf8(path).is_ok_and(|path| read(path).is_some())
            {
                let what = format!("{} is no file that can be read", crate::text::escape(path));
                let next = "write pam_portcullis.so without a folder, or correct the path";
                found.push(Finding::of(Check::ModulePath, what).next(next));
            }
        }
        _ => {}
    }
    found
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
