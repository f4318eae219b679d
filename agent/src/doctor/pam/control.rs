//! The control field of a line: which return code does what.
//!
//! Invariant: every field gives an action for every code; what libpam does not understand is `bad` for all of them.

/// Return codes of PAM by number, as control fields name them.
pub const CODES: [&str; 32] = [
    "success",
    "open_err",
    "symbol_err",
    "service_err",
    "system_err",
    "buf_err",
    "perm_denied",
    "auth_err",
    "cred_insufficient",
    "authinfo_unavail",
    "user_unknown",
    "maxtries",
    "new_authtok_reqd",
    "acct_expired",
    "session_err",
    "cred_unavail",
    "cred_expired",
    "cred_err",
    "no_module_data",
    "conv_err",
    "authtok_err",
    "authtok_recover_err",
    "authtok_lock_busy",
    "authtok_disable_aging",
    "try_again",
    "ignore",
    "abort",
    "authtok_expired",
    "module_unknown",
    "bad_item",
    "conv_again",
    "incomplete",
];
/// PAM_SUCCESS.
pub const SUCCESS: usize = 0;
/// PAM_PERM_DENIED.
pub const PERM_DENIED: usize = 6;
/// PAM_AUTH_ERR.
pub const AUTH_ERR: usize = 7;
/// PAM_NEW_AUTHTOK_REQD.
pub const NEW_AUTHTOK_REQD: usize = 12;
/// PAM_CRED_UNAVAIL.
pub const CRED_UNAVAIL: usize = 15;
/// PAM_AUTHTOK_ERR.
pub const AUTHTOK_ERR: usize = 20;
/// PAM_IGNORE.
pub const IGNORE: usize = 25;
/// PAM_INCOMPLETE.
pub const INCOMPLETE: usize = 31;

/// What libpam does with a module's return code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on as if the module were not there.
    Ignore,
    /// Good, if nothing was bad.
    Ok,
    /// Good, and the stack ends.
    Done,
    /// Bad.
    Bad,
    /// Bad, and the stack ends.
    Die,
    /// Forgets what the stack thought so far.
    Reset,
    /// Skips so many modules.
    Jump(u32),
}

const ACTIONS: [(&[u8], Action); 6] = [
    (b"ignore", Action::Ignore),
    (b"ok", Action::Ok),
    (b"done", Action::Done),
    (b"bad", Action::Bad),
    (b"die", Action::Die),
    (b"reset", Action::Reset),
];

/// An action for each code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    actions: [Action; CODES.len()],
}

/// What stands in a control field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A module follows. False: the field was not understood.
    Module(Box<Control>, bool),
    /// A file follows.
    Include,
    /// A file follows whose end of stack is its own.
    Substack,
}

impl Control {
    /// Everything is bad: what libpam makes of a line that it cannot use.
    pub const BAD: Self = Self { actions: [Action::Bad; CODES.len()] };

    /// Success and a password to be renewed do `good`, PAM_IGNORE does `ignore`, the rest `other`.
    fn of(good: Action, ignore: Action, other: Action) -> Self {
        let mut actions = [other; CODES.len()];
        for (code, action) in actions.iter_mut().enumerate() {
            match code {
                SUCCESS | NEW_AUTHTOK_REQD => *action = good,
                IGNORE => *action = ignore,
                _ => {}
            }
        }
        Self { actions }
    }

    /// What this code does.
    #[must_use]
    pub fn action(&self, code: usize) -> Action {
        self.actions.get(code).copied().unwrap_or(Action::Bad)
    }
}

/// Reads a control field.
#[must_use]
pub fn field(word: &[u8]) -> Field {
    use Action::{Bad, Die, Done, Ignore, Ok};
    let known = |control| Field::Module(Box::new(control), true);
    match word.to_ascii_lowercase().as_slice() {
        b"required" => known(Control::of(Ok, Ignore, Bad)),
        b"requisite" => known(Control::of(Ok, Ignore, Die)),
        b"optional" => known(Control::of(Ok, Ignore, Ignore)),
        b"sufficient" => known(Control::of(Done, Ignore, Ignore)),
        b"include" => Field::Include,
        b"substack" => Field::Substack,
        _ => match pairs(word) {
            Some(control) => known(control),
            None => Field::Module(Box::new(Control::BAD), false),
        },
    }
}

/// isspace(3) in the C locale.
const fn space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn skip(mut text: &[u8]) -> &[u8] {
    while let Some((first, rest)) = text.split_first().filter(|(first, _)| space(**first)) {
        debug_assert!(space(*first));
        text = rest;
    }
    text
}

/// `code=action …`; None: a syntax error.
fn pairs(word: &[u8]) -> Option<Control> {
    let mut actions = [None; CODES.len()];
    let mut text = skip(word);
    while !text.is_empty() {
        // The first name that the text begins with, in libpam's order; `default` is the last.
        let code = CODES.iter().position(|name| text.starts_with(name.as_bytes()));
        let name = code.and_then(|code| CODES.get(code)).unwrap_or(&"default");
        text = skip(skip(text.strip_prefix(name.as_bytes())?).strip_prefix(b"=")?);
        let known = ACTIONS.iter().find(|(name, _)| text.starts_with(name));
        let action = if let Some((name, action)) = known {
            text = text.get(name.len()..)?;
            *action
        } else {
            let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, rest) = text.split_at_checked(digits)?;
            text = rest;
            let number = number.iter().fold(0_u32, |sum, digit| {
                sum.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
            });
            (number > 0).then_some(Action::Jump(number))?
        };
        match code {
            Some(code) => *actions.get_mut(code)? = Some(action),
            None => {
                for unset in actions.iter_mut().filter(|action| action.is_none()) {
                    *unset = Some(action);
                }
            }
        }
        text = skip(text);
    }
    Some(Control { actions: actions.map(|action| action.unwrap_or(Action::Bad)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &str) -> Control {
        match field(text.as_bytes()) {
            Field::Module(control, true) => *control,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_short_words_are_what_the_manual_says() {
        for (word, long) in [
            ("required", "success=ok new_authtok_reqd=ok ignore=ignore default=bad"),
            ("REQUISITE", "success=ok new_authtok_reqd=ok ignore=ignore default=die"),
            ("sufficient", "success=done new_authtok_reqd=done default=ignore"),
            ("optional", "success=ok new_authtok_reqd=ok default=ignore"),
        ] {
            assert_eq!(control(word), control(long), "{word}");
        }
        assert_eq!(field(b"Include"), Field::Include);
        assert_eq!(field(b"substack"), Field::Substack);
    }

    #[test]
    fn pairs_are_read_as_libpam_reads_them() {
        let found = control("success=2 default=die auth_err = 12");
        assert_eq!(found.action(SUCCESS), Action::Jump(2));
        assert_eq!(found.action(AUTH_ERR), Action::Jump(12));
        assert_eq!(found.action(IGNORE), Action::Die);
        assert_eq!(control("default=ignore success=done").action(SUCCESS), Action::Done);
        assert_eq!(control("success=ok").action(IGNORE), Action::Bad, "what is not named is bad");
        assert_eq!(control("success=99999999999").action(SUCCESS), Action::Jump(u32::MAX));
        for broken in
            ["success", "success=", "success=0", "success=maybe", "nonsense=ok", "Success=ok", "=ok"]
        {
            assert_eq!(field(broken.as_bytes()), Field::Module(Box::new(Control::BAD), false), "{broken}");
        }
    }
}
