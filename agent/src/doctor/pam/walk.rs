//! Every way through a stack: which modules are reached, and whether our line was passed before.
//!
//! Invariants: a module is taken to return whatever it might, so a way that exists is never missed; one that is shown may
//! need an answer that the module gives on no real host. The search is bounded and says when it gave up.

use std::collections::{BTreeMap, HashMap};

use super::control::{AUTH_ERR, AUTHTOK_ERR, CODES, IGNORE, INCOMPLETE, NEW_AUTHTOK_REQD, SUCCESS};
use super::load::{Handler, What};
use super::step::{State, step};

/// States looked at; ordinary stacks have some hundred.
const MAX_STATES: usize = 20_000;

/// What a module means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// pam_portcullis.
    Ours,
    /// It looks at a password, a code, a key, a finger.
    Secret,
    /// pam_permit.
    Permit,
    /// pam_deny.
    Deny,
    /// Anything else.
    Other,
}

impl Role {
    /// Whether a module of this role can return that code.
    const fn returns(self, code: usize) -> bool {
        match self {
            // It never grants.
            Self::Ours => !matches!(code, SUCCESS | NEW_AUTHTOK_REQD | INCOMPLETE),
            Self::Permit => code == SUCCESS,
            Self::Deny => matches!(code, AUTH_ERR | AUTHTOK_ERR),
            // PAM_INCOMPLETE leaves the stack and comes back to the same entry.
            Self::Secret | Self::Other => code != INCOMPLETE,
        }
    }
}

/// What our line said on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Passed {
    /// It was not asked.
    Not,
    /// It let the attempt go on.
    Admitted,
    /// It refused.
    Refused,
}

/// What the walk through a stack has shown. Numbers are entries of the stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Entries that some way reaches, by what our line said before; with the entry that led around our line, if one did.
    pub reached: BTreeMap<(Passed, usize), Option<usize>>,
    /// How the stack can end well.
    pub lets_in: Vec<Passed>,
    /// Entries of ours that are reached a second time on one way.
    pub twice: Vec<usize>,
    /// There were too many ways; what is said is true, but not all of it.
    pub gave_up: bool,
}

impl Seen {
    /// Entries of that role which some way reaches in that state.
    pub fn of<'a>(
        &'a self,
        passed: Passed,
        wanted: &'a dyn Fn(usize) -> bool,
    ) -> impl Iterator<Item = (usize, Option<usize>)> + 'a {
        let found = self.reached.iter().filter(move |((when, at), _)| *when == passed && wanted(*at));
        found.map(|((_, at), around)| (*at, *around))
    }
}

type Node = (State, Passed);

/// Walks every way through a stack.
#[must_use]
pub fn walk(stack: &[Handler], role: &dyn Fn(&Handler) -> Role) -> Seen {
    let roles: Vec<Role> = stack
        .iter()
        .map(|handler| if matches!(handler.what, What::Module { .. }) { role(handler) } else { Role::Other })
        .collect();
    let ours = |at: usize| roles.get(at) == Some(&Role::Ours);
    let mut seen = Seen::default();
    let mut nodes: Vec<Node> = vec![(State::default(), Passed::Not)];
    // The entry that last skipped one of ours on the way to a node.
    let mut around: HashMap<Node, Option<usize>> = nodes.iter().map(|node| (*node, None)).collect();
    while let Some(node) = nodes.pop() {
        let (state, passed) = node;
        let skipped = around.get(&node).copied().flatten();
        let Some(handler) = stack.get(state.at) else {
            if state.impression.lets_in() && !seen.lets_in.contains(&passed) {
                seen.lets_in.push(passed);
            }
            continue;
        };
        if matches!(handler.what, What::Module { .. }) {
            seen.reached.entry((passed, state.at)).or_insert(skipped);
        }
        if ours(state.at) && passed != Passed::Not && !seen.twice.contains(&state.at) {
            seen.twice.push(state.at);
        }
        let role = roles.get(state.at).copied().unwrap_or(Role::Other);
        for code in (0..CODES.len()).filter(|code| role.returns(*code)) {
            let next = step(stack, &state, code);
            let said = match role {
                Role::Ours if code == IGNORE && passed != Passed::Refused => Passed::Admitted,
                Role::Ours => Passed::Refused,
                _ => passed,
            };
            if around.contains_key(&(next, said)) {
                continue;
            }
            if around.len() >= MAX_STATES {
                seen.gave_up = true;
                return seen;
            }
            let leaps = (state.at + 1..next.at).any(ours);
            around.insert((next, said), if leaps { Some(state.at) } else { skipped });
            nodes.push((next, said));
        }
    }
    seen.lets_in.sort_unstable();
    seen
}

/// Walks one way: `answer` gives each module's return code. The entries that were run, and whether the user is let in.
pub fn run(stack: &[Handler], mut answer: impl FnMut(usize) -> usize) -> (Vec<usize>, bool) {
    let mut state = State::default();
    let mut ran = Vec::new();
    while let Some(handler) = stack.get(state.at) {
        let mut code = SUCCESS;
        if matches!(handler.what, What::Module { .. }) {
            ran.push(state.at);
            code = answer(state.at);
        }
        state = step(stack, &state, code);
    }
    (ran, state.impression.lets_in())
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
