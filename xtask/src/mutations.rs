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
    /// In the host's build of this package: one of its tests turns red.
    Host(&'static str),
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
    /// Feature of the package, or of portcullis-ebpf.
    feature: &'static str,
    /// What it breaks.
    breaks: &'static str,
    place: Place,
}

/// Variable with which the whole-system tests start the gate from another object.
pub const GATE_OBJECT: &str = "PORTCULLIS_GATE_OBJECT";

const MUTATIONS: &[Mutation] = &[
    ledger("mutation-no-window", "failures leave the window"),
    ledger("mutation-no-reservation", "a guess that is out counts against the limit"),
    ledger("mutation-clear-on-pass", "only a confirmed pass clears"),
    ledger("mutation-no-actor-cap", "nobody holds all guesses of an account"),
    ledger("mutation-forget-expiry", "a lock ends"),
    ledger("mutation-no-lapse", "a guess without an answer is a failure"),
    ledger("mutation-one-lapse", "each guess that outlives its age counts for its source"),
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
    Mutation {
        feature: "mutation-no-freeze",
        breaks: "there are never two live gates",
        place: Place::Gate(&[Red {
            test: "two_hundred_guesses_across_an_upgrade_never_exceed_deny",
            says: "the old gate answered after the new one",
        }]),
    },
    ledger("mutation-lock-exempt", "exempt accounts are not locked"),
    Mutation {
        feature: "mutation-one-table",
        breaks: "invented names have a table of their own",
        place: Place::Gate(&[Red {
            test: "invented_names_evict_no_account",
            says: "there is room for an account",
        }]),
    },
    ledger("mutation-one-scope", "a source is shut out of an account before it is locked for all"),
    ledger("mutation-soft-forever", "the trip during a soft lock locks for all"),
    ledger("mutation-no-hours", "a soft lock is open in its hours alone"),
    agent("mutation-forget-climb", "a lock is doubled over a reboot, too"),
    ledger("mutation-open-to-claims", "no user opens a soft lock by saying where he is"),
    module("mutation-skip-factor", "another factor is asked for when it is due"),
    module("mutation-keep-pair", "what was reserved for a guess that does not go on is returned"),
    ledger("mutation-evict-tripped", "a flood of invented sources evicts no tripped one"),
    ledger("mutation-pass-clears-all", "a logon clears the source's failures at that account alone"),
    Mutation {
        feature: "mutation-answer-exempt",
        breaks: "an exempt source is never answered",
        place: Place::Host("portcullis-policy"),
    },
    Mutation {
        feature: "mutation-answer-own",
        breaks: "an address of this host is never answered",
        place: Place::Host("portcullis-policy"),
    },
    Mutation {
        feature: "mutation-keep-unasked",
        breaks: "nothing stays answered that the rules do not ask for",
        place: Place::Host("portcullis-policy"),
    },
    policy("mutation-forget-service", "what is not known of the service widens no answer"),
    agent("mutation-no-read-back", "each drop and each removal is read back"),
    agent("mutation-forget-ports", "a lease for the service's ports is for those alone after a reboot, too"),
    agent(
        "mutation-lengthen-lease",
        "a lease is never longer than it was given for, whatever the clock says",
    ),
    agent("mutation-cut-off", "what cuts this host off is refused"),
    agent("mutation-no-neighbours", "a guesser in this host's own IPv6 network is counted by itself"),
    module("mutation-no-wait", "a right guess waits for a free one"),
    module("mutation-skip-confirm", "a login that goes on clears the failures"),
    module("mutation-grant", "the module never grants"),
    module("mutation-open-on-exhaustion", "what a caller can cause refuses"),
    module("mutation-ignore-off-word", "the word on the kernel command line lets everybody through"),
    module("mutation-refuse-own-work", "a lock is no obstacle to the machine's own work"),
    module("mutation-believe-rhost", "an address counts from root callers only"),
    agent("mutation-believe-claims", "others ask about their own account only"),
    agent("mutation-no-escape", "nothing from outside is written unescaped"),
    agent("mutation-forget-locks", "locks outlive the gate"),
    agent("mutation-no-break-glass", "nothing enforces without a word about break_glass"),
    agent("mutation-end-allowed-connections", "connections of allow-listed addresses live on"),
    agent("mutation-forget-drops", "drops outlive a reboot"),
    agent("mutation-forget-throttles", "throttles outlive a reboot"),
    agent("mutation-keep-refused-sets", "what nft refused has changed nothing"),
    agent("mutation-take-anothers-drop", "neither policy nor report takes away what another wants dropped"),
    agent("mutation-stack-blind", "a stack that has come open is an alarm"),
    agent("mutation-any-pin", "a pin that holds another object is an alarm"),
    agent("mutation-breakpoint-blind", "a breakpoint in libpam is an alarm"),
    agent("mutation-tell-every-guess", "nobody floods the log by unix_chkpwd"),
    agent("mutation-any-seat", "no user takes all connections of the agent"),
    agent("mutation-heal-without-end", "nothing is put back more than five times an hour"),
    policy("mutation-early-end", "a lock that holds keeps its rungs, however the clock goes"),
    policy("mutation-skip-downward", "no rung is skipped on the way down"),
    policy("mutation-ignore-breaker", "an open breaker withholds the rungs above the lock"),
    policy("mutation-no-breaker", "many failing accounts and no success open the breaker"),
    policy("mutation-believe-silence", "a failed logon without a record is told"),
    agent("mutation-undo-theirs", "a date that an administrator set is not undone"),
    agent("mutation-forget-expiry-date", "the former date of expiry comes back"),
    agent("mutation-kill-leader-alone", "what a command started ends with it when its time is over"),
    agent("mutation-end-roots", "nothing that runs as root or as an exempt account is ended"),
    ledger("mutation-deny-forever", "a refusal to start programs ends with its lease"),
    ledger("mutation-deny-spared", "root and the break-glass account may always start su"),
    ledger("mutation-drop-allowed", "an allow-listed address is never dropped"),
    ledger("mutation-longest-only", "a lease that ended hides none behind it"),
    ledger("mutation-no-lease-end", "a drop is a lease, which ends in the kernel itself"),
    ledger("mutation-loose-line", "who shares a lane with a dropped source, but not its line, passes"),
    ledger("mutation-no-refill-cap", "no more than burst and rate pass"),
    ledger("mutation-no-share", "sources of one network share its rate"),
    agent("mutation-no-overflow", "a source that its line has no room for is dropped all the same"),
    agent("mutation-no-sweep", "leases of the fast table end with no agent there"),
];

const fn ledger(feature: &'static str, breaks: &'static str) -> Mutation {
    Mutation { feature, breaks, place: Place::Host("portcullis-common") }
}

const fn module(feature: &'static str, breaks: &'static str) -> Mutation {
    Mutation { feature, breaks, place: Place::Host("portcullis-pam") }
}

const fn policy(feature: &'static str, breaks: &'static str) -> Mutation {
    Mutation { feature, breaks, place: Place::Host("portcullis-policy") }
}

const fn agent(feature: &'static str, breaks: &'static str) -> Mutation {
    Mutation { feature, breaks, place: Place::Host("portcullis-agent") }
}

/// Builds with each mutation and expects red. Ends with the sum: a mutation that was noticed has passed, once for each
/// test that must notice it.
/// `which`: those with this in their names only.
pub fn run(workspace: &Workspace, which: &str) -> Result<u8> {
    let mut stages = Stages::default();
    for mutation in MUTATIONS.iter().filter(|mutation| mutation.feature.contains(which)) {
        let feature = mutation.feature;
        println!("== {feature}: without \"{}\"", mutation.breaks);
        match &mutation.place {
            Place::Host(package) => {
                let mut command = checks::runner(workspace, None);
                command.args(["--package", package, "--features", feature]);
                // A target folder of its own: the features would undo the real build's cache.
                command.env("CARGO_TARGET_DIR", workspace.target.join("mutations"));
                // What a broken rule finds is no regression of the real one.
                command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
                expect_red(&mut stages, feature, &mut command, None)?;
            }
            Place::Gate(_) if !apt::root() => stages.skip(feature, "whole-system tests need root"),
            Place::Gate(tests) => match object(workspace, feature) {
                Ok(object) => {
                    for red in *tests {
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
    // What the tests of an upgrade upgrade to.
    build::next(workspace)?;
    let object = workspace.target.join("ebpf").join(format!("{feature}.bpf.o"));
    let options = ebpf::Options { features: Some(feature.into()), out: Some(object.clone()), way: None };
    ebpf::build(workspace, &options)?;
    Ok(object)
}
