//! What sshd asks for, by its own `sshd -T`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::finding::{Check, Finding};
use super::root::Root;

/// Where sshd is.
const PROGRAM: &str = "/usr/sbin/sshd";
const CONFIG: &str = "/etc/ssh/sshd_config";
const PARTS: &str = "/etc/ssh/sshd_config.d";

/// `sshd -T`: a keyword and its value a line; keywords are lower case, the first value counts.
fn settings(text: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        found.entry(key).or_insert_with(|| value.trim());
    }
    found
}

/// Asks sshd, where there is one. `account`: whether its account line refuses locked accounts.
pub fn examine(root: &Root, account: Option<bool>) -> Vec<Finding> {
    if root.metadata(PROGRAM).is_err() {
        return Vec::new();
    }
    if !root.is_this() {
        // sshd itself cannot be asked in another root; keys are on unless somebody turns them off.
        let what =
            "sshd is not asked below --root; unless its configuration says otherwise it takes public keys";
        return if account == Some(false) { vec![keys(what)] } else { Vec::new() };
    }
    let output = Command::new(PROGRAM).arg("-T").env_clear().stdin(Stdio::null()).output();
    let unreadable = |why: String| {
        let what = format!("sshd does not tell its configuration: {why}");
        let next = "run `sshd -t` and correct what it says, then run doctor again";
        vec![Finding::of(Check::SshdUnreadable, what).at(CONFIG).next(next)]
    };
    let mut found = match output {
        Ok(output) if output.status.success() => {
            judge(&settings(&String::from_utf8_lossy(&output.stdout)), account)
        }
        Ok(output) => {
            let last = output.stderr.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
            unreadable(crate::text::escape(last.unwrap_or(b"it says nothing")))
        }
        Err(error) => unreadable(error.to_string()),
    };
    found.extend(matches(root));
    found
}

fn keys(what: &str) -> Finding {
    let next = "put `account required pam_portcullis.so` into the account stack of sshd (pam-auth-update --enable \
                portcullis), or set PubkeyAuthentication no";
    Finding::of(
        Check::SshdKeys,
        format!("{what}, and the account line that refuses locked accounts does not stand"),
    )
    .on("sshd")
    .next(next)
}

fn judge(settings: &BTreeMap<&str, &str>, account: Option<bool>) -> Vec<Finding> {
    let is =
        |key: &str, value: &str| settings.get(key).is_some_and(|found| found.eq_ignore_ascii_case(value));
    let shown = |key: &str| crate::text::escape(settings.get(key).copied().unwrap_or("?").as_bytes());
    let mut found = Vec::new();
    if is("usepam", "no") {
        let what = "UsePAM no: sshd checks passwords itself, our line is never asked";
        found.push(
            Finding::of(Check::SshdUsePam, what).on("sshd").at(CONFIG).next("set UsePAM yes, reload sshd"),
        );
    }
    if is("pubkeyauthentication", "yes") && account == Some(false) {
        found.push(keys("sshd takes public keys"));
    }
    if is("usedns", "yes") {
        let what = "UseDNS yes: PAM is told a name for the client, which stays an unknown actor";
        found
            .push(Finding::of(Check::SshdDns, what).on("sshd").at(CONFIG).next("set UseDNS no, reload sshd"));
    }
    let asks = format!(
        "UsePAM {}, PasswordAuthentication {}, KbdInteractiveAuthentication {}, PubkeyAuthentication {}, \
         AuthenticationMethods {}, UseDNS {}",
        shown("usepam"),
        shown("passwordauthentication"),
        shown("kbdinteractiveauthentication"),
        shown("pubkeyauthentication"),
        shown("authenticationmethods"),
        shown("usedns")
    );
    found.push(Finding::ok(Check::SshdAsks, asks).on("sshd"));
    found
}

/// Blocks that hold for some connections only: `sshd -T` shows what holds for the rest.
fn matches(root: &Root) -> Option<Finding> {
    let parts = root.list(PARTS).into_iter().filter(|name| name.ends_with(".conf"));
    let files = std::iter::once(CONFIG.to_owned()).chain(parts.map(|name| format!("{PARTS}/{name}")));
    for file in files {
        let text = root.text(&file).unwrap_or_default();
        let number = text.lines().position(|line| {
            let word = line.split([' ', '\t', '=']).find(|word| !word.is_empty());
            word.is_some_and(|word| word.eq_ignore_ascii_case("match"))
        });
        if let Some(number) = number {
            let what = "a `Match` block: what sshd asks for is other for some connections";
            let next = "look at them with `sshd -T -C user=NAME,addr=ADDRESS,host=NAME`";
            let place = format!("{file}:{}", number + 1);
            return Some(Finding::of(Check::SshdMatch, what).on("sshd").at(place).next(next));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "port 22\nusepam yes\npasswordauthentication yes\nkbdinteractiveauthentication no\n\
                        pubkeyauthentication yes\nusedns no\nauthenticationmethods any\n";

    fn checks(text: &str, account: Option<bool>) -> Vec<&'static str> {
        judge(&settings(text), account).iter().map(|finding| finding.check.name()).collect()
    }

    #[test]
    fn what_sshd_tells_is_judged() {
        assert_eq!(checks(GOOD, Some(true)), ["sshd-asks"]);
        assert_eq!(checks(GOOD, Some(false)), ["sshd-keys", "sshd-asks"]);
        assert_eq!(
            checks(&GOOD.replace("usepam yes", "usepam no"), Some(true)),
            ["sshd-use-pam", "sshd-asks"]
        );
        assert_eq!(checks(&GOOD.replace("usedns no", "usedns yes"), None), ["sshd-dns", "sshd-asks"]);
        let without_keys = GOOD.replace("pubkeyauthentication yes", "pubkeyauthentication no");
        assert_eq!(checks(&without_keys, Some(false)), ["sshd-asks"]);
        let text = &judge(&settings(GOOD), None)[0].what;
        assert!(text.contains("KbdInteractiveAuthentication no, PubkeyAuthentication yes"), "{text}");
    }

    #[test]
    fn match_blocks_are_found_in_all_files() {
        let folder = tempfile::tempdir().unwrap();
        let parts = folder.path().join("etc/ssh/sshd_config.d");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(folder.path().join("etc/ssh/sshd_config"), "#Match all\nPort 22\n").unwrap();
        let root = Root::new(folder.path());
        assert_eq!(matches(&root), None);
        std::fs::write(parts.join("a.conf"), "Port 22\n  match User jon\n").unwrap();
        assert_eq!(matches(&root).unwrap().place.unwrap(), "/etc/ssh/sshd_config.d/a.conf:2");
    }
}
