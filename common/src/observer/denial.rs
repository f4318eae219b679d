//! Who is kept from starting su, login and sudo.
//!
//! Invariants: pure; root and the spared user are never kept from anything, whoever they were when they came in, nor is
//! what they go on as; a refusal ends with its lease.

use super::NO_LOGIN;

/// Bits of `Scope::on`.
pub mod scope {
    /// Programs are observed.
    pub const OBSERVE: u32 = 1;
    /// Who is locked out is kept from starting guarded ones.
    pub const DENY: u32 = 2;
}

/// Who answers for a program: the login uid, the real uid where that is not set.
#[inline(always)]
#[must_use]
pub const fn actor(uid: u32, login: u32) -> u32 {
    if login == NO_LOGIN { uid } else { login }
}

/// Whether somebody is never kept from anything.
#[inline(always)]
#[must_use]
pub const fn is_spared(spared: u32, uid: u32, login: u32) -> bool {
    if cfg!(feature = "mutation-deny-spared") {
        return false;
    }
    let actor = actor(uid, login);
    uid == 0 || actor == 0 || uid == spared || actor == spared
}

/// Whether a lease still runs; both boot time in nanoseconds. `until` is what the gate's `ACTORS` says of the actor.
#[inline(always)]
#[must_use]
pub const fn is_locked_out(until: u64, now: u64) -> bool {
    if cfg!(feature = "mutation-deny-forever") {
        return true;
    }
    until > now
}

#[cfg(test)]
mod tests {
    use super::*;

    const KON: u32 = 2001;
    const JON: u32 = 2002;
    const ADMIN: u32 = 1000;

    #[test]
    fn a_refusal_ends_with_its_lease() {
        assert!(is_locked_out(100, 99));
        assert!(!is_locked_out(100, 100));
        assert!(!is_locked_out(0, 1));
        assert!(is_locked_out(u64::MAX, u64::MAX - 1));
    }

    #[test]
    fn who_came_in_answers() {
        assert_eq!(actor(JON, KON), KON, "kon who went on as jon is kon");
        assert_eq!(actor(JON, NO_LOGIN), JON);
    }

    #[test]
    fn root_and_the_break_glass_account_are_spared_in_every_shape() {
        for (uid, login) in [(0, NO_LOGIN), (0, KON), (KON, 0), (ADMIN, NO_LOGIN), (ADMIN, KON), (KON, ADMIN)]
        {
            assert!(is_spared(ADMIN, uid, login), "{uid} {login}");
        }
        for (uid, login) in [(KON, NO_LOGIN), (KON, KON), (JON, KON)] {
            assert!(!is_spared(ADMIN, uid, login), "{uid} {login}");
            assert!(!is_spared(0, uid, login), "{uid} {login}");
        }
    }
}
