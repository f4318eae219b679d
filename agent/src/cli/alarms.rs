//! `portcullis alarms`.

use clap::Args;
use jiff::Timestamp;

use super::table::{Table, ago};
use super::{CliError, Context, need_root};
use crate::api::alarms::{AckRequest, AlarmView};
use crate::api::view::Done;
use crate::exit::Exit;

/// What `alarms` takes.
#[derive(Debug, Args)]
pub struct AlarmArguments {
    /// Take note of the alarm with this number, or of all: it is shown no more until it is about something else.
    #[arg(long, value_name = "ID|all", value_parser = id)]
    ack: Option<Ack>,
}

#[derive(Debug, Clone, Copy)]
struct Ack(Option<u64>);

fn id(text: &str) -> Result<Ack, String> {
    if text == "all" {
        return Ok(Ack(None));
    }
    text.parse().map(|id| Ack(Some(id))).map_err(|_| "name the number of an alarm, or all".to_owned())
}

impl Context {
    pub(super) async fn alarms(&self, arguments: &AlarmArguments) -> Result<Exit, CliError> {
        need_root()?;
        if let Some(Ack(id)) = arguments.ack {
            let done: Done = self.client.post("/v1/alarms/ack", &AckRequest { id }).await?;
            return self.done(&done);
        }
        let alarms: Vec<AlarmView> = self.client.get("/v1/alarms").await?;
        self.print(&alarms, |alarms| shown(alarms, Timestamp::now()))?;
        Ok(Exit::Ok)
    }
}

/// The alarms for people.
fn shown(alarms: &[AlarmView], now: Timestamp) -> String {
    if alarms.is_empty() {
        return "no alarm is open\n".to_owned();
    }
    let mut table = Table::new(["ID", "KIND", "SINCE", "WHAT", "BY"]);
    for alarm in alarms {
        table.row([
            alarm.id.to_string(),
            alarm.kind.clone(),
            ago(alarm.since, now),
            alarm.detail.clone(),
            alarm.who.clone().unwrap_or_else(|| "not known".to_owned()),
        ]);
    }
    table.render()
}

/// The alarms in the lines of `status`.
pub(super) fn lines(alarms: &[AlarmView]) -> Vec<String> {
    let line = |alarm: &AlarmView| {
        format!("{:<14} {}: {}; see portcullis alarms", "ALARM", alarm.kind, alarm.detail)
    };
    alarms.iter().map(line).collect()
}
