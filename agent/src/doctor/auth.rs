//! Judges one auth stack: whether a secret can be checked that our line has not admitted.

use super::factor;
use super::finding::{Check, Finding};
use super::pam::load::{Handler, What};
use super::pam::modules::{Nature, nature};
use super::pam::walk::{Passed, Role, Seen, walk};
use super::services::role;
use super::words;

const ADD: &str = "pam-auth-update --enable portcullis, or put `auth requisite pam_portcullis.so` above it";

/// There are too many ways through this stack.
pub(super) fn tangled(service: &str) -> Finding {
    let what = "too many ways lead through this stack to look at all of them";
    Finding::of(Check::StackTangled, what)
        .on(service)
        .next("make the stack simpler: fewer jumps and substacks")
}

/// A stack and what the walk through it has shown.
struct Case<'a> {
    service: &'a str,
    stack: &'a [Handler],
    seen: &'a Seen,
}

/// Judges the auth stack of a service.
pub fn judge(service: &str, stack: &[Handler], findings: &mut Vec<Finding>) {
    let seen = walk(stack, &role);
    let case = Case { service, stack, seen: &seen };
    let before = findings.len();
    if seen.gave_up {
        findings.push(tangled(service));
    }
    findings.extend(case.open());
    findings.extend(case.goes_on());
    findings.extend(case.twice());
    findings.extend(case.admits_nobody());
    if findings.len() == before {
        findings.push(case.good());
    }
    findings.extend(case.charge());
    findings.extend(case.ours().and_then(|ours| factor::judge(service, stack, ours)));
    findings.extend(case.unknown());
}

impl Case<'_> {
    fn entry(&self, at: usize) -> Option<&Handler> {
        self.stack.get(at)
    }

    fn is(&self, wanted: Role) -> impl Fn(usize) -> bool {
        move |at| self.entry(at).is_some_and(|handler| role(handler) == wanted)
    }

    fn ours(&self) -> Option<&Handler> {
        self.stack.iter().find(|handler| nature(handler) == Nature::Ours)
    }

    /// Secrets that are checked in that state, with the entry that led around our line.
    fn secrets(&self, passed: Passed) -> Vec<(&Handler, Option<usize>)> {
        let secret = self.is(Role::Secret);
        let found = self.seen.of(passed, &secret);
        found.filter_map(|(at, around)| Some((self.entry(at)?, around))).collect()
    }

    fn finding(&self, check: Check, what: String) -> Finding {
        Finding::of(check, what).on(self.service)
    }

    /// A secret is checked without our line.
    fn open(&self) -> Vec<Finding> {
        let open = self.secrets(Passed::Not);
        let Some(ours) = self.ours() else {
            let missing = open.first().map(|(secret, _)| {
                let what = format!("no auth line: {} is asked, nothing is counted or refused", names(&open));
                self.finding(Check::AuthMissing, what).at(&secret.place).next(ADD)
            });
            return missing.into_iter().collect();
        };
        let (around, above): (Vec<_>, Vec<_>) = open.into_iter().partition(|(_, around)| around.is_some());
        let mut found = Vec::new();
        if let Some((secret, _)) = above.first() {
            let what = format!("{} ({}) is asked before our line", names(&above), secret.place);
            let next = "move our line above it: what stands above is not counted";
            found.push(self.finding(Check::AuthBelow, what).at(&ours.place).next(next));
        }
        if let Some((leader, at)) = around.first().and_then(|(_, at)| Some((self.entry((*at)?)?, (*at)?))) {
            debug_assert!(at < self.stack.len());
            let what = format!(
                "`{} {}` can lead around our line ({}) to {}",
                leader.word,
                leader.module(),
                ours.place,
                names(&around)
            );
            let next = "put our line above this one, or make it jump no further than our line";
            found.push(self.finding(Check::AuthAround, what).at(&leader.place).next(next));
        }
        found
    }

    /// A secret is checked although our line has refused.
    fn goes_on(&self) -> Option<Finding> {
        let after = self.secrets(Passed::Refused);
        let (secret, _) = after.first()?;
        let ours = self.ours()?;
        let what = format!(
            "`{}`: after a refusal {} ({}) is asked all the same",
            ours.word,
            names(&after),
            secret.place
        );
        let next = if ours.level > secret.level {
            "a substack ends alone: put `auth requisite pam_portcullis.so` into the outer stack, above it"
        } else {
            "make it `auth requisite pam_portcullis.so`"
        };
        Some(self.finding(Check::AuthGoesOn, what).at(&ours.place).next(next))
    }

    fn twice(&self) -> Option<Finding> {
        let second = self.entry(*self.seen.twice.first()?)?;
        let what = "our line is asked twice in one attempt, which is charged twice".to_owned();
        Some(self.finding(Check::AuthTwice, what).at(&second.place).next("take one of the two lines out"))
    }

    fn admits_nobody(&self) -> Option<Finding> {
        let ours = self.ours()?;
        let asked = [Passed::Not, Passed::Admitted, Passed::Refused].map(|passed| self.secrets(passed));
        let some = self.stack.iter().any(|handler| role(handler) == Role::Secret);
        if !some || asked.iter().any(|found| !found.is_empty()) || self.seen.gave_up {
            return None;
        }
        let what = format!("`{}`: who is admitted reaches no module that checks a secret", ours.word);
        let next = "make it `auth requisite pam_portcullis.so`: an admitted attempt returns PAM_IGNORE";
        Some(self.finding(Check::AuthAdmitsNobody, what).at(&ours.place).next(next))
    }

    fn good(&self) -> Finding {
        let behind = self.secrets(Passed::Admitted);
        let Some(ours) = self.ours() else {
            return Finding::ok(Check::AuthNoSecret, "asks for no secret").on(self.service);
        };
        let what = if behind.is_empty() {
            "nothing that is known to check secrets is behind it".to_owned()
        } else {
            format!("stands above {}", names(&behind))
        };
        let words = match &ours.what {
            What::Module { words, .. } if !words.is_empty() => {
                let words: Vec<String> = words.iter().map(|word| crate::text::escape(word)).collect();
                format!("; {}", words.join(" "))
            }
            _ => String::new(),
        };
        Finding::ok(Check::AuthLine, what + &words).on(self.service).at(&ours.place)
    }

    /// Our line asks for a password in a stack whose modules ask for something else.
    fn charge(&self) -> Vec<Finding> {
        let Some(ours) = self.ours().filter(|ours| words::prompts(&ours.what) && !factor::offered(ours))
        else {
            return Vec::new();
        };
        let behind = self.secrets(Passed::Admitted);
        let mut found = Vec::new();
        for (wanted, check, why) in [
            (Nature::Asks, Check::AuthCharge, "wants something else than the password our line asks for"),
            (Nature::Mixed, Check::AuthChargeMixed, "takes our line's password and asks for nothing more"),
        ] {
            let of: Vec<_> =
                behind.iter().copied().filter(|(handler, _)| nature(handler) == wanted).collect();
            if !of.is_empty() {
                let what = format!("charge=submit: {} {why}", names(&of));
                let next = "add charge=conversation to our line if it asks for more than the password";
                found.push(self.finding(check, what).at(&ours.place).next(next));
            }
        }
        found
    }

    fn unknown(&self) -> Option<Finding> {
        let unknown = |at: usize| self.entry(at).is_some_and(|handler| nature(handler) == Nature::Unknown);
        let found: Vec<_> = self.seen.of(Passed::Not, &unknown).collect();
        let modules: Vec<_> =
            found.iter().filter_map(|(at, around)| Some((self.entry(*at)?, *around))).collect();
        let (first, _) = modules.first()?;
        let what = format!("{} is not known here and is asked without our line", names(&modules));
        let next = "if it checks passwords or codes, our line belongs above it";
        Some(self.finding(Check::AuthUnknownModule, what).at(&first.place).next(next))
    }
}

/// The modules' names, each once.
fn names(handlers: &[(&Handler, Option<usize>)]) -> String {
    let mut names: Vec<String> = Vec::new();
    for (handler, _) in handlers {
        let name = handler.module();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
