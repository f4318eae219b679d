//! What the doctor says: one finding a fact, with its level, its place and the next step.
//!
//! Invariants: names of checks are never reused; docs/doctor.md lists every one of them.

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something is weaker than it looks.
    Warning,
    /// Something does not work, or stands open.
    Error,
}

/// Declares the checks with the level of a finding that is not good.
macro_rules! checks {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $level:ident;)*) => {
        /// What was looked at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Check {
            $($(#[doc = $doc])* #[serde(rename = $text)] $name,)*
        }

        impl Check {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Level of a finding that is not good.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }
        }
    };
}

checks! {
    /// `portcullis=off` on the kernel command line.
    KernelWord = "kernel-word", Error;
    /// bpffs is mounted.
    Bpffs = "bpffs", Error;
    /// Pins of another ABI version.
    OtherVersions = "other-versions", Error;
    /// Modes and owners of the pins and their folders.
    Pins = "pins", Error;
    /// The gate answers.
    Gate = "gate", Error;
    /// The exit program is attached.
    ExitProgram = "exit-program", Warning;
    /// The module's file.
    Module = "module", Error;
    /// The configuration.
    Configuration = "configuration", Error;
    /// What the configuration warns of.
    ConfigurationWarning = "configuration-warning", Warning;
    /// The break-glass account can log on.
    BreakGlass = "break-glass", Error;
    /// There is none, on purpose.
    BreakGlassNone = "break-glass-none", Warning;
    /// The agent answers.
    Agent = "agent", Warning;
    /// The agent's store.
    Store = "store", Error;
    /// The filter drops what it is told to.
    Filter = "filter", Error;
    /// It hangs on every interface that the configuration wants.
    FilterInterface = "filter-interface", Warning;
    /// Drops are kept over a reboot.
    FilterStore = "filter-store", Warning;
    /// Logon programs are observed.
    Observer = "observer", Warning;
    /// Locked-out users are kept from su, login and sudo, where they are to be.
    ObserverDenies = "observer-denies", Warning;
    /// Everything that the observer saw was told.
    ObserverLost = "observer-lost", Note;
    /// Our auth line guards what is behind it.
    AuthLine = "auth-line", Error;
    /// The service asks for no secret.
    AuthNoSecret = "auth-no-secret", Note;
    /// There is no auth line of ours.
    AuthMissing = "auth-missing", Error;
    /// A module that checks secrets stands above our line.
    AuthBelow = "auth-below", Error;
    /// A jump or an end of stack leads around our line.
    AuthAround = "auth-around", Error;
    /// A refused attempt goes on.
    AuthGoesOn = "auth-goes-on", Error;
    /// One attempt is charged twice.
    AuthTwice = "auth-twice", Warning;
    /// Whoever is admitted gets nowhere.
    AuthAdmitsNobody = "auth-admits-nobody", Error;
    /// A module that is not known is asked without our line.
    AuthUnknownModule = "auth-unknown-module", Note;
    /// The line prompts for a password that the modules behind do not want.
    AuthCharge = "auth-charge", Warning;
    /// The same with modules that take one, too.
    AuthChargeMixed = "auth-charge-mixed", Note;
    /// The line that has another factor asked for.
    FactorLine = "factor-line", Error;
    /// It is there for nothing.
    FactorUnused = "factor-unused", Warning;
    /// Words that the line does not understand.
    LineWords = "line-words", Warning;
    /// The path on a line leads to no file.
    ModulePath = "module-path", Error;
    /// The account line refuses locked accounts.
    AccountLine = "account-line", Warning;
    /// There is no account line of ours.
    AccountMissing = "account-missing", Warning;
    /// The account stack can end well without our line.
    AccountAround = "account-around", Warning;
    /// The account stack can end well although our line refused.
    AccountNoEffect = "account-no-effect", Error;
    /// The password line counts passwd's question.
    PasswordLine = "password-line", Warning;
    /// There is no password line of ours.
    PasswordMissing = "password-missing", Note;
    /// It is there and does not guard.
    PasswordOpen = "password-open", Warning;
    /// No service has a stack.
    StackNone = "stack-none", Error;
    /// libpam refuses the service.
    StackBroken = "stack-broken", Error;
    /// A line that libpam cannot use.
    StackFault = "stack-fault", Warning;
    /// Too many ways through the stack.
    StackTangled = "stack-tangled", Warning;
    /// A file that libpam never reads.
    StackNeverRead = "stack-never-read", Note;
    /// pam_faillock and the like count too.
    TwoCounters = "two-counters", Warning;
    /// What sshd asks for.
    SshdAsks = "sshd-asks", Note;
    /// sshd does without PAM.
    SshdUsePam = "sshd-use-pam", Error;
    /// Keys get locked accounts in.
    SshdKeys = "sshd-keys", Warning;
    /// Actors without address.
    SshdDns = "sshd-dns", Warning;
    /// sshd's configuration could not be read.
    SshdUnreadable = "sshd-unreadable", Warning;
    /// Parts of sshd's configuration are for some connections only.
    SshdMatch = "sshd-match", Note;
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it is.
    pub level: Level,
    /// Services it is about; empty: the host.
    pub services: Vec<String>,
    /// What was found.
    pub what: String,
    /// File and line, or path.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// What to do.
    pub next: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: Check, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, ..Self::of(check, what) }
    }

    /// It is not.
    pub fn of(check: Check, what: impl Into<String>) -> Self {
        let level = check.level();
        Self { check, level, services: Vec::new(), what: what.into(), place: None, next: None }
    }

    /// About this service.
    #[must_use]
    pub fn on(mut self, service: &str) -> Self {
        self.services.push(crate::text::escape(service.as_bytes()));
        self
    }

    /// There.
    #[must_use]
    pub fn at(mut self, place: impl ToString) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// The findings for people: what is wrong last, so that it is what stays on the screen.
#[must_use]
pub fn render(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.level);
    let column = |text: &dyn Fn(&Finding) -> String| {
        sorted.iter().map(|finding| text(finding).chars().count()).max().unwrap_or(0)
    };
    let services = |finding: &Finding| finding.services.join(", ");
    let check = column(&|finding| finding.check.name().to_owned());
    let on = column(&|finding| services(finding)).min(24);
    let mut text = String::new();
    for finding in &sorted {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        let place = finding.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let (name, on_text) = (finding.check.name(), services(finding));
        text.push_str(&format!("{level:<7}  {name:<check$}  {on_text:<on$}  {}{place}\n", finding.what));
        if let Some(next) = &finding.next {
            text.push_str(&format!("{:<7}  {:<check$}  → {next}\n", "", ""));
        }
    }
    let count = |level, one: &str, more: &str| {
        let count = sorted.iter().filter(|finding| finding.level == level).count();
        format!("{count} {}", if count == 1 { one } else { more })
    };
    text.push_str(&format!(
        "{}, {}, {}, {}\n",
        count(Level::Error, "error", "errors"),
        count(Level::Warning, "warning", "warnings"),
        count(Level::Note, "note", "notes"),
        count(Level::Ok, "ok", "ok")
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_last_with_its_advice() {
        let findings = [
            Finding::of(Check::AuthMissing, "no line").on("su").at("/etc/pam.d/su").next("add it"),
            Finding::ok(Check::Bpffs, "mounted"),
        ];
        let text = render(&findings);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ok       bpffs"), "{text}");
        assert!(lines[1].starts_with("ERROR    auth-missing  su  no line (/etc/pam.d/su)"), "{text}");
        assert!(lines[2].ends_with("→ add it"), "{text}");
        assert_eq!(lines[3], "1 error, 0 warnings, 0 notes, 1 ok");
    }

    #[test]
    fn every_check_is_in_the_documentation_with_its_level() {
        let page = include_str!("../../../docs/doctor.md");
        let mut rows = Vec::new();
        for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (name, rest) = row.split_once("` | ").unwrap();
            rows.push((name.to_owned(), rest.split(" |").next().unwrap().to_owned()));
        }
        let level = |check: &Check| format!("{:?}", check.level()).to_lowercase();
        let mut checks: Vec<_> =
            Check::ALL.iter().map(|check| (check.name().to_owned(), level(check))).collect();
        rows.sort();
        checks.sort();
        assert_eq!(rows, checks, "left: docs/doctor.md");
    }
}
