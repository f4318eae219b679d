//! `portcullis sources`, `explain ADDRESS`, `report`.
//!
//! Invariant: an address is literal; nothing is looked up by name but users.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::show::actor;
use super::table::{Table, until};
use super::{CliError, Context, need_root, uid_of};
use crate::api::sources::{ReportRequest, SourceRow};
use crate::api::view::{Actor, Done, Until};
use crate::exit::Exit;

/// How a logon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ended {
    /// It failed.
    Fail,
    /// It succeeded.
    Pass,
}

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// IPv4 or IPv6 address that it came from.
    #[arg(long, value_name = "ADDRESS")]
    source: IpAddr,
    /// Name or uid that was tried: counts for that account, too.
    #[arg(long, value_name = "USER")]
    account: Option<OsString>,
    /// Which program saw it.
    #[arg(long, value_name = "NAME")]
    service: String,
    /// How it ended.
    #[arg(long, value_enum, value_name = "RESULT", default_value = "fail")]
    result: Ended,
}

impl Context {
    pub(super) async fn sources(&self) -> Result<(), CliError> {
        let rows: Vec<SourceRow> = self.client.get("/v1/sources").await?;
        self.print(&rows, |rows| list(rows, Timestamp::now()))
    }

    pub(super) async fn explain_source(&self, address: IpAddr) -> Result<(), CliError> {
        let row: SourceRow = self.client.get(&format!("/v1/sources/{address}")).await?;
        self.print(&row, |row| explain(row, Timestamp::now()))
    }

    pub(super) async fn report(&self, arguments: &ReportArguments) -> Result<Exit, CliError> {
        need_root()?;
        let request = ReportRequest {
            source: arguments.source,
            account: arguments.account.as_ref().map(uid_of).transpose()?,
            service: arguments.service.clone(),
            pass: arguments.result == Ended::Pass,
        };
        let done: Done = self.client.post("/v1/report", &request).await?;
        self.done(&done)
    }
}

fn state(row: &SourceRow, now: Timestamp) -> String {
    let end = row.until.map(|end| until(Until::At(end), now)).unwrap_or_default();
    match (&row.class, row.answered) {
        (None, _) => "-".to_owned(),
        (Some(class), true) => format!("{} {end}", if class == "local" { "refused" } else { "dropped" }),
        (Some(_), false) if !row.acted => "tripped, nothing was done".to_owned(),
        (Some(_), false) => "let in again".to_owned(),
    }
}

fn list(rows: &[SourceRow], now: Timestamp) -> String {
    if rows.is_empty() {
        return "No source has failed.\n".to_owned();
    }
    let mut table = Table::new(["SOURCE", "FAILURES", "ACCOUNTS", "LOGONS", "CLASS", "REPEATS", "STATE"]);
    for row in rows {
        table.row([
            actor(&row.actor),
            format!("{} of {}", row.failures, row.deny),
            row.accounts.to_string(),
            row.logons.to_string(),
            row.class.clone().unwrap_or_else(|| "-".to_owned()),
            row.repeats.to_string(),
            state(row, now),
        ]);
    }
    table.render()
}

fn explain(row: &SourceRow, now: Timestamp) -> String {
    let mut lines = vec![
        format!("source         {}", actor(&row.actor)),
        format!(
            "failures       {} of {}, at {} accounts, {} of them nobody has",
            row.failures, row.deny, row.accounts, row.unknown_names
        ),
        format!("logons         to {} accounts", row.logons),
        format!("state          {}", state(row, now)),
    ];
    if let Some(why) = &row.why {
        lines.push(format!("last trip      {why}; {} in all", row.repeats));
    }
    if row.answered {
        lines.push(match &row.actor {
            Actor::Local { uid, .. } => format!("release        portcullis unlock {uid}"),
            other => format!("release        portcullis undrop {}", actor(other)),
        });
        lines.push("               or wait: it ends by itself".to_owned());
    }
    lines.join("\n") + "\n"
}
