//! The log: journald when systemd gave us its stream, else stderr. Level by `PORTCULLIS_LOG`, default `info`.

use log::LevelFilter;

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
