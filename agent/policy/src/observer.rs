//! Holds what the observer saw against what the PAM module told: a failed logon without a record, a record without a
//! process, a guess at one's own password by `unix_chkpwd`.
//!
//! Invariants: pure (time is passed in); bounded (the oldest is forgotten first); calm: what may be something else is
//! left alone, what began before the observer did is not judged, and after anything was lost nothing is held against
//! anybody for [`UNSURE`].

use std::collections::{BTreeMap, VecDeque};

use crate::Boot;

/// How long the other half may take to come: the agent reads quiet records once a second.
pub const GRACE: u64 = 3_000_000_000;
/// How long nothing is concluded after something was lost.
pub const UNSURE: u64 = 60_000_000_000;
/// Time off the processor, and not waiting for one, from which on a program has asked or delayed somebody: su sleeps a
/// second after a wrong password, pam_unix two; a wrong option is answered at once.
pub const ASKED: u64 = 300_000_000;
/// A login that ends after this was left alone at its prompt (LOGIN_TIMEOUT is 60 s).
const LEFT_ALONE: u64 = 55_000_000_000;
/// How long one failing `unix_chkpwd` of a user may turn out to be pam_unix's look whether he has a password at all.
pub const LOOK: u64 = 60_000_000_000;
/// Processes, records and ends that are remembered, each.
const MOST: usize = 8_192;
/// Wait status of exit(1).
const EXIT_1: u32 = 1 << 8;
/// Wait status of `unix_chkpwd` for a wrong password: PAM_AUTH_ERR.
const WRONG: u32 = 7 << 8;

/// Programs whose end says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// su(1).
    Su,
    /// sudo(8).
    Sudo,
    /// login(1).
    Login,
    /// unix_chkpwd(8).
    Chkpwd,
    /// sshd and its children.
    Sshd,
    /// Any other.
    Other,
}

/// A watched program that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Process.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Which program.
    pub program: Program,
    /// Real uid of who started it.
    pub uid: u32,
    /// When it was started.
    pub started: u64,
    /// When it ended.
    pub ended: u64,
    /// Wait status.
    pub status: u32,
    /// Whether it started a session or a command, waited for a child, or became another program.
    pub served: bool,
    /// Nanoseconds in which it neither ran nor waited to run.
    pub slept: u64,
    /// Of `unix_chkpwd`: whether it was asked about its own user's password.
    pub own_password: bool,
}

/// What the PAM module told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub time: u64,
    /// Process that called.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// The watched program that its service belongs to; none: a service that no watched program has.
    pub program: Option<Program>,
    /// Real or login uid.
    pub uid: u32,
}

/// A failure that a program of a user's own (a screen locker) reported of him, and that counted.
#[derive(Debug, Clone, Copy)]
struct Claim {
    uid: u32,
    time: u64,
    /// Ends of `unix_chkpwd` that it still accounts for: a look whether there is a password, and the check itself.
    left: u32,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A failed logon that the PAM module never told of.
    Unrecorded(Ended),
    /// A record by a service whose program did not run.
    NoProcess(Record),
    /// A wrong password given to `unix_chkpwd`, outside the PAM line.
    OwnGuess(Ended),
}

/// Both halves, until they meet.
#[derive(Debug, Default)]
pub struct Corroboration {
    running: BTreeMap<u32, u64>,
    past: VecDeque<(u32, u64, u64)>,
    records: VecDeque<Record>,
    ends: VecDeque<Ended>,
    unmatched: VecDeque<Record>,
    looks: BTreeMap<u32, Ended>,
    claims: VecDeque<Claim>,
    began: u64,
    unsure_until: u64,
}

/// Adds one; what had to be forgotten for it.
fn push<T>(list: &mut VecDeque<T>, one: T) -> Option<T> {
    let forgotten = if list.len() >= MOST { list.pop_front() } else { None };
    list.push_back(one);
    forgotten
}

fn pop_if<T>(list: &mut VecDeque<T>, wanted: impl Fn(&T) -> bool) -> Option<T> {
    if list.front().is_some_and(wanted) { list.pop_front() } else { None }
}

impl Ended {
    /// Whether it ended as a logon that failed.
    #[must_use]
    pub fn failed_logon(&self) -> bool {
        let asked = !self.served && self.slept >= ASKED;
        match self.program {
            // For root neither asks.
            Program::Su | Program::Sudo => asked && self.uid != 0 && self.status == EXIT_1,
            // login(1) of shadow ends with 0 after the last wrong password.
            Program::Login => {
                asked
                    && (self.status == EXIT_1 || self.status == 0)
                    && self.ended.saturating_sub(self.started) < LEFT_ALONE
            }
            Program::Chkpwd | Program::Sshd | Program::Other => false,
        }
    }

    fn is_told_by(&self, record: &Record) -> bool {
        let of = |pid: u32| record.pid == pid || record.parent == pid;
        let whose = of(self.pid) || (self.program == Program::Chkpwd && of(self.parent));
        let slack = if self.program == Program::Chkpwd { GRACE } else { 0 };
        let times = self.started..=self.ended.saturating_add(slack);
        whose && times.contains(&record.time)
    }
}

impl Corroboration {
    /// A watched program runs.
    pub fn started(&mut self, pid: u32, time: Boot) {
        if self.running.len() >= MOST && !self.running.contains_key(&pid) {
            self.forget_oldest();
            self.unsure(time);
        }
        self.running.insert(pid, time.0);
    }

    /// The oldest eighth: what ended and was never told to have is among them.
    fn forget_oldest(&mut self) {
        let mut times: Vec<u64> = self.running.values().copied().collect();
        let (_, newest, _) = times.select_nth_unstable(self.running.len() / 8);
        let newest = *newest;
        self.running.retain(|_, started| *started > newest);
    }

    /// A watched program ended.
    pub fn ended(&mut self, end: Ended) {
        self.running.remove(&end.pid);
        let forgotten = push(&mut self.past, (end.pid, end.started, end.ended));
        if forgotten.is_some_and(|(.., ended)| ended.saturating_add(2 * GRACE) > end.ended) {
            // A record of that program may still be on its way.
            self.unsure(Boot(end.ended));
        }
        if end.failed_logon() || end.program == Program::Chkpwd {
            push(&mut self.ends, end);
        }
    }

    /// The PAM module told of something.
    pub fn recorded(&mut self, record: Record) {
        if push(&mut self.records, record).is_some() {
            self.unsure(Boot(record.time));
        }
        if record.program.is_some() {
            push(&mut self.unmatched, record);
        }
    }

    /// A user's own program reported a failure of his, without saying by which process.
    pub fn claimed(&mut self, uid: u32, time: Boot) {
        push(&mut self.claims, Claim { uid, time: time.0, left: 2 });
    }

    /// From now on everything is told; `running` are the watched programs that were started before. Their records may
    /// have been told to nobody, and so may their starts.
    pub fn begin(&mut self, now: Boot, running: impl IntoIterator<Item = u32>) {
        self.began = now.0;
        for pid in running {
            self.started(pid, Boot(0));
        }
    }

    /// Something was lost: what is missing now proves nothing.
    pub fn unsure(&mut self, now: Boot) {
        self.unsure_until = self.unsure_until.max(now.0.saturating_add(UNSURE));
    }

    /// What is certain by now. `alive` says whether a process is there.
    pub fn findings(&mut self, now: Boot, alive: impl Fn(u32) -> bool) -> Vec<Finding> {
        let mut found = Vec::new();
        let due = |time: u64| time.saturating_add(GRACE) <= now.0;
        let sure = now.0 >= self.unsure_until;
        while let Some(end) = pop_if(&mut self.ends, |end| due(end.ended)) {
            if self.records.iter().any(|record| end.is_told_by(record)) || self.is_claimed(&end) {
                continue;
            }
            if end.program == Program::Chkpwd {
                self.chkpwd(end, &mut found);
            } else if sure && end.started >= self.began && !cfg!(feature = "mutation-believe-silence") {
                found.push(Finding::Unrecorded(end));
            }
        }
        while let Some(record) = pop_if(&mut self.unmatched, |record| due(record.time)) {
            if sure && record.time >= self.began && !self.has_process(&record) {
                found.push(Finding::NoProcess(record));
            }
        }
        let over = |end: &Ended| end.ended.saturating_add(LOOK) <= now.0 || !alive(end.parent);
        let ripe: Vec<u32> = self.looks.iter().filter(|(_, end)| over(end)).map(|(uid, _)| *uid).collect();
        found.extend(ripe.into_iter().filter_map(|uid| self.looks.remove(&uid)).map(Finding::OwnGuess));
        let old = |time: u64| time.saturating_add(2 * LOOK) <= now.0;
        while pop_if(&mut self.records, |record| old(record.time)).is_some() {}
        while pop_if(&mut self.claims, |claim| old(claim.time)).is_some() {}
        while pop_if(&mut self.past, |(_, _, ended)| old(*ended)).is_some() {}
        found
    }

    /// A failing `unix_chkpwd` that no record tells of. The first of a user waits: pam_unix, run by a program that is not
    /// root's, first asks whether the password is empty. A right one that follows shows that it was that, and nothing
    /// that he did not know already.
    fn chkpwd(&mut self, end: Ended, found: &mut Vec<Finding>) {
        if !end.own_password || end.uid == 0 {
            return;
        }
        if end.status == 0 {
            self.looks.remove(&end.uid);
        } else if end.status == WRONG
            && let Some(before) = self.looks.insert(end.uid, end)
        {
            found.push(Finding::OwnGuess(before));
        }
    }

    /// Whether a claim accounts for a wrong password at `unix_chkpwd`; each does for two at most.
    fn is_claimed(&mut self, end: &Ended) -> bool {
        if end.program != Program::Chkpwd || end.status == 0 {
            return false;
        }
        let near = |claim: &Claim| claim.uid == end.uid && claim.time.abs_diff(end.ended) <= GRACE;
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.left != 0 && near(claim)) else {
            return false;
        };
        claim.left -= 1;
        true
    }

    fn has_process(&self, record: &Record) -> bool {
        let of = |pid: u32| pid == record.pid || pid == record.parent;
        self.running.iter().any(|(pid, started)| of(*pid) && *started <= record.time)
            || self.past.iter().any(|(pid, started, ended)| {
                of(*pid) && *started <= record.time && record.time <= ended.saturating_add(GRACE)
            })
    }
}
