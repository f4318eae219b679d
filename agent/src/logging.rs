//! The log: journald when systemd gave us its stream, else stderr. Level by `PORTCULLIS_LOG`, default `info`.
//!
//! Invariant: an event's message is its line of JSON wherever it goes; journald has what is searched for as fields, too.

use log::kv::Value;
use log::{Level, LevelFilter, Record};

use crate::api::view::{Actor, Event};

/// Installs the logger. A second call changes nothing.
pub fn start() {
    let level =
        std::env::var("PORTCULLIS_LOG").ok().and_then(|word| word.parse().ok()).unwrap_or(LevelFilter::Info);
    if systemd_journal_logger::connected_to_journal() {
        let journal = systemd_journal_logger::JournalLog::new()
            .map(|journal| journal.with_syslog_identifier("portcullisd".to_owned()));
        if journal.is_ok_and(|journal| journal.install().is_ok()) {
            log::set_max_level(level);
            return;
        }
    }
    // Fails only where a logger is installed already.
    let _ = env_logger::Builder::new()
        .filter_level(level)
        .format_target(false)
        .write_style(env_logger::WriteStyle::Never)
        .try_init();
}

/// Logs an event.
pub fn event(level: Level, event: &Event) {
    if !log::log_enabled!(level) {
        return;
    }
    let line = serde_json::to_string(event).unwrap_or_else(|error| format!("{event:?} ({error})"));
    let fields = fields(event);
    let fields: Vec<(&str, Value<'_>)> =
        fields.iter().map(|(name, value)| (*name, Value::from(value.as_str()))).collect();
    let fields = fields.as_slice();
    let arguments = format_args!("{line}");
    let record = Record::builder()
        .level(level)
        .target(module_path!())
        .module_path_static(Some(module_path!()))
        .args(arguments)
        .key_values(&fields)
        .build();
    log::logger().log(&record);
}

/// What journald keeps an index of, by the names that docs/events.md gives.
fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let mut fields = vec![("PORTCULLIS_EVENT", event.event.clone())];
    if let Some(account) = &event.account {
        fields.push(("PORTCULLIS_ACCOUNT", account.name.clone()));
        fields.extend(account.uid.map(|uid| ("PORTCULLIS_UID", uid.to_string())));
    }
    match &event.actor {
        Some(Actor::Local { uid, .. }) => fields.push(("PORTCULLIS_ACTOR_UID", uid.to_string())),
        Some(Actor::Remote { address }) => fields.push(("PORTCULLIS_ADDRESS", address.clone())),
        Some(Actor::Unknown) | None => {}
    }
    fields.extend(event.service.clone().map(|service| ("PORTCULLIS_SERVICE", service)));
    fields.extend(event.result.clone().map(|result| ("PORTCULLIS_RESULT", result)));
    fields
}
