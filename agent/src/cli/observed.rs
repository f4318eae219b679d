//! `portcullis observe`, and the observer's lines of `portcullis status`.

use super::client::ClientError;
use super::table::{Table, local};
use super::{CliError, Context, json, write};
use crate::observer::{ObserverView, ProcessView};

impl Context {
    pub(super) async fn observe(&self, follow: bool) -> Result<(), CliError> {
        let page = if follow { "/v1/observed?follow=true" } else { "/v1/observed" };
        let mut result = Ok(());
        let mut rows = Vec::new();
        self.client
            .lines(page, |line| {
                result = self.observed(line, follow, &mut rows);
                result.is_ok()
            })
            .await?;
        result?;
        if !follow && !self.json {
            write(&list(&rows))?;
        }
        Ok(())
    }

    fn observed(&self, line: &[u8], follow: bool, rows: &mut Vec<ProcessView>) -> Result<(), CliError> {
        let seen: ProcessView =
            serde_json::from_slice(line).map_err(|error| ClientError::Broken { what: error.to_string() })?;
        match (self.json, follow) {
            (true, _) => write(&format!("{}\n", json(&seen)?)),
            (false, true) => write(&one(&seen)),
            (false, false) => {
                rows.push(seen);
                Ok(())
            }
        }
    }
}

fn duration(seen: &ProcessView) -> String {
    seen.duration_ms.map_or_else(|| "-".to_owned(), |ms| format!("{}.{:03} s", ms / 1000, ms % 1000))
}

fn list(rows: &[ProcessView]) -> String {
    if rows.is_empty() {
        return "No watched program was started.\n".to_owned();
    }
    let mut table = Table::new(["STARTED", "FOR", "RESULT", "TARGET", "PID", "WHO"]);
    for row in rows {
        table.row([
            local(row.started),
            duration(row),
            row.result.clone().unwrap_or_else(|| "runs".to_owned()),
            row.target.clone().unwrap_or_else(|| "-".to_owned()),
            row.pid.to_string(),
            row.chain.clone(),
        ]);
    }
    table.render()
}

fn one(seen: &ProcessView) -> String {
    let when = local(seen.ended.unwrap_or(seen.started));
    let what = seen
        .result
        .as_ref()
        .map_or_else(|| "started".to_owned(), |result| format!("{result} after {}", duration(seen)));
    let target = seen.target.as_ref().map_or_else(String::new, |target| format!(", for {target}"));
    format!("{when}  {} ({}): {what}{target}\n", seen.chain, seen.pid)
}

/// One line of `portcullis status`: name and text.
pub(super) fn line(view: &ObserverView) -> String {
    if !view.enabled {
        return "off (observer.enabled)".to_owned();
    }
    if let Some(problem) = &view.problem {
        return format!("NOT LOADED: {problem}");
    }
    let present = view.watched.iter().filter(|one| one.present).count();
    let lost = if view.lost == 0 { String::new() } else { format!(", LOST {}", view.lost) };
    let found = view.unrecorded + view.no_process;
    let found = if found == 0 { String::new() } else { format!(", not accounted for: {found}") };
    let denial = match &view.denies_not {
        Some(why) => format!(", DENIES NOTHING: {why}"),
        None if view.denies => format!(", {} denied by {}", view.denied, view.means.way.word()),
        None => format!(", none denied (off; could be by {})", view.means.way.word()),
    };
    format!("{present} programs watched, {} started{denial}{lost}{found}", view.starts)
}
