//! `cargo xtask test mutations`: for each invariant a change that breaks it, and the test that must turn red. A mutation
//! that no test notices is a failure of the tests.

use crate::checks;
use crate::count::Count;
use crate::ebpf;
use crate::error::Result;
use crate::stages::{Stages, follow};
use crate::workspace::Workspace;
use crate::{apt, build};
use std::process::Command;
use std::time::Instant;

/// Where a mutation is built, and where it is noticed.
enum Place {
    /// In the host's build of portcullis-common: a property test or a unit test there turns red.
    Ledger,
    /// In the gate, started by the sandbox with `--gate-object`: this whole-system test turns red.
    Gate {
        /// Name of the test in portcullis-tests.
        test: &'static str,
    },
}

/// One mutation.
struct Mutation {
    /// Feature of portcullis-common or of portcullis-ebpf.
    feature: &'static str,
    /// What it breaks.
    breaks: &'static str,
    place: Place,
}

/// Variable with which the whole-system tests start the gate from another object.
pub const GATE_OBJECT: &str = "PORTCULLIS_GATE_OBJECT";

const MUTATIONS: [Mutation; 9] = [
    ledger("mutation-no-window", "failures leave the window"),
    ledger("mutation-no-reservation", "a guess that is out counts against the limit"),
    ledger("mutation-clear-on-pass", "only a confirmed pass clears"),
    ledger("mutation-no-actor-cap", "nobody holds all guesses of an account"),
    ledger("mutation-forget-expiry", "a lock ends"),
    ledger("mutation-no-lapse", "a guess without an answer is a failure"),
    ledger("mutation-no-trip", "the last failure locks"),
    Mutation {
        feature: "mutation-no-lock",
        breaks: "guesses are counted one after the other",
        place: Place::Gate { test: "callers_on_every_core_are_admitted_deny_times" },
    },
    Mutation {
        feature: "mutation-no-exit",
        breaks: "a killed program's guess counts at once",
        place: Place::Gate { test: "kill_while_the_password_is_checked_counts_at_once" },
    },
];

const fn ledger(feature: &'static str, breaks: &'static str) -> Mutation {
    Mutation { feature, breaks, place: Place::Ledger }
}

/// Builds with each mutation and expects red. Ends with the sum: a mutation that was noticed has passed.
pub fn run(workspace: &Workspace) -> Result<u8> {
    let mut stages = Stages::default();
    for mutation in MUTATIONS {
        let started = Instant::now();
        println!("== {}: without \"{}\"", mutation.feature, mutation.breaks);
        let mut command = match mutation.place {
            Place::Ledger => {
                let mut command = checks::runner(workspace, None);
                command.args(["--package", "portcullis-common", "--features", mutation.feature]);
                // A target folder of its own: the features would undo the real build's cache.
                command.env("CARGO_TARGET_DIR", workspace.target.join("mutations"));
                // What a broken rule finds is no regression of the real one.
                command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
                command
            }
            Place::Gate { test } => {
                if !apt::root() {
                    stages.skip(mutation.feature, "whole-system tests need root");
                    continue;
                }
                match gate(workspace, &mutation, test) {
                    Ok(command) => command,
                    Err(error) => {
                        stages.step(mutation.feature, || Err(error));
                        continue;
                    }
                }
            }
        };
        let (count, green) = follow(&mut command)?;
        // Red for another reason than a test (no compilation) proves nothing.
        let noticed = !green && count.failed > 0;
        println!("{}: {}", mutation.feature, if noticed { "noticed" } else { "NOT NOTICED" });
        let count = Count { passed: u32::from(noticed), failed: u32::from(!noticed), skipped: 0 };
        stages.add(mutation.feature, count, started.elapsed());
    }
    Ok(stages.report())
}

fn gate(workspace: &Workspace, mutation: &Mutation, test: &str) -> Result<Command> {
    build::refresh(workspace)?;
    let object = workspace.target.join("ebpf").join(format!("{}.bpf.o", mutation.feature));
    let options = ebpf::Options { features: Some(mutation.feature.into()), out: Some(object.clone()) };
    ebpf::build(workspace, &options)?;
    let mut command = checks::runner(workspace, Some(test));
    command.args(["--package", "portcullis-tests"]).env(GATE_OBJECT, object);
    command.env("RUST_TEST_THREADS", "1").env("NEXTEST_TEST_THREADS", "1");
    Ok(command)
}
