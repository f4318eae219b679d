//! The words of the decisions about sources: what is counted, asked, answered and remembered.

use super::{Net, Source};
use crate::Boot;

/// Doublings of the time at most.
const DOUBLINGS: u32 = 20;

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Told, nothing else.
    Monitor,
    /// A network is dropped, a local user refused.
    Act,
}

/// What a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Guessed at few accounts.
    Guess,
    /// Tried many accounts, or names nobody has.
    Spray,
    /// A local user, either of the two.
    Local,
    /// A network of which many members are dropped.
    Network,
}

/// `[sc5]`. Durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// About sources that guess.
    pub guess: Answer,
    /// About sources that spray.
    pub spray: Answer,
    /// About local users.
    pub local: Answer,
    /// Different accounts that make a spray.
    pub accounts: u32,
    /// Length of the first answer.
    pub drop_time: u64,
    /// Length of the longest.
    pub max_drop_time: u64,
    /// Quiet after which one repeat is forgotten.
    pub decay: u64,
    /// Dropped members that make their network dropped; 0: none do.
    pub escalate: u32,
    /// Never answered.
    pub exempt: Vec<Net>,
}

/// The gate's numbers of a trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Failures.
    pub failures: u32,
    /// Different accounts among them.
    pub accounts: u32,
    /// Different names among those that nobody has.
    pub unknown: u32,
    /// The PAM service that the last of them came by, zero-filled; all zero: not known.
    pub service: [u8; 16],
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A source's network, or a wider one.
    Net(Net),
    /// A local user.
    Local(u32),
}

/// What is kept of a target, over restarts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// When it tripped last.
    pub at: Boot,
    /// End of the answer.
    pub until: Boot,
    /// Answers so far, less those forgotten; at least 1.
    pub repeats: u32,
    /// What for.
    pub class: Class,
    /// What it did.
    pub counts: Counts,
    /// Whether something was done, not only told.
    pub acted: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A source tripped: told by an event, or found by a scan, more than once maybe.
    Tripped {
        /// Which.
        source: Source,
        /// When.
        at: Boot,
        /// What it did.
        counts: Counts,
        /// Networks of administrators who are logged in now.
        administrators: Vec<Net>,
    },
    /// An answer was carried out, or not.
    Done {
        /// Which.
        target: Target,
        /// Why not, and whether another try may help.
        failed: Option<(String, bool)>,
    },
    /// An administrator let it go.
    Released {
        /// Which.
        target: Target,
    },
    /// What the store knows, told once at start.
    Restored {
        /// Which.
        target: Target,
        /// What is kept of it.
        memory: Memory,
    },
    /// This host's own addresses, told before anything else is, and again where they may have changed.
    Own(Vec<Net>),
    /// A configuration.
    Configured(Rules),
    /// Time has passed: see [`Action::Wake`].
    Tick,
}

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop the network or refuse the local user; ends with [`Input::Done`].
    Answer {
        /// Whom.
        target: Target,
        /// End.
        until: Boot,
        /// What for.
        class: Class,
        /// What it did.
        counts: Counts,
    },
    /// Let it go before its time.
    Release {
        /// Whom.
        target: Target,
    },
    /// The answer has ended by itself.
    Ended {
        /// Whose.
        target: Target,
    },
    /// Store what is kept.
    Remember {
        /// Of whom.
        target: Target,
        /// What.
        memory: Memory,
    },
    /// Remove it from the store.
    Forget {
        /// Whom.
        target: Target,
    },
    /// Tell people.
    Tell {
        /// Whom it is about.
        target: Target,
        /// What.
        notice: Notice,
    },
    /// Step with [`Input::Tick`] at this time.
    Wake {
        /// When.
        at: Boot,
    },
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It tripped. Told once a trip.
    Tripped {
        /// What for.
        class: Class,
        /// What it did.
        counts: Counts,
        /// The end of the answer, or what it would be.
        until: Boot,
        /// Whether it is answered.
        acted: bool,
    },
    /// It tripped and is exempt.
    Exempt {
        /// What it did.
        counts: Counts,
        /// Why.
        why: Why,
    },
    /// Too many are held.
    Full,
    /// It could not be answered.
    Failed {
        /// Why.
        reason: String,
        /// When it is tried again; [`Boot::NEVER`]: not.
        next: Boot,
    },
}

/// Why a source is exempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The configuration names it.
    Configured,
    /// An administrator is logged in from there.
    Administrator,
    /// This host's own, or one that all neighbours share.
    Own,
    /// root.
    Root,
}

/// One that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) memory: Memory,
    /// The end was told, or nothing was done.
    pub(super) over: bool,
    pub(super) tries: u32,
    /// Another try of the answer; NEVER: none.
    pub(super) next: Boot,
}

impl Class {
    /// Its word in log, store and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Guess => "guess",
            Self::Spray => "spray",
            Self::Local => "local",
            Self::Network => "network",
        }
    }
}

impl Rules {
    pub(super) fn answer(&self, class: Class) -> Answer {
        match class {
            Class::Guess => self.guess,
            Class::Spray => self.spray,
            Class::Local => self.local,
            // It is made of members that were acted on.
            Class::Network if self.escalate != 0 && [self.guess, self.spray].contains(&Answer::Act) => {
                Answer::Act
            }
            Class::Network => Answer::Monitor,
        }
    }

    pub(super) fn class(&self, source: Source, counts: Counts) -> Class {
        match source {
            Source::Local(_) => Class::Local,
            _ if counts.accounts >= self.accounts => Class::Spray,
            _ => Class::Guess,
        }
    }

    /// The length of the answer that follows so many.
    pub(super) fn length(&self, repeats: u32) -> u64 {
        let doublings = repeats.min(DOUBLINGS);
        let longest = self.max_drop_time.max(self.drop_time);
        self.drop_time.saturating_mul(1 << doublings).min(longest)
    }
}

impl Held {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, over: !memory.acted, tries: 0, next: Boot::NEVER }
    }

    pub(super) fn forget(&self, decay: u64) -> Boot {
        self.memory.until.after(decay.saturating_mul(u64::from(self.memory.repeats)))
    }

    pub(super) fn due(&self, decay: u64) -> Boot {
        let end = if self.over { self.forget(decay) } else { self.memory.until };
        end.min(self.next)
    }

    /// Ends it before its time.
    pub(super) fn end(&mut self, now: Boot) {
        self.over = true;
        self.next = Boot::NEVER;
        self.memory.until = self.memory.until.min(now);
    }

    pub(super) fn in_force(&self, now: Boot) -> bool {
        self.memory.acted && !self.over && self.memory.until > now
    }
}
