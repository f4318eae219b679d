//! Runs the stages of `lint` and `test`, tells each one's result and time, and the sum in the last line.

use crate::count::{Count, Reader};
use crate::error::{Error, Result};
use crate::run;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Results so far.
#[derive(Debug, Default)]
pub struct Stages {
    done: Vec<(String, Count, Duration, Option<String>)>,
}

impl Stages {
    /// A stage that only works or fails: one test.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> bool {
        let started = self.begin(name);
        let answer = step();
        let note = answer.as_ref().err().map(ToString::to_string);
        let passed = u32::from(answer.is_ok());
        self.end(name, Count { passed, failed: 1 - passed, skipped: 0 }, started, note);
        answer.is_ok()
    }

    /// A stage that is a test runner: its numbers count. `whole`: a run of everything, where tests left out by the
    /// runner are worth counting.
    pub fn runner(&mut self, name: &str, command: &mut Command, whole: bool) -> bool {
        let started = self.begin(name);
        let (mut count, note) = match follow(command, |_| ()) {
            Ok((count, true)) => (count, None),
            // Red without a red test: it did not compile, or the runner itself failed.
            Ok((count, false)) if count.failed == 0 => (
                Count { failed: 1, ..count },
                Some(format!("{} failed before a test could; see above", run::line(command))),
            ),
            Ok((count, false)) => (count, None),
            Err(error) => (Count { failed: 1, ..Count::default() }, Some(error.to_string())),
        };
        if !whole {
            count.skipped = 0;
        }
        let green = count.failed == 0;
        self.end(name, count, started, note);
        green
    }

    /// A stage that cannot run here: counted once, with the reason.
    pub fn skip(&mut self, name: &str, reason: &str) {
        let started = self.begin(name);
        self.end(name, Count { skipped: 1, ..Count::default() }, started, Some(format!("skipped: {reason}")));
    }

    /// Adds a result that was found elsewhere.
    pub fn add(&mut self, name: &str, count: Count, time: Duration) {
        self.done.push((name.into(), count, time, None));
    }

    /// One line a stage, then the sum. Returns the exit status.
    pub fn report(&self) -> u8 {
        let mut sum = Count::default();
        println!();
        for (name, count, time, note) in &self.done {
            sum += *count;
            println!("{name:<28} {:>7.1} s  {count}", time.as_secs_f64());
            if let Some(note) = note {
                println!("    {note}");
            }
        }
        println!("{sum}");
        u8::from(sum.failed > 0)
    }

    fn begin(&self, name: &str) -> Instant {
        println!("== {name}");
        Instant::now()
    }

    fn end(&mut self, name: &str, count: Count, started: Instant, note: Option<String>) {
        if let Some(note) = &note {
            println!("{note}");
        }
        self.done.push((name.into(), count, started.elapsed(), note));
    }
}

/// Shows the command's output as it comes, hands each line to `heard`, and reads its numbers; whether it succeeded.
pub fn follow(command: &mut Command, mut heard: impl FnMut(&str)) -> Result<(Count, bool)> {
    let pipe = |source| Error::File { action: "create", path: "a pipe".into(), source };
    let (reader, writer) = std::io::pipe().map_err(pipe)?;
    let copy = writer.try_clone().map_err(pipe)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(copy);
    let mut child = command.spawn().map_err(|source| Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    // The command keeps our ends of the pipe open: without this the output would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut numbers = Reader::default();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).map_err(pipe)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        heard(line);
        if numbers.line(line) {
            println!("{line}");
        }
        bytes.clear();
    }
    let status = child.wait().map_err(|source| Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    Ok((numbers.count(), status.success()))
}
