//! One step of libpam through a stack: a module's return code, and where that leads.
//!
//! Invariant: every step goes forward, so every walk ends.

use super::control::{Action, IGNORE, NEW_AUTHTOK_REQD, PERM_DENIED, SUCCESS};
use super::load::{Handler, What};

/// Substacks in substacks.
const LEVELS: usize = 18;

/// What libpam thinks of the stack so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Impression {
    /// Nothing yet.
    #[default]
    None,
    /// Good.
    Good,
    /// Good, with a code that nothing good changes any more.
    Fixed(usize),
    /// Bad.
    Bad,
}

impl Impression {
    /// Whether a stack that ends so lets the user on: with success, or with the order to renew the password.
    #[must_use]
    pub const fn lets_in(self) -> bool {
        matches!(self, Self::Good | Self::Fixed(NEW_AUTHTOK_REQD))
    }
}

/// A place on a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The entry that is next; the length of the stack: the end.
    pub at: usize,
    /// What libpam thinks.
    pub impression: Impression,
    /// Level of the entry before.
    level: usize,
    /// What it thought where each substack was entered.
    saved: [Impression; LEVELS],
}

fn level(stack: &[Handler], at: usize) -> Option<usize> {
    stack.get(at).map(|handler| handler.level)
}

/// After the last entry of the stack that `at` is in.
fn after_stack(stack: &[Handler], mut at: usize, inside: usize) -> usize {
    at += 1;
    while level(stack, at).is_some_and(|level| level >= inside) {
        at += 1;
    }
    at
}

/// Skips `count` entries of this stack, a substack with all that is in it being one. None: there are fewer.
fn jump(stack: &[Handler], mut at: usize, inside: usize, count: u32) -> (usize, bool) {
    at += 1;
    for _ in 0..count {
        if level(stack, at).is_none_or(|level| level < inside) {
            return (at, false);
        }
        at += 1;
        while level(stack, at).is_some_and(|level| level > inside) {
            at += 1;
        }
    }
    (at, true)
}

/// Goes on from `state`, whose module has returned `code`; at the end it stays.
#[must_use]
pub fn step(stack: &[Handler], state: &State, code: usize) -> State {
    let Some(handler) = stack.get(state.at) else {
        return *state;
    };
    let inside = handler.level;
    let mut next = *state;
    next.at += 1;
    next.level = inside;
    if state.level < inside
        && let Some(saved) = next.saved.get_mut(inside)
    {
        *saved = state.impression;
    }
    let code = match handler.what {
        What::Substack => return forget(next),
        What::MustFail => PERM_DENIED,
        What::Module { .. } => code,
    };
    match handler.control.action(code) {
        Action::Ignore => {}
        Action::Reset => next.impression = next.saved.get(inside).copied().unwrap_or_default(),
        action @ (Action::Ok | Action::Done) => {
            if matches!(state.impression, Impression::None | Impression::Good) {
                next.impression = if code == SUCCESS { Impression::Good } else { Impression::Fixed(code) };
            }
            if action == Action::Done && next.impression != Impression::Bad {
                next.at = after_stack(stack, state.at, inside);
            }
        }
        action @ (Action::Bad | Action::Die) => {
            next.impression = Impression::Bad;
            if action == Action::Die {
                next.at = after_stack(stack, state.at, inside);
            }
        }
        Action::Jump(count) => {
            let (at, far_enough) = jump(stack, state.at, inside, count);
            next.at = at;
            if !far_enough {
                next.impression = Impression::Bad;
            }
        }
    }
    forget(next)
}

/// What is saved for substacks deeper than the last entry is never looked at again: states that differ in it are one.
fn forget(mut state: State) -> State {
    for saved in state.saved.iter_mut().skip(state.level + 1) {
        *saved = Impression::None;
    }
    // PAM_IGNORE as the code of a good stack is no success either; one code stands for all that are none.
    if let Impression::Fixed(code) = state.impression
        && code != NEW_AUTHTOK_REQD
    {
        state.impression = Impression::Fixed(IGNORE);
    }
    state
}
