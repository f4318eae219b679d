//! Whether logon programs are observed.

use super::finding::{Check, Finding};
use super::host::one_line;
use crate::observer::ObserverView;

/// What is amiss with the observer.
pub(super) fn examine(view: &ObserverView) -> Vec<Finding> {
    if !view.enabled {
        return vec![Finding::ok(Check::Observer, "off, as configured: no program is observed")];
    }
    let present = view.watched.iter().filter(|one| one.present).count();
    let mut findings = vec![match &view.problem {
        Some(why) => Finding::of(Check::Observer, format!("no program is observed: {}", one_line(why)))
            .next("see docs/observer.md for what it needs, then restart portcullisd"),
        None if !view.loaded || present == 0 => {
            Finding::of(Check::Observer, "no program that is there is watched").next("correct observer.watch")
        }
        None => Finding::ok(Check::Observer, format!("works, programs watched: {present}")),
    }];
    if view.loaded {
        findings.push(denial(view));
    }
    if view.lost != 0 {
        findings.push(Finding::of(
            Check::ObserverLost,
            format!("starts and ends of programs that were not told: {}", view.lost),
        ));
    }
    findings
}

/// Whether locked-out users can start su, and how this kernel would keep them.
fn denial(view: &ObserverView) -> Finding {
    let means = one_line(&view.means.words());
    match &view.denies_not {
        Some(why) => Finding::of(
            Check::ObserverDenies,
            format!("no program is denied to locked-out users: {}", one_line(why)),
        )
        .next("correct it and restart portcullisd, or say observer.deny_exec = false"),
        None if view.denies => Finding::ok(
            Check::ObserverDenies,
            format!(
                "locked-out users may not start su, login or sudo: {means}, denied so far: {}",
                view.denied
            ),
        ),
        None => Finding::ok(
            Check::ObserverDenies,
            format!(
                "off, as configured: here locked-out users could be kept from su, login and sudo {means}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::WatchedView;
    use crate::observer::denial::{Means, Way};

    #[test]
    fn what_does_not_observe_is_found() {
        let good = ObserverView {
            enabled: true,
            loaded: true,
            watched: vec![WatchedView { path: "/bin/su".into(), present: true }],
            ..ObserverView::default()
        };
        let bad = |view: &ObserverView| examine(view).iter().filter(|one| one.next.is_some()).count();
        assert_eq!(bad(&good), 0);
        assert_eq!(bad(&ObserverView { problem: Some("no".into()), ..good.clone() }), 1);
        assert_eq!(bad(&ObserverView { watched: Vec::new(), ..good.clone() }), 1);
        assert_eq!(bad(&ObserverView { enabled: false, loaded: false, ..good.clone() }), 0);
        let not = ObserverView { denies_not: Some("no table".into()), ..good.clone() };
        assert_eq!(bad(&not), 1);
        let lsm = Means { way: Way::Lsm, why: None };
        let on = ObserverView { denies: true, means: lsm, ..good.clone() };
        assert!(examine(&on).iter().any(|one| one.what.contains("bprm_check_security")));
        assert_eq!(examine(&ObserverView { lost: 3, ..good }).len(), 3);
    }
}
