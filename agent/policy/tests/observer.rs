//! What the observer concludes: by cases, and whatever comes in whatever order.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "this is how a test fails")]

use portcullis_policy::Boot;
use portcullis_policy::observer::{Corroboration, Ended, Finding, GRACE, LOOK, Program, Record, UNSURE};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn end(program: Program, pid: u32) -> Ended {
    Ended {
        pid,
        parent: 1,
        program,
        uid: 1000,
        started: 100 * SECOND,
        ended: 103 * SECOND,
        status: 1 << 8,
        served: false,
        slept: 2 * SECOND,
        own_password: false,
    }
}

fn record(pid: u32) -> Record {
    Record { time: 101 * SECOND, pid, parent: 1, program: Some(Program::Su), uid: 1000 }
}

fn concluded(judge: &mut Corroboration, at: u64) -> Vec<Finding> {
    judge.findings(Boot(at), |_| true)
}

#[test]
fn a_failed_logon_without_a_record_is_found_once() {
    let mut judge = Corroboration::default();
    let su = end(Program::Su, 7);
    judge.ended(su);
    assert_eq!(concluded(&mut judge, su.ended + GRACE - 1), []);
    assert_eq!(concluded(&mut judge, su.ended + GRACE), [Finding::Unrecorded(su)]);
    assert_eq!(concluded(&mut judge, su.ended + 9 * GRACE), []);
}

#[test]
fn one_with_a_record_of_its_own_or_of_its_child_is_not() {
    for told in [record(7), Record { pid: 9, parent: 7, ..record(7) }] {
        let mut judge = Corroboration::default();
        judge.started(7, Boot(100 * SECOND));
        judge.recorded(told);
        judge.ended(end(Program::Su, 7));
        assert_eq!(concluded(&mut judge, 110 * SECOND), []);
    }
    // Somebody else's record, or one of an earlier process with the same number, is none.
    for told in [record(8), Record { time: 99 * SECOND, program: None, ..record(7) }] {
        let mut judge = Corroboration::default();
        judge.recorded(told);
        judge.ended(end(Program::Su, 7));
        assert!(concluded(&mut judge, 110 * SECOND).contains(&Finding::Unrecorded(end(Program::Su, 7))));
    }
}

#[test]
fn what_a_storm_made_forget_is_held_against_nobody() {
    let storm = |count: u32, spread: u64| {
        let mut judge = Corroboration::default();
        judge.started(7, Boot(100 * SECOND));
        judge.recorded(record(7));
        judge.ended(Ended { ended: 101 * SECOND + 1, ..end(Program::Su, 7) });
        for number in 0..count {
            let time = 101 * SECOND + 2 + u64::from(number) * spread;
            judge.ended(Ended { started: time, ended: time, ..end(Program::Other, 100 + number) });
        }
        concluded(&mut judge, 101 * SECOND + GRACE)
    };
    // In one second so many programs that su is forgotten before its record is due: no finding.
    assert_eq!(storm(20_000, SECOND / 20_000), []);
    assert_eq!(storm(10, 1), []);
    // A record without a process is one still, when programs are forgotten that ended long before.
    let mut judge = Corroboration::default();
    for number in 0..20_000 {
        let time = u64::from(number) * SECOND / 200;
        judge.ended(Ended { started: time, ended: time, ..end(Program::Other, 100 + number) });
    }
    judge.recorded(record(7));
    assert_eq!(concluded(&mut judge, 101 * SECOND + GRACE), [Finding::NoProcess(record(7))]);
}

#[test]
fn of_too_many_programs_the_oldest_are_forgotten_whatever_their_numbers() {
    let mut judge = Corroboration::default();
    // Ends that were lost: these run for ever, as far as anybody knows.
    for pid in 100..10_000 {
        judge.started(pid, Boot(u64::from(pid)));
    }
    // Process numbers have come round.
    judge.started(7, Boot(100 * SECOND));
    judge.started(8, Boot(100 * SECOND));
    judge.recorded(record(7));
    assert_eq!(concluded(&mut judge, 110 * SECOND), [], "it runs");
}

#[test]
fn what_is_no_failed_logon_is_left_alone() {
    let su = end(Program::Su, 7);
    for calm in [
        Ended { served: true, ..su },
        Ended { uid: 0, ..su },
        Ended { status: 0, ..su },
        Ended { status: 2, ..su },
        Ended { slept: 5_000_000, ..su },
        Ended { program: Program::Other, ..su },
        Ended { program: Program::Sshd, ..su },
        Ended { program: Program::Login, status: 0, ended: 160 * SECOND, ..su },
    ] {
        let mut judge = Corroboration::default();
        judge.ended(calm);
        assert_eq!(concluded(&mut judge, 200 * SECOND), [], "{calm:?}");
    }
    let login = Ended { program: Program::Login, status: 0, uid: 0, ..su };
    let mut judge = Corroboration::default();
    judge.ended(login);
    assert_eq!(concluded(&mut judge, 200 * SECOND), [Finding::Unrecorded(login)]);
}

#[test]
fn nothing_is_concluded_after_something_was_lost() {
    let mut judge = Corroboration::default();
    judge.unsure(Boot(100 * SECOND));
    judge.ended(end(Program::Su, 7));
    judge.recorded(record(8));
    assert_eq!(concluded(&mut judge, 110 * SECOND), []);
    assert_eq!(concluded(&mut judge, 101 * SECOND + UNSURE), []);
}

#[test]
fn what_began_before_the_observer_is_not_judged() {
    let mut judge = Corroboration::default();
    // Started at 100 s.
    judge.begin(Boot(100 * SECOND + 1), [8]);
    judge.ended(end(Program::Su, 7));
    // A prompt that was open for long.
    judge.recorded(Record { time: 4_000 * SECOND, ..record(8) });
    assert_eq!(concluded(&mut judge, 5_000 * SECOND), []);
    // Told of before it began: by whom is not known.
    judge.recorded(Record { time: 100 * SECOND, ..record(9) });
    assert_eq!(concluded(&mut judge, 5_000 * SECOND), []);
    // It has ended meanwhile: its number is another's.
    judge.ended(Ended { started: 100 * SECOND, ended: 4_001 * SECOND, served: true, ..end(Program::Su, 8) });
    judge.recorded(Record { time: 4_900 * SECOND, ..record(8) });
    assert_eq!(concluded(&mut judge, 5_000 * SECOND).len(), 1);
    let late = Ended { started: 101 * SECOND, ..end(Program::Su, 7) };
    judge.ended(late);
    assert_eq!(concluded(&mut judge, 5_000 * SECOND), [Finding::Unrecorded(late)]);
}

#[test]
fn a_record_needs_a_process() {
    let mut judge = Corroboration::default();
    judge.recorded(record(8));
    // A service of nobody's that is watched.
    judge.recorded(Record { program: None, ..record(9) });
    assert_eq!(concluded(&mut judge, 110 * SECOND), [Finding::NoProcess(record(8))]);
}

#[test]
fn unix_chkpwd_counts_all_failures_but_a_look_before_a_right_password() {
    let guess = |number: u64, status: u32| Ended {
        status: status << 8,
        own_password: true,
        ended: (103 + number) * SECOND,
        ..end(Program::Chkpwd, u32::try_from(20 + number).unwrap())
    };
    let mut judge = Corroboration::default();
    (0..3).for_each(|number| judge.ended(guess(number, 7)));
    assert_eq!(concluded(&mut judge, 110 * SECOND).len(), 2);
    assert_eq!(concluded(&mut judge, 105 * SECOND + LOOK).len(), 1, "the last one, after a while");
    let mut judge = Corroboration::default();
    judge.ended(guess(0, 7));
    judge.ended(guess(1, 0));
    assert_eq!(concluded(&mut judge, 500 * SECOND), []);
    // Its parent has gone: nothing follows any more.
    judge.ended(guess(2, 7));
    assert_eq!(judge.findings(Boot(110 * SECOND), |_| false).len(), 1);
    // Another's password cannot be asked for, and recorded is recorded.
    let mut judge = Corroboration::default();
    judge.ended(Ended { own_password: false, ..guess(0, 7) });
    judge.recorded(Record { time: 103 * SECOND, pid: 1, program: None, ..record(1) });
    judge.ended(guess(0, 7));
    assert_eq!(judge.findings(Boot(900 * SECOND), |_| false), []);
}

#[test]
fn what_a_screen_locker_reported_is_not_counted_again_and_hides_no_more() {
    let wrong = |pid| Ended { status: 7 << 8, own_password: true, ..end(Program::Chkpwd, pid) };
    let mut judge = Corroboration::default();
    judge.claimed(1000, Boot(103 * SECOND));
    judge.ended(wrong(20));
    judge.ended(wrong(21));
    assert_eq!(judge.findings(Boot(110 * SECOND), |_| false), []);
    let mut judge = Corroboration::default();
    judge.claimed(1000, Boot(103 * SECOND));
    judge.claimed(1001, Boot(103 * SECOND));
    (20..25).for_each(|pid| judge.ended(wrong(pid)));
    assert_eq!(judge.findings(Boot(110 * SECOND), |_| false).len(), 3);
}

proptest! {
    #[test]
    fn a_recorded_logon_is_never_held_against_anybody(
        logons in prop::collection::vec((0u64..500, 0u64..20, any::<bool>()), 0..60),
    ) {
        let mut judge = Corroboration::default();
        let mut unrecorded = 0;
        for (number, (begin, length, told)) in (100u32..).zip(logons) {
            let started = (1000 + begin) * SECOND;
            let one = Ended {
                started,
                ended: started + length * SECOND,
                ..end(Program::Su, number)
            };
            judge.started(number, Boot(started));
            if told {
                judge.recorded(Record { time: started, ..record(number) });
            } else {
                unrecorded += 1;
            }
            judge.ended(one);
        }
        let found = concluded(&mut judge, 10_000 * SECOND);
        prop_assert_eq!(found.len(), unrecorded);
        let unrecorded_only = found.iter().all(|one| matches!(one, Finding::Unrecorded(_)));
        prop_assert!(unrecorded_only);
    }
}
