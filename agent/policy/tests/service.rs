//! The service that a source's failures came by: told by the gate's event, not known to a scan.

use portcullis_policy::Boot;
use portcullis_policy::sources::{Action, Answer, Counts, Input, Rules, Source, Sources};

const SECOND: u64 = 1_000_000_000;
const SSHD: [u8; 16] = *b"sshd\0\0\0\0\0\0\0\0\0\0\0\0";

fn services(actions: &[Action]) -> Vec<[u8; 16]> {
    let answer = |action: &Action| match action {
        Action::Answer { counts, .. } => Some(counts.service),
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

#[test]
fn a_scan_that_does_not_know_the_service_widens_no_answer() {
    let mut sources = Sources::new(Rules {
        guess: Answer::Act,
        spray: Answer::Act,
        local: Answer::Monitor,
        accounts: 4,
        drop_time: 600 * SECOND,
        max_drop_time: 3_600 * SECOND,
        decay: 3_600 * SECOND,
        escalate: 0,
        exempt: Vec::new(),
    });
    let mut tripped = |at: u64, service| {
        let counts = Counts { failures: 5, accounts: 1, unknown: 0, service };
        let source = Source::V4(0xc000_0207);
        let input = Input::Tripped { source, at: Boot(at), counts, administrators: Vec::new() };
        services(&sources.step(Boot(at), input))
    };
    assert_eq!(tripped(10 * SECOND, SSHD), [SSHD]);
    // Found again, a moment later by the gate's clock than the store has it: answered again, as it was.
    assert_eq!(tripped(10 * SECOND + 1, [0; 16]), [SSHD]);
    // Another service's trip is another service's.
    let other = *b"login\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(tripped(11 * SECOND, other), [other]);
}
