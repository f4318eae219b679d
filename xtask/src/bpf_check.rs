//! Checks the eBPF object for what kernel 6.1's verifier refuses, before any kernel sees it.
//!
//! Rules: from `bpf_spin_lock` to `bpf_spin_unlock` no other call (helper, kfunc or function of the object), no second
//! lock and no exit is reachable; every called symbol is defined; nothing is negated (before 6.18 the verifier knows
//! nothing about the result, and refuses to reach a map value by it: the compiler does that to some loops). The control
//! flow of every function is followed from its entry, once with the lock free and once with it held, so the check ends
//! and misses no path.

use crate::error::{Error, Result};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SPIN_LOCK: i32 = 93;
const SPIN_UNLOCK: i32 = 94;
/// BPF_ALU64 | BPF_NEG.
const NEG64: u8 = 0x87;
/// BPF_ALU | BPF_NEG.
const NEG32: u8 = 0x84;
/// Functions that the compiler calls on its own.
const COMPILER_CALLS: [&str; 5] = ["memcpy", "memset", "memmove", "memcmp", "bcmp"];

/// One function of the object.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Section and symbol, as in `xdp: gate`.
    pub name: String,
    /// Its size in 8-byte instructions.
    pub instructions: u64,
}

/// What the check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Every function, in the object's order.
    pub functions: Vec<Function>,
    /// Broken rules: the object must not be used.
    pub problems: Vec<String>,
    /// Calls of memcpy and the like outside the lock: allowed, but slow.
    pub remarks: Vec<String>,
}

/// Reads and checks the object at `path`. Problems are an error.
pub fn check(path: &Path) -> Result<Report> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    let report = inspect(&bytes).map_err(|reason| Error::Unreadable { path: path.to_path_buf(), reason })?;
    if report.problems.is_empty() {
        return Ok(report);
    }
    Err(Error::Object { path: path.to_path_buf(), problems: report.problems.join("\n  ") })
}

fn inspect(bytes: &[u8]) -> std::result::Result<Report, String> {
    let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
    let mut report = Report::default();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let section_name = section.name().unwrap_or("?");
        let code = section.data().map_err(|error| error.to_string())?;
        let mut calls = BTreeMap::new();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index).map_err(|error| error.to_string())?;
            let name = symbol.name().unwrap_or("?").to_string();
            if symbol.is_undefined() {
                report.problems.push(format!(
                    "{section_name}: instruction {} needs {name}, which nothing defines",
                    offset / 8
                ));
            } else if COMPILER_CALLS.contains(&name.as_str()) {
                report.remarks.push(format!("{section_name}: instruction {} calls {name}", offset / 8));
            }
            calls.insert(offset / 8, name);
        }
        let functions = file.symbols().filter(|symbol| {
            symbol.section_index() == Some(section.index()) && symbol.kind() == SymbolKind::Text
        });
        for function in functions {
            let name = format!("{section_name}: {}", function.name().unwrap_or("?"));
            for problem in walk(code, function.address() / 8, &calls) {
                report.problems.push(format!("{name}: {problem}"));
            }
            report.functions.push(Function { name, instructions: function.size() / 8 });
        }
    }
    if report.functions.is_empty() {
        report.problems.push("there is no program in it".into());
    }
    Ok(report)
}

/// One decoded instruction.
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

fn decode(code: &[u8], at: u64) -> Option<Insn> {
    let start = usize::try_from(at).ok()?.checked_mul(8)?;
    let word: [u8; 8] = code.get(start..start.checked_add(8)?)?.try_into().ok()?;
    let [code, registers, o0, o1, i0, i1, i2, i3] = word;
    Some(Insn {
        code,
        source: registers >> 4,
        offset: i16::from_le_bytes([o0, o1]),
        immediate: i32::from_le_bytes([i0, i1, i2, i3]),
    })
}

/// Follows the control flow from `entry`; `calls` names the called symbols by instruction.
fn walk(code: &[u8], entry: u64, calls: &BTreeMap<u64, String>) -> BTreeSet<String> {
    let mut problems = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut todo = vec![(entry, false)];
    while let Some((at, mut locked)) = todo.pop() {
        if !seen.insert((at, locked)) {
            continue;
        }
        let Some(insn) = decode(code, at) else {
            problems.insert(format!("control flow leaves the section at instruction {at}"));
            continue;
        };
        let jump = |distance: i64| at.wrapping_add_signed(distance).wrapping_add(1);
        match insn.code {
            // 64-bit immediate: two slots.
            0x18 => todo.push((at + 2, locked)),
            0x85 | 0x8d => {
                match (insn.code, insn.source, insn.immediate) {
                    (0x85, 0, SPIN_LOCK) if !locked => locked = true,
                    (0x85, 0, SPIN_UNLOCK) if locked => locked = false,
                    (0x85, 0, SPIN_UNLOCK) => {
                        problems.insert(format!("instruction {at} unlocks what is not locked"));
                    }
                    _ if locked => {
                        let called = match (insn.code, insn.source) {
                            (0x8d, _) => "a function pointer".to_string(),
                            (_, 0) => format!("helper {}", insn.immediate),
                            (_, 2) => "a kernel function".to_string(),
                            _ => calls.get(&at).cloned().unwrap_or_else(|| "a function".to_string()),
                        };
                        problems.insert(format!("instruction {at} calls {called} under the lock"));
                    }
                    _ => {}
                }
                todo.push((at + 1, locked));
            }
            0x95 => {
                if locked {
                    problems.insert(format!("instruction {at} ends the function under the lock"));
                }
            }
            NEG64 | NEG32 => {
                problems.insert(format!(
                    "instruction {at} negates a register, of which old verifiers know nothing afterwards: write the \
                     loop around it in another way"
                ));
                todo.push((at + 1, locked));
            }
            0x05 => todo.push((jump(insn.offset.into()), locked)),
            0x06 => todo.push((jump(insn.immediate.into()), locked)),
            conditional if matches!(conditional & 0x07, 0x05 | 0x06) => {
                todo.push((jump(insn.offset.into()), locked));
                todo.push((at + 1, locked));
            }
            _ => todo.push((at + 1, locked)),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    const MOVE: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

    fn call(helper: u8) -> [u8; 8] {
        [0x85, 0, 0, 0, helper, 0, 0, 0]
    }
    fn function() -> [u8; 8] {
        [0x85, 0x10, 0, 0, 0, 0, 0, 0]
    }
    fn jump_if_zero(over: u8) -> [u8; 8] {
        [0x15, 0, over, 0, 0, 0, 0, 0]
    }
    fn problems(code: &[[u8; 8]]) -> Vec<String> {
        walk(&code.concat(), 0, &BTreeMap::new()).into_iter().collect()
    }

    #[test]
    fn calls_outside_the_lock_are_fine() {
        let good = [call(125), call(93), MOVE, call(94), call(130), function(), EXIT];
        assert_eq!(problems(&good), Vec::<String>::new());
    }

    #[test]
    fn a_helper_under_the_lock_is_found_on_a_branch() {
        let bad = [call(93), jump_if_zero(1), call(125), call(94), EXIT];
        assert_eq!(problems(&bad), ["instruction 2 calls helper 125 under the lock"]);
    }

    #[test]
    fn a_branch_around_the_unlock_is_found() {
        let bad = [call(93), jump_if_zero(1), call(94), EXIT];
        assert_eq!(problems(&bad), ["instruction 3 ends the function under the lock"]);
    }

    #[test]
    fn a_function_of_the_object_under_the_lock_is_named() {
        let names = BTreeMap::from([(1, "memcpy".to_string())]);
        let found = walk(&[call(93), function(), call(94), EXIT].concat(), 0, &names);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["instruction 1 calls memcpy under the lock"]);
    }

    #[test]
    fn a_loop_back_into_the_lock_ends_and_is_found() {
        // The jump goes from behind the lock to the lock itself.
        let back = [0x15, 0, 0xfd, 0xff, 0, 0, 0, 0];
        let bad = [call(93), MOVE, back, call(94), EXIT];
        assert_eq!(problems(&bad), ["instruction 0 calls helper 93 under the lock"]);
    }

    #[test]
    fn wide_immediates_take_two_slots() {
        // The second slot of the immediate looks like a call; it is none.
        let wide = [0x18, 0, 0, 0, 1, 0, 0, 0];
        let good = [call(93), wide, call(125), call(94), EXIT];
        assert_eq!(problems(&good), Vec::<String>::new());
    }

    #[test]
    fn a_negated_register_is_found() {
        let found = problems(&[[0x87, 0x07, 0, 0, 0, 0, 0, 0], EXIT]);
        assert!(found.iter().any(|problem| problem.starts_with("instruction 0 negates")), "{found:?}");
    }

    #[test]
    fn control_flow_that_leaves_the_section_is_found() {
        assert_eq!(problems(&[MOVE]), ["control flow leaves the section at instruction 1"]);
    }

    #[test]
    fn a_file_that_is_no_object_is_an_error() {
        assert!(inspect(b"not an object").is_err());
    }
}
