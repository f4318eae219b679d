//! Rounds: every stack and both paths in turn, and calls of the gate by themselves among them.

use std::process::{Command, Stdio};
use std::time::Instant;

use portcullis_common::abi::{Answer, Detail, Request, op, outcome, source, verdict};
use portcullis_common::client::Gate;
use portcullis_common::link::Link;

use super::figures::{Histogram, Times};
use super::stacks::{self, Path, Stack, nanoseconds};
use crate::{Error, Result};

/// Account of the calls of the gate by themselves: a uid that nobody has.
const ACCOUNT: u64 = 1_000_001;
/// Rounds before the first that counts.
const WARM_UP: u32 = 50;
/// One in so many rounds has a process of its own for each attempt too.
const COLD_EVERY: u32 = 50;
/// Rounds between two looks at the agent: its event queue must not overflow.
const BREATH: u32 = 200;

/// Times of one stack and path.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which stack.
    pub stack: Stack,
    /// Which path.
    pub path: Path,
    /// pam_authenticate, and pam_setcred after a right password.
    pub calls: Times,
    /// pam_start and pam_end.
    pub handle: Times,
    /// All of them as the first in a new process, where the modules have to be loaded.
    pub cold: Times,
}

/// Calls of the gate by themselves.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Admit, resolve and confirm, as the module does them: the pin is opened for each.
    pub right: Times,
    /// Admit and resolve.
    pub wrong: Times,
    /// One call (admit) at a gate that was kept open.
    pub open: Times,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Rounds that count.
    pub rounds: u32,
    /// For each stack and path.
    pub rows: Vec<Row>,
    /// The gate from outside.
    pub calls: Calls,
    /// The gate's own figures, before and after.
    pub gate: (Histogram, Histogram),
    /// Load of the machine over one minute, before and after.
    pub load: (String, String),
}

/// Runs it. Needs root in a sandbox with the agent.
///
/// # Errors
/// When an attempt does not end as it should.
pub fn run(rounds: u32) -> Result<Measured> {
    let _kept = stacks::keep_loaded()?;
    for stack in Stack::ALL {
        stack.install()?;
        if stack != Stack::None {
            stack.prove()?;
        }
    }
    let paths = Stack::ALL.into_iter().flat_map(|stack| [Path::Wrong, Path::Right].map(|path| (stack, path)));
    let mut rows: Vec<Row> = paths
        .map(|(stack, path)| Row {
            stack,
            path,
            calls: Times::default(),
            handle: Times::default(),
            cold: Times::default(),
        })
        .collect();
    let mut calls = Calls::default();
    for _ in 0..WARM_UP {
        round(&mut rows.clone(), 0, false)?;
        gate(&mut calls.clone())?;
    }
    let before = (Histogram::read()?, load());
    for number in 0..rounds {
        round(&mut rows, number, number % COLD_EVERY == 0)?;
        gate(&mut calls)?;
        if number % BREATH == 0 {
            // Asking the agent waits until it has had its turn.
            Histogram::read()?;
        }
    }
    let after = (Histogram::read()?, load());
    Ok(Measured { rounds, rows, calls, gate: (before.0, after.0), load: (before.1, after.1) })
}

/// Each stack once, a wrong password first, then a right one, which clears the failure.
fn round(rows: &mut [Row], number: u32, cold: bool) -> Result<()> {
    let stacks = rows.len() / 2;
    for place in 0..stacks {
        let place = (place + number as usize) % stacks;
        for row in rows.iter_mut().skip(place * 2).take(2) {
            let attempt = row.stack.attempt(row.path)?;
            row.calls.add(attempt.calls);
            row.handle.add(attempt.handle);
            if cold {
                row.cold.add(in_a_process(row.stack, row.path)?);
            }
        }
    }
    Ok(())
}

/// One attempt as a new process: what `--once` is for.
fn in_a_process(stack: Stack, path: Path) -> Result<u64> {
    let trouble = |source| Error::Program { program: "the benchmark's own program".into(), source };
    let program = std::env::current_exe().map_err(trouble)?;
    let mut child = Command::new(program);
    child.args(["--once", stack.name(), path.name()]).stdin(Stdio::null());
    let output = child.output().map_err(trouble)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().map_err(|_| Error::Answer {
        program: format!("--once {} {}", stack.name(), path.name()),
        output: text + &String::from_utf8_lossy(&output.stderr),
    })
}

/// For `--once`: the time of one attempt with everything around it, in nanoseconds.
///
/// # Errors
/// When there is no such stack, or the attempt does not end as it should.
pub fn once(stack: &str, path: &str) -> Result<u64> {
    let stack = Stack::ALL.into_iter().find(|known| known.name() == stack);
    let path = [Path::Right, Path::Wrong].into_iter().find(|known| known.name() == path);
    let (Some(stack), Some(path)) = (stack, path) else {
        return Err(Error::Answer { program: "--once".into(), output: "no such stack or path".into() });
    };
    let attempt = stack.attempt(path)?;
    Ok(attempt.handle + attempt.calls)
}

/// What an attempt asks the gate, asked by itself.
fn gate(calls: &mut Calls) -> Result<()> {
    let trouble = |error: portcullis_common::client::Error| Error::Answer {
        program: "the gate".into(),
        output: error.to_string(),
    };
    for path in [Path::Wrong, Path::Right] {
        let begun = Instant::now();
        let admitted = ask(&request(op::ADMIT, 0, 0)).map_err(trouble)?;
        let result = if path == Path::Right { outcome::PASS } else { outcome::FAIL };
        ask(&request(op::RESOLVE, result, admitted.token)).map_err(trouble)?;
        if path == Path::Right {
            ask(&request(op::CONFIRM, 0, 0)).map_err(trouble)?;
        }
        let took = nanoseconds(begun.elapsed());
        if admitted.verdict != verdict::ADMITTED {
            return Err(Error::Answer { program: "the gate".into(), output: format!("{admitted:?}") });
        }
        if path == Path::Right { calls.right.add(took) } else { calls.wrong.add(took) }
    }
    let gate = Gate::open().map_err(trouble)?;
    let begun = Instant::now();
    let admitted = gate.call(&request(op::ADMIT, 0, 0)).map_err(trouble)?;
    calls.open.add(nanoseconds(begun.elapsed()));
    gate.call(&request(op::RESOLVE, outcome::VOID, admitted.token)).map_err(trouble)?;
    Ok(())
}

/// As the module asks.
///
/// # Errors
/// The client's.
pub fn ask(request: &Request) -> std::result::Result<Answer, portcullis_common::client::Error> {
    let mut link = Link::NONE;
    let answer = link.call(request);
    link.close();
    answer
}

/// As the module's.
#[must_use]
pub fn request(op: u32, arg: u32, token: u64) -> Request {
    let mut request = Request::new(op, ACCOUNT);
    request.arg = arg;
    request.entry.token = token;
    request.entry.detail = Detail { source: source::LOCAL, pid: std::process::id(), ..Detail::EMPTY };
    request
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
