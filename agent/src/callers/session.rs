//! What one connection may ask.
//!
//! Invariants: who is not root asks about his own account only, and only to try, to tell the result of what he tried on
//! this connection, and to look. Whatever he tells is a claim: it gives back or fails the guess that he took himself,
//! and clears nothing (a pass is not remembered for a confirmation). Nobody locks or unlocks here. In a class that counts
//! pairs nobody gets a guess at the account without one at his pair.

use portcullis_common::abi::{
    Answer, Detail, Request, UNKNOWN, VERSIONS, ask, op, outcome, source, verdict, via,
};
use tokio::net::UnixStream;

/// What the kernel shows instead of the uids of foreign user namespaces (user_namespaces(7)).
const OVERFLOW_UID: u32 = 65_534;

/// Who asks, by SO_PEERCRED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid when he connected.
    pub uid: u32,
}

impl Caller {
    /// The peer of a connection; None where the kernel does not say, or says "somebody elsewhere".
    pub fn of(stream: &UnixStream) -> Option<Self> {
        let uid = stream.peer_cred().ok()?.uid();
        (uid != OVERFLOW_UID).then_some(Self { uid })
    }
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    caller: Caller,
    /// The guess that is out: what was asked at its admission, with its token.
    guess: Option<Request>,
    /// The same at the pair of account and source.
    pair: Option<Request>,
    /// The pair was asked for the next guess, and did not refuse.
    paired: bool,
}

/// Whether `number` is that of an older version this one takes over from.
fn is_older(number: u32) -> bool {
    let [_, older @ ..] = &VERSIONS;
    older.iter().any(|version| version.abi == number)
}

/// The answer to what may not be asked.
pub fn not_yours() -> Answer {
    Answer { verdict: verdict::NOT_YOURS, ..Answer::default() }
}

impl Session {
    /// A connection that has said nothing yet.
    pub fn new(caller: Caller) -> Self {
        Self { caller, guess: None, pair: None, paired: false }
    }

    /// Whether root asks.
    pub fn is_root(&self) -> bool {
        self.caller.uid == 0 || cfg!(feature = "mutation-believe-claims")
    }

    /// Whether a guess is out.
    pub fn has_guess(&self) -> bool {
        self.guess.is_some() || self.pair.is_some()
    }

    /// The request as it may go to the gate; None: it may not.
    pub fn allow(&self, asked: &Request) -> Option<Request> {
        let mut request = *asked;
        let at_pair = request.flags & ask::PAIR != 0;
        let guess = if at_pair { self.pair } else { self.guess };
        if !self.paired {
            // Asked for again, the gate says what is missing.
            request.flags &= !ask::PAIRED;
        }
        match request.op {
            op::ADMIT if self.guess.is_some() || guess.is_some() => return None,
            op::ADMIT | op::CHECK => {}
            op::CONFIRM if self.is_root() => {}
            // Admitted by the gate before this one, which is closed since: only root could ask it.
            op::RESOLVE if guess.is_none() && self.is_root() && is_older(request.abi) => {}
            // The guess of this connection, whatever the caller says its name is.
            op::RESOLVE => request.entry.token = guess?.entry.token,
            _ => return None,
        }
        let account = self.guess.or(self.pair).map_or(request.entry.account, |guess| guess.entry.account);
        if request.entry.account != account {
            return None;
        }
        if !self.is_root() {
            if account & UNKNOWN != 0 || account != u64::from(self.caller.uid) {
                return None;
            }
            // Whether his stack asks for more is his claim, too.
            request.flags &= !(ask::FACTOR | ask::SOFT);
            let claim = request.entry.detail;
            request.entry.detail = Detail {
                source: source::LOCAL,
                uid: self.caller.uid,
                via: via::CLAIM,
                status: claim.status,
                service: claim.service,
                tty: claim.tty,
                // Without a process nothing can be confirmed by a pass that is only claimed.
                ..Detail::EMPTY
            };
        }
        Some(request)
    }

    /// Takes note of what the gate answered.
    pub fn answered(&mut self, request: &Request, answer: &Answer) {
        let at_pair = request.flags & ask::PAIR != 0;
        let place = if at_pair { &mut self.pair } else { &mut self.guess };
        match request.op {
            op::ADMIT if answer.verdict == verdict::ADMITTED => {
                let mut guess = *request;
                guess.entry.token = answer.token;
                *place = Some(guess);
            }
            op::RESOLVE => {
                *place = None;
                self.paired &= !at_pair;
            }
            _ => {}
        }
        if request.op == op::ADMIT {
            let waits = matches!(answer.verdict, verdict::BUSY | verdict::MOVED | verdict::AGAIN);
            let enough = matches!(answer.verdict, verdict::ADMITTED | verdict::UNCOUNTED);
            // One guess at the pair is good for one at the account, while that is asked for.
            self.paired = if at_pair { enough } else { self.paired && waits };
        }
    }

    /// The connection has ended: what is still to be told.
    pub fn end(&mut self) -> Vec<Request> {
        self.paired = false;
        let mut told: Vec<_> = self.guess.take().into_iter().chain(self.pair.take()).collect();
        for request in &mut told {
            request.op = op::RESOLVE;
            request.arg = outcome::FAIL;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 2001;
    const B: u32 = 2002;

    fn session(uid: u32) -> Session {
        Session::new(Caller { uid })
    }

    fn about(op: u32, uid: u32) -> Request {
        Request::new(op, uid.into())
    }

    fn admitted(session: &mut Session, uid: u32, token: u64) {
        let request = session.allow(&about(op::ADMIT, uid)).unwrap();
        session.answered(&request, &Answer { verdict: verdict::ADMITTED, token, ..Answer::default() });
    }

    #[test]
    fn others_ask_about_themselves_only() {
        for op in [op::ADMIT, op::CHECK] {
            assert!(session(A).allow(&about(op, A)).is_some());
            assert!(session(A).allow(&about(op, B)).is_none());
            assert!(session(A).allow(&about(op, 0)).is_none());
            let mut invented = about(op, A);
            invented.entry.account |= UNKNOWN;
            assert!(session(A).allow(&invented).is_none());
        }
        for op in [op::CONFIRM, op::LOCK, op::UNLOCK, op::FORGET, op::LAPSE, 0, 99] {
            assert!(session(A).allow(&about(op, A)).is_none(), "{op}");
        }
    }

    #[test]
    fn nobody_locks_unlocks_or_forgets_here() {
        for op in [op::LOCK, op::UNLOCK, op::FORGET, op::LAPSE] {
            assert!(session(0).allow(&about(op, B)).is_none(), "{op}");
        }
        for op in [op::ADMIT, op::CHECK, op::CONFIRM] {
            assert!(session(0).allow(&about(op, B)).is_some(), "{op}");
        }
    }

    #[test]
    fn only_the_guess_of_this_connection_can_be_resolved() {
        let mut own = session(A);
        let mut resolve = about(op::RESOLVE, A);
        resolve.entry.token = 7;
        assert!(own.allow(&resolve).is_none(), "nothing was tried here");
        admitted(&mut own, A, 5);
        assert_eq!(own.allow(&resolve).unwrap().entry.token, 5, "not the token that was named");
        assert!(own.allow(&about(op::ADMIT, A)).is_none(), "one at a time");
    }

    #[test]
    fn what_the_gate_before_admitted_is_resolved_by_root_alone() {
        for number in [0, 1, 2, 3] {
            let mut resolve = about(op::RESOLVE, B);
            resolve.abi = number;
            resolve.entry.token = 7;
            let older = cfg!(feature = "abi-next") && number == 1;
            assert_eq!(
                session(0).allow(&resolve).map(|told| told.entry.token),
                older.then_some(7),
                "{number}"
            );
            assert!(session(B).allow(&resolve).is_none(), "{number}");
        }
    }

    #[test]
    fn a_claimed_pass_can_confirm_nothing() {
        let mut own = session(A);
        admitted(&mut own, A, 5);
        let mut resolve = about(op::RESOLVE, A);
        resolve.arg = outcome::PASS;
        resolve.entry.detail.pid = 4711;
        resolve.entry.detail.parent = 4710;
        let detail = own.allow(&resolve).unwrap().entry.detail;
        assert_eq!((detail.pid, detail.parent, detail.via), (0, 0, via::CLAIM));
    }

    #[test]
    fn an_address_is_not_taken_from_a_claim() {
        let mut request = about(op::ADMIT, A);
        request.entry.detail.source = source::IPV4;
        request.entry.detail.uid = B;
        let detail = session(A).allow(&request).unwrap().entry.detail;
        assert_eq!((detail.source, detail.uid), (source::LOCAL, A));
        assert_eq!(session(0).allow(&request).unwrap().entry.detail.source, source::IPV4);
    }

    #[test]
    fn a_connection_that_ends_with_a_guess_out_has_failed() {
        let mut own = session(A);
        assert!(own.end().is_empty());
        admitted(&mut own, A, 5);
        let told = own.end();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].op, told[0].arg, told[0].entry.token), (op::RESOLVE, outcome::FAIL, 5));
    }

    #[test]
    fn a_guess_at_the_pair_is_not_to_be_claimed() {
        let mut own = session(A);
        let mut paired = about(op::ADMIT, A);
        paired.flags = ask::PAIRED;
        assert_eq!(own.allow(&paired).unwrap().flags, 0, "no pair was asked");
        let mut pair = about(op::ADMIT, A);
        pair.flags = ask::PAIR;
        let request = own.allow(&pair).unwrap();
        own.answered(&request, &Answer { verdict: verdict::LOCKED, ..Answer::default() });
        assert_eq!(own.allow(&paired).unwrap().flags, 0, "the pair refused");
        own.answered(&request, &Answer { verdict: verdict::ADMITTED, token: 7, ..Answer::default() });
        assert!(own.allow(&pair).is_none(), "one at a time");
        let request = own.allow(&paired).unwrap();
        assert_eq!(request.flags, ask::PAIRED);
        own.answered(&request, &Answer { verdict: verdict::ADMITTED, token: 9, ..Answer::default() });
        let told: Vec<_> = own.end().iter().map(|told| (told.flags & ask::PAIR, told.entry.token)).collect();
        assert_eq!(told, [(0, 9), (ask::PAIR, 7)]);
        assert_eq!(own.allow(&paired).unwrap().flags, 0, "good for one guess");
    }
}
