//! What the observer saw and holds against somebody, as `portcullis` tells it.

use serde_json::Value;

use crate::stack::must;
use crate::system::{portcullis, run, wait_for};
use crate::{Error, Result};

/// The programs it remembers, oldest first.
///
/// # Errors
/// When the agent does not answer.
pub fn programs() -> Result<Vec<Value>> {
    let (_, text) = run("portcullis", &["observe", "--json"])?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// A number of the observer's part of `portcullis status`.
///
/// # Errors
/// When the agent does not answer, or has no such number.
pub fn counted(field: &str) -> Result<u64> {
    let status = portcullis(&["status"])?;
    let number = status.pointer(&format!("/observer/{field}")).and_then(Value::as_u64);
    number.ok_or_else(|| Error::Answer { program: "portcullis status".into(), output: status.to_string() })
}

/// Waits until every program that has ended by now is judged, then: the failed logons without a record, the records
/// without a process, the guesses by unix_chkpwd.
///
/// # Errors
/// When they are not judged, or something was lost.
pub fn held_against_anybody() -> Result<[u64; 3]> {
    // Of the same form as the agent's times, which are compared as texts: UTC.
    let now = must("date", &["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"])?;
    wait_for("the observer's judgement", 20, || {
        let status = portcullis(&["status"])?;
        let judged = status.pointer("/observer/judged").and_then(Value::as_str);
        Ok(judged.is_some_and(|judged| judged > now.trim()))
    })?;
    let lost = counted("lost")?;
    if lost != 0 {
        return Err(Error::Answer { program: "the observer".into(), output: format!("{lost} were lost") });
    }
    Ok([counted("unrecorded")?, counted("no_process")?, counted("own_guesses")?])
}

/// Waits until it observes.
///
/// # Errors
/// When it does not.
pub fn wait_loaded() -> Result<()> {
    wait_for("the observer", 20, || {
        let status = portcullis(&["status"])?;
        Ok(status.pointer("/observer/loaded") == Some(&Value::Bool(true)))
    })
}

/// The newest program for which `is` says so, once there is one.
///
/// # Errors
/// When none comes.
pub fn wait_program(what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut found = None;
    wait_for(what, 15, || {
        found = programs()?.into_iter().rev().find(&is);
        Ok(found.is_some())
    })?;
    Ok(found.unwrap_or_default())
}

/// The newest run of `program` in that process, once it has ended.
///
/// # Errors
/// When it does not end.
pub fn wait_end(program: &str, pid: i32) -> Result<Value> {
    wait_program(&format!("the end of {program}"), |seen| {
        seen["program"] == program && seen["pid"] == pid && seen["result"].is_string()
    })
}

/// Events of a kind, oldest first.
///
/// # Errors
/// When the agent does not answer.
pub fn events(kind: &str) -> Result<Vec<Value>> {
    let (_, text) = run("portcullis", &["events", "--json"])?;
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(all.filter(|event| event["event"] == kind).collect())
}
