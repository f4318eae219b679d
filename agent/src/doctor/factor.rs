//! Judges the line that has another factor asked for: whether it can be jumped over when the factor is due.

use super::finding::{Check, Finding};
use super::pam::control::{Action, CODES, CRED_UNAVAIL, IGNORE, SUCCESS};
use super::pam::load::{Handler, What};
use super::pam::modules::{Nature, nature};

/// The line as it should be.
const LINE: &str =
    "auth [cred_unavail=1 ignore=ignore default=die] pam_portcullis.so factor, above the module that asks";

/// Whether our line promises such a line.
pub(super) fn offered(ours: &Handler) -> bool {
    matches!(&ours.what, What::Module { words, .. } if words.iter().any(|word| word == b"offers_factor"))
}

/// Judges an auth stack whose first line is `ours`.
pub(super) fn judge(service: &str, stack: &[Handler], ours: &Handler) -> Option<Finding> {
    let at = stack.iter().position(|handler| nature(handler) == Nature::Factor);
    let line = at.and_then(|at| stack.get(at));
    let finding = |check, what: String, place: &Handler, next: String| {
        Some(Finding::of(check, what).on(service).at(&place.place).next(next))
    };
    let Some(line) = line else {
        let what = "offers_factor, and no line asks for another factor: a locked account is open to the password alone";
        let next = format!("add `{LINE}`, or take the word out");
        return if offered(ours) { finding(Check::FactorLine, what.to_owned(), ours, next) } else { None };
    };
    if !offered(ours) {
        let what = "no other factor is ever asked for: our first line does not say offers_factor".to_owned();
        return finding(Check::FactorUnused, what, ours, "add offers_factor to it".to_owned());
    }
    // Whatever but a jump at PAM_CRED_UNAVAIL would leave the factor out, or end the stack well without it.
    let over = |code: usize| match line.control.action(code) {
        Action::Jump(_) | Action::Done | Action::Ok | Action::Reset => {
            code != CRED_UNAVAIL && code != SUCCESS
        }
        Action::Ignore => !matches!(code, IGNORE | CRED_UNAVAIL | SUCCESS),
        Action::Bad | Action::Die => code == IGNORE,
    };
    if let Some(code) = (0..CODES.len()).find(|code| over(*code)) {
        let name = CODES.get(code).copied().unwrap_or_default();
        let what = format!("`{}`: at {name} the factor is left out, or its refusal is", line.word);
        return finding(Check::FactorLine, what, line, format!("make it `{LINE}`"));
    }
    let jump = line.control.action(CRED_UNAVAIL);
    let behind = at.and_then(|at| stack.get(at + 1)).map_or(Nature::Harmless, nature);
    if !matches!(jump, Action::Jump(_)) || !matches!(behind, Nature::Asks | Nature::Mixed | Nature::Unknown) {
        let what =
            format!("`{}`: no module that asks for a factor is what cred_unavail jumps over", line.word);
        return finding(Check::FactorLine, what, line, format!("make it `{LINE}`"));
    }
    let what = "another factor is asked for where the gate says so".to_owned();
    Some(Finding::ok(Check::FactorLine, what).on(service).at(&line.place))
}
