//! Reads what test runners print: how many passed, failed, were skipped.

/// Numbers of one stage, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Green.
    pub passed: u32,
    /// Red.
    pub failed: u32,
    /// Not run, or run and found that it cannot say anything on this machine.
    pub skipped: u32,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What a test prints when it cannot run on this machine: `skipped: REASON`.
pub const SKIPPED: &str = "skipped: ";

/// Takes a runner's output line by line.
#[derive(Debug, Default)]
pub struct Reader {
    count: Count,
    skips: u32,
    passing: bool,
}

impl Reader {
    /// Reads one line. nextest indents what a test prints, which may look like a result itself. Returns whether it is worth showing: of tests that pass, only why they were skipped is.
    pub fn line(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        if text.starts_with(SKIPPED) {
            self.skips += 1;
            return true;
        }
        if let Some(count) = nextest(text).or_else(|| libtest(line)) {
            self.count += count;
            self.passing = false;
            return true;
        }
        if let Some((word, _)) = text.split_once(" [") {
            match word.trim_end() {
                "PASS" => {
                    self.passing = true;
                    return true;
                }
                "FAIL" | "SIGNAL" | "TIMEOUT" | "SLOW" | "ABORT" | "SIGABRT" | "SIGSEGV" | "SIGKILL" => {
                    self.passing = false;
                }
                _ => {}
            }
        }
        !(self.passing && (line.is_empty() || line.starts_with("  ")))
    }

    /// The sum; tests that said `skipped` count as such and not as passed.
    pub fn count(&self) -> Count {
        let skips = self.skips.min(self.count.passed);
        Count { passed: self.count.passed - skips, skipped: self.count.skipped + skips, ..self.count }
    }
}

/// `Summary [   0.1s] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped`
fn nextest(line: &str) -> Option<Count> {
    if !line.starts_with("Summary [") {
        return None;
    }
    let (_, rest) = line.split_once("run: ")?;
    Some(sum(rest.split(',')))
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn libtest(line: &str) -> Option<Count> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(sum(rest.split(';')))
}

fn sum<'a>(parts: impl Iterator<Item = &'a str>) -> Count {
    let mut count = Count::default();
    for part in parts {
        let Some((number, word)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        if word.starts_with("passed") {
            count.passed += number;
        } else if ["failed", "timed out", "exec failed"].iter().any(|kind| word.starts_with(kind)) {
            count.failed += number;
        } else if word.starts_with("skipped") || word.starts_with("ignored") {
            count.skipped += number;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Count, Vec<String>) {
        let mut reader = Reader::default();
        let shown = lines.iter().filter(|line| reader.line(line)).map(|line| (*line).to_string()).collect();
        (reader.count(), shown)
    }

    #[test]
    fn nextest_is_read() {
        let line = "     Summary [   0.012s] 7/9 tests run: 4 passed (1 slow, 1 flaky), 2 failed, 1 timed out, 3 skipped";
        assert_eq!(read(&[line]).0, Count { passed: 4, failed: 3, skipped: 3 });
    }

    #[test]
    fn cargo_test_is_read_and_summed() {
        let lines = [
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s",
        ];
        assert_eq!(read(&lines).0, Count { passed: 6, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_test_that_says_skipped_is_no_pass_and_shows_why() {
        let lines = [
            "        PASS [   0.001s] portcullis-tests a",
            "  stderr ───",
            "    noise",
            "    test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "    skipped: no bpffs here",
            "        FAIL [   0.001s] portcullis-tests b",
            "    it broke",
            "     Summary [   0.012s] 2 tests run: 1 passed, 1 failed, 0 skipped",
        ];
        let (count, shown) = read(&lines);
        assert_eq!(count, Count { passed: 0, failed: 1, skipped: 1 });
        assert!(
            shown.iter().any(|line| line.contains("no bpffs"))
                && shown.iter().any(|line| line.contains("broke"))
        );
        assert!(!shown.iter().any(|line| line.contains("noise")));
    }
}
