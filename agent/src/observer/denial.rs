//! How locked-out users are kept from starting programs here, and how often that is told.
//!
//! Invariant: whoever tries again and again is told of once a minute, and counted.

use std::collections::BTreeMap;

use portcullis_policy::Boot;
use serde::{Deserialize, Serialize};

/// The active LSMs, separated by commas.
const LSMS: &str = "/sys/kernel/security/lsm";
/// Nanoseconds in which one user is told of once.
const QUIET: u64 = 60_000_000_000;
/// Users that are remembered: as many as can be locked out.
const MOST: usize = portcullis_common::abi::MAX_ACTORS as usize;

/// What this kernel gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Nothing.
    #[default]
    None,
    /// `bprm_check_security`: exec fails with EPERM, the program never starts.
    Lsm,
    /// SIGKILL from the exec tracepoint, before its first instruction.
    Signal,
}

impl Way {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Lsm => "LSM",
            Self::Signal => "signal",
        }
    }
}

/// What this kernel gives, and why it is no better.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Means {
    /// How.
    pub way: Way,
    /// Why not by a better way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

impl Means {
    pub(super) fn none(why: impl Into<String>) -> Self {
        Self { way: Way::None, why: Some(why.into()) }
    }

    pub(super) const fn lsm() -> Self {
        Self { way: Way::Lsm, why: None }
    }

    pub(super) const fn signal(why: String) -> Self {
        Self { way: Way::Signal, why: Some(why) }
    }

    /// In words: `by LSM (bprm_check_security)`.
    #[must_use]
    pub fn words(&self) -> String {
        let why = self.why.as_ref().map_or_else(String::new, |why| format!("; {why}"));
        match self.way {
            Way::None => format!("by nothing{why}"),
            Way::Lsm => "by LSM (bprm_check_security)".to_owned(),
            Way::Signal => format!("by signal (SIGKILL at exec{why})"),
        }
    }
}

/// Whether the kernel calls LSM programs, or why not. Some load and attach them and never do.
pub(super) fn lsm_called() -> Result<(), String> {
    let list = std::fs::read_to_string(LSMS).map_err(|error| format!("no LSM: {LSMS}: {error}"))?;
    if list.trim().split(',').any(|name| name == "bpf") {
        Ok(())
    } else {
        Err(format!("no LSM: bpf is not among {} (lsm= on the kernel command line)", list.trim()))
    }
}

/// Who was told of.
#[derive(Debug, Default)]
pub struct Denials {
    told: BTreeMap<u32, (Boot, u64)>,
}

impl Denials {
    /// An exec of `user`'s was denied at `now`: how many more were since he was told of, or none to be told now.
    pub fn tell(&mut self, user: u32, now: Boot) -> Option<u64> {
        let quiet = |at: Boot| now.0.saturating_sub(at.0) < QUIET;
        if let Some((at, more)) = self.told.get_mut(&user)
            && quiet(*at)
        {
            *more = more.saturating_add(1);
            return None;
        }
        let more = self.told.remove(&user).map_or(0, |(_, more)| more);
        if self.told.len() >= MOST {
            self.told.retain(|_, (at, _)| quiet(*at));
        }
        if self.told.len() < MOST {
            self.told.insert(user, (now, 0));
        }
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tries_again_and_again_is_told_of_once_a_minute() {
        let mut denials = Denials::default();
        let at = |seconds: u64| Boot(seconds * 1_000_000_000);
        assert_eq!(denials.tell(2001, at(100)), Some(0));
        for second in 101..160 {
            assert_eq!(denials.tell(2001, at(second)), None);
        }
        assert_eq!(denials.tell(2002, at(130)), Some(0), "another one is told of at once");
        assert_eq!(denials.tell(2001, at(160)), Some(59));
        assert_eq!(denials.tell(2001, at(161)), None);
    }

    #[test]
    fn users_without_number_take_no_memory_without_end() {
        let mut denials = Denials::default();
        for user in 0..100_000 {
            assert_eq!(denials.tell(user, Boot(u64::from(user))), Some(0));
        }
        assert_eq!(denials.told.len(), MOST);
    }
}
