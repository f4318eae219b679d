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
    if view.lost != 0 {
        findings.push(Finding::of(
            Check::ObserverLost,
            format!("starts and ends of programs that were not told: {}", view.lost),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::WatchedView;

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
        assert_eq!(examine(&ObserverView { lost: 3, ..good }).len(), 2);
    }
}
