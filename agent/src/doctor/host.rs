//! The configuration, the break-glass account, the agent.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::finding::{Check, Finding};
use super::root::Root;
use super::users::Users;
use crate::api::drops::FilterView;
use crate::api::view::Status;
use crate::cli::client::Client;
use crate::config::{self, BreakGlass, Config, Host};

/// The configuration, and what it says about the break-glass account.
pub fn configuration(root: &Root) -> Vec<Finding> {
    let inside = root.path().join(config::PATH.trim_start_matches('/'));
    let users = Users::new(root.clone());
    let host = Host { directory: &users, root: root.path() };
    let loaded =
        if root.is_this() { config::load(Path::new(config::PATH)) } else { config::load_on(&inside, &host) };
    match loaded {
        Ok(loaded) => {
            let mut found = vec![Finding::ok(Check::Configuration, "good").at(config::PATH)];
            for warning in loaded.warnings {
                let next = "correct it, then `portcullis config check` and `portcullis reload`";
                found.push(Finding::of(Check::ConfigurationWarning, one_line(&warning)).next(next));
            }
            found.extend(break_glass(root, &loaded.config));
            found
        }
        Err(error) => {
            let next = "correct it, then `portcullis config check` and start or reload portcullisd";
            vec![Finding::of(Check::Configuration, one_line(&error)).at(config::PATH).next(next)]
        }
    }
}

pub(super) fn one_line(text: &impl ToString) -> String {
    text.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Whether the account can log on was checked with the configuration, but for what shadow(5) says about dates.
fn break_glass(root: &Root, config: &Config) -> Vec<Finding> {
    if config.break_glass == BreakGlass::Refused {
        let what = "there is no break-glass account (break_glass = false): everybody can be locked out";
        let next = "name an account that is never locked, unless this is what you want";
        return vec![Finding::of(Check::BreakGlassNone, what).at(config::PATH).next(next)];
    }
    let text = root.text("/etc/shadow").unwrap_or_default();
    config.break_glass.names().iter().map(|name| can_log_on(name, &text)).collect()
}

fn can_log_on(name: &str, text: &str) -> Finding {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let today = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs() / 86_400);
    let trouble = line.zip(today.ok()).and_then(|(line, today)| expired(name, line, today));
    match trouble {
        Some((what, next)) => Finding::of(Check::BreakGlass, what).at("/etc/shadow").next(next),
        None => Finding::ok(Check::BreakGlass, format!("{name} can log on")),
    }
}

/// What the dates of a line of shadow(5), behind its name, say on this day.
fn expired(name: &str, line: &str, today: u64) -> Option<(String, String)> {
    let fields: Vec<&str> = line.split(':').collect();
    let day = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    if day(6).is_some_and(|expires| expires <= today) {
        let next = format!("chage -E -1 {name}");
        return Some((format!("the break-glass account {name} has expired"), next));
    }
    let (changed, longest) = (day(1)?, day(3)?);
    let (what, next) = if changed == 0 || changed.saturating_add(longest) < today {
        (format!("the password of the break-glass account {name} has expired"), format!("passwd {name}"))
    } else {
        return None;
    };
    Some((what, next))
}

/// Whether the agent answers, and how its store is.
pub async fn agent(client: &Client) -> Vec<Finding> {
    let status = match client.get::<Status>("/v1/status").await {
        Ok(status) => status,
        Err(error) => {
            let what = format!("{}: locks hold, but nothing is recorded or shadow-locked", one_line(&error));
            return vec![Finding::of(Check::Agent, what).next("systemctl start portcullisd")];
        }
    };
    let pid = status.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let store = match &status.store_degraded {
        None => Finding::ok(Check::Store, "in order"),
        Some(why) => Finding::of(Check::Store, format!("in memory only: {}", one_line(why)))
            .next("repair it as docs/failure-modes.md says, then restart portcullisd"),
    };
    let mut findings = vec![Finding::ok(Check::Agent, format!("answers{pid}")), store];
    findings.extend(status.filter.iter().flat_map(filter));
    findings.extend(status.observer.iter().flat_map(super::observer::examine));
    findings
}

/// How the filter is, where the configuration has it.
fn filter(view: &FilterView) -> Vec<Finding> {
    if !view.enabled {
        return vec![Finding::ok(Check::Filter, "off, as configured: no packet is dropped")];
    }
    let mut findings = Vec::new();
    findings.push(match &view.problem {
        None => Finding::ok(Check::Filter, format!("works, networks dropped: {}", view.drops)),
        Some(why) => Finding::of(Check::Filter, format!("nothing is dropped: {}", one_line(why)))
            .next("see docs/filter.md for what it needs, then restart portcullisd"),
    });
    for place in &view.interfaces {
        let hook = place.hook.as_deref().unwrap_or("not filtered");
        findings.push(match &place.problem {
            None => Finding::ok(Check::FilterInterface, hook).at(&place.name),
            Some(why) => Finding::of(Check::FilterInterface, format!("{hook}: {}", one_line(why)))
                .at(&place.name)
                .next("see docs/filter.md, or leave it out of filter.xdp or filter.interfaces"),
        });
    }
    for name in &view.absent {
        findings.push(
            Finding::of(Check::FilterInterface, "not there: it is filtered as soon as it comes")
                .at(name)
                .next("correct its name in [filter], if it is another"),
        );
    }
    if let Some(why) = &view.store_problem {
        findings.push(
            Finding::of(Check::FilterStore, format!("drops end with the next reboot: {}", one_line(why)))
                .next("repair the store as docs/failure-modes.md says, then restart portcullisd"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::drops::PlaceView;

    #[test]
    fn the_filters_faults_are_found() {
        let place = |name: &str, problem: Option<&str>| PlaceView {
            name: name.to_owned(),
            hook: problem.is_none().then(|| "tcx".to_owned()),
            problem: problem.map(str::to_owned),
        };
        let mut view = FilterView { enabled: true, ..FilterView::default() };
        view.interfaces = vec![place("eth0", None), place("ib0", Some("not filtered: odd"))];
        view.absent = vec!["eth9".to_owned()];
        view.problem = Some("the verifier\nsays no".to_owned());
        view.store_problem = Some("read-only".to_owned());
        let bad: Vec<Check> =
            filter(&view).iter().filter(|found| found.next.is_some()).map(|found| found.check).collect();
        let place = Check::FilterInterface;
        assert_eq!(bad, [Check::Filter, place, place, Check::FilterStore]);
        assert!(filter(&FilterView::default()).iter().all(|found| found.next.is_none()));
    }

    #[test]
    fn dates_of_shadow_are_told() {
        let wrong = |line| expired("admin", line, 20_000).map(|(what, _)| what);
        assert_eq!(wrong("$y$x:19900:0:99999:7:::"), None);
        assert_eq!(wrong("$y$x:19900:0:100:7:::"), None, "the last day");
        assert!(wrong("$y$x:19899:0:100:7:::").unwrap().contains("password"));
        assert!(
            wrong("$y$x:0:0:99999:7:::").unwrap().contains("password"),
            "to be changed at the next logon"
        );
        assert!(wrong("$y$x:19900:0:99999:7::20000:").unwrap().contains("admin has expired"));
        assert_eq!(wrong("$y$x:19900:0:99999:7::20001:"), None);
        assert_eq!(wrong("$y$x::::::"), None);
        assert_eq!(wrong(""), None);
    }
}
