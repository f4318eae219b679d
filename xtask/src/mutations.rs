//! `cargo xtask test mutations`: for each invariant a change that breaks it, and the test that must turn red. A mutation
//! that no test notices is a failure of the tests.

use crate::checks;
use crate::count::Count;
use crate::ebpf;
use crate::error::Result;
use crate::stages::{Stages, follow};
use crate::workspace::Workspace;
use crate::{apt, build};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Where a mutation is built, and where it is noticed.
enum Place {
    /// In the host's build of portcullis-common: a property test or a unit test there turns red.
    Ledger,
    /// In the gate, started by the sandbox with `--gate-object`: each of these whole-system tests turns red.
    Gate(&'static [Red]),
}

/// A whole-system test that turns red.
#[derive(Clone, Copy)]
struct Red {
    /// Its name in portcullis-tests.
    test: &'static str,
    /// Words of its failure: a gate that does not load is red too, and proves nothing.
    says: &'static str,
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
        place: Place::Gate(&[
            Red {
                test: "callers_on_every_core_are_admitted_deny_times",
                says: "admitted another number than deny",
            },
            Red { test: "parallel_wrong_guesses_never_exceed_deny", says: "more than deny" },
        ]),
    },
    Mutation {
        feature: "mutation-no-exit",
        breaks: "a killed program's guess counts at once",
        place: Place::Gate(&[Red {
            test: "kill_while_the_password_is_checked_counts_at_once",
            says: "killed guesses are still out",
        }]),
    },
];

const fn ledger(feature: &'static str, breaks: &'static str) -> Mutation {
    Mutation { feature, breaks, place: Place::Ledger }
}

/// Builds with each mutation and expects red. Ends with the sum: a mutation that was noticed has passed, once for each
/// test that must notice it.
pub fn run(workspace: &Workspace) -> Result<u8> {
    let mut stages = Stages::default();
    for mutation in MUTATIONS {
        let feature = mutation.feature;
        println!("== {feature}: without \"{}\"", mutation.breaks);
        match mutation.place {
            Place::Ledger => {
                let mut command = checks::runner(workspace, None);
                command.args(["--package", "portcullis-common", "--features", feature]);
                // A target folder of its own: the features would undo the real build's cache.
                command.env("CARGO_TARGET_DIR", workspace.target.join("mutations"));
                // What a broken rule finds is no regression of the real one.
                command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
                expect_red(&mut stages, feature, &mut command, None)?;
            }
            Place::Gate(_) if !apt::root() => stages.skip(feature, "whole-system tests need root"),
            Place::Gate(tests) => match object(workspace, feature) {
                Ok(object) => {
                    for red in tests {
                        let mut command = checks::runner(workspace, Some(red.test));
                        command.args(["--package", "portcullis-tests"]).env(GATE_OBJECT, &object);
                        command.env("RUST_TEST_THREADS", "1").env("NEXTEST_TEST_THREADS", "1");
                        expect_red(&mut stages, feature, &mut command, Some(red.says))?;
                    }
                }
                Err(error) => {
                    stages.step(feature, || Err(error));
                }
            },
        }
    }
    Ok(stages.report())
}

/// Runs the tests. Red for another reason than a test (no compilation, a gate that does not load) proves nothing.
fn expect_red(stages: &mut Stages, feature: &str, command: &mut Command, says: Option<&str>) -> Result<()> {
    let started = Instant::now();
    let mut said = says.is_none();
    let (count, green) = follow(command, |line| said |= says.is_some_and(|words| line.contains(words)))?;
    let noticed = !green && count.failed > 0 && said;
    println!("{feature}: {}", if noticed { "noticed" } else { "NOT NOTICED" });
    let count = Count { passed: u32::from(noticed), failed: u32::from(!noticed), skipped: 0 };
    stages.add(feature, count, started.elapsed());
    Ok(())
}

/// The gate with the mutation in it.
fn object(workspace: &Workspace, feature: &str) -> Result<PathBuf> {
    build::refresh(workspace)?;
    let object = workspace.target.join("ebpf").join(format!("{feature}.bpf.o"));
    let options = ebpf::Options { features: Some(feature.into()), out: Some(object.clone()), way: None };
    ebpf::build(workspace, &options)?;
    Ok(object)
}
