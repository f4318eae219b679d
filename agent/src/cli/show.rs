//! The API's answers as text for people.
//!
//! Invariants: what comes from outside was escaped by the agent; nothing here adds bytes a terminal would obey.

use jiff::Timestamp;

use super::table::{Table, ago, local, span, until};
use crate::api::drops::FilterView;
use crate::api::view::{AccountRow, Actor, Done, Event, Explain, Lock, RuleView, Shadow, Status, Until};

/// `portcullis status`.
#[must_use]
pub fn status(status: &Status, now: Timestamp) -> String {
    let mut lines = vec![format!("Portcullis {}", status.version)];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<14} {value}"));
    match (status.pid, status.since) {
        (Some(pid), Some(since)) => {
            line("agent", format!("running, process {pid}, since {}", ago(since, now)))
        }
        _ => line("agent", "does not run (the gate goes on without it)".to_owned()),
    }
    if status.gate {
        line("gate", format!("answers, configuration {}", status.generation));
    } else {
        let why = status.gate_problem.as_deref().unwrap_or("nothing is counted or refused");
        line("GATE", format!("DOES NOT ANSWER: {why}"));
    }
    for alarm in super::alarms::lines(&status.alarms) {
        let (name, value) = alarm.split_once(' ').unwrap_or(("ALARM", &alarm));
        line(name, value.trim().to_owned());
    }
    line("locked", format!("accounts in the gate: {}", status.locked));
    if let Some(count) = status.shadow_locked {
        line("shadow locks", format!("of ours: {count}"));
    }
    if status.expired != 0 {
        line("expired", format!("accounts, by us: {}", status.expired));
    }
    for mode in &status.modes {
        line("mode", mode.clone());
    }
    if let Some(view) = &status.breaker {
        line(if view.open { "BREAKER" } else { "breaker" }, breaker(view));
    }
    line("followed", format!("accounts: {}, unknown names: {}", status.accounts, status.unknown_names));
    if status.events_lost != 0 {
        line("events lost", format!("{} (made up for by scanning)", status.events_lost));
    }
    let break_glass = status.break_glass.join(", ");
    line(
        "break glass",
        if break_glass.is_empty() { "none, by explicit refusal".to_owned() } else { break_glass },
    );
    if let Some(why) = &status.store_degraded {
        line("STORE", format!("IN MEMORY ONLY: {why}"));
    }
    for file in &status.store_set_aside {
        line(
            "STORE",
            format!("DAMAGED, PUT ASIDE: {file}; locks in it are not known any more, take it away"),
        );
    }
    if let Some(observer) = &status.observer {
        lines.push(format!("{:<14} {}", "observer", super::observed::line(observer)));
    }
    if let Some(filter) = &status.filter {
        lines.extend(filter_lines(filter));
    }
    let mut text = lines.join("\n");
    text.push('\n');
    if !status.tables.is_empty() {
        let mut table = Table::new(["TABLE", "USED", "LIMIT"]);
        for row in &status.tables {
            table.row([row.name.clone(), row.used.to_string(), row.limit.to_string()]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

/// The breaker in one line.
#[must_use]
pub fn breaker(view: &crate::api::view::BreakerView) -> String {
    let by = if view.by == "auto" { "by its rules" } else { "by an administrator" };
    match &view.why {
        Some(why) => format!("OPEN {by}: {why}; the rungs above the lock are withheld"),
        None => format!(
            "closed {by}: {} accounts fail, {} of {} are locked",
            view.failing, view.locked, view.accounts
        ),
    }
}

/// The filter's lines of `portcullis status`.
fn filter_lines(filter: &FilterView) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<14} {value}"));
    if !filter.enabled {
        line("filter", "off (filter.enabled)".to_owned());
        return lines;
    }
    if let Some(why) = &filter.problem {
        line("FILTER", format!("DOES NOT WORK: {why}"));
    }
    let places: Vec<String> = filter
        .interfaces
        .iter()
        .filter_map(|place| Some(format!("{} ({})", place.name, place.hook.as_deref()?)))
        .collect();
    let places = if places.is_empty() { "no interface".to_owned() } else { places.join(", ") };
    line("filter", format!("on {places}"));
    for place in &filter.interfaces {
        if let Some(problem) = &place.problem {
            line("FILTER", format!("{}: {problem}", place.name));
        }
    }
    if !filter.absent.is_empty() {
        line("filter", format!("waits for {}", filter.absent.join(", ")));
    }
    let packets: u64 = filter.dropped.iter().map(|(_, count)| count).sum();
    line("drops", format!("networks: {}, packets so far: {packets}", filter.drops));
    if let Some(why) = &filter.store_problem {
        line("DROPS", format!("NOT KEPT OVER A REBOOT: {why}"));
    }
    lines
}

/// `portcullis accounts`.
#[must_use]
pub fn accounts(rows: &[AccountRow], now: Timestamp) -> String {
    let idle = |row: &&AccountRow| {
        row.failures == 0 && row.reservations == 0 && row.lock.is_none() && row.shadow != Shadow::Ours
    };
    let rows: Vec<&AccountRow> = rows.iter().filter(|row| !idle(row)).collect();
    if rows.is_empty() {
        return "no account has failures, attempts under way or a lock\n".to_owned();
    }
    let mut table = Table::new(["ACCOUNT", "CLASS", "FAILURES", "UNDER WAY", "LOCKED", "CAUSE", "SHADOW"]);
    for row in rows {
        table.row([
            row.source.as_ref().map_or_else(
                || row.account.name.clone(),
                |source| format!("{} from {}", row.account.name, actor(source)),
            ),
            row.class.clone(),
            format!("{}/{}", row.failures, row.deny),
            row.reservations.to_string(),
            row.lock.as_ref().map_or_else(|| "-".to_owned(), |lock| until(lock.until, now)),
            row.lock.as_ref().map_or_else(|| "-".to_owned(), |lock| lock.cause.clone()),
            shadow(row.shadow).to_owned(),
        ]);
    }
    table.render()
}

/// What was done; of a lock, how long it holds.
#[must_use]
pub fn done(done: &Done, now: Timestamp) -> String {
    let lock = done.row.as_ref().and_then(|row| row.lock.as_ref());
    match lock {
        Some(lock) => format!("{}, {}\n", done.message, end(lock, now)),
        None => format!("{}\n", done.message),
    }
}

/// The end of a lock in a sentence.
fn end(lock: &Lock, now: Timestamp) -> String {
    match lock.until {
        Until::Never => "until an administrator releases it".to_owned(),
        Until::At(_) => format!("until {}", until(lock.until, now)),
    }
}

fn shadow(shadow: Shadow) -> &'static str {
    match shadow {
        Shadow::None => "-",
        Shadow::Ours => "locked by us",
        Shadow::Foreign => "locked by an administrator",
        Shadow::Unknown => "?",
    }
}

/// Who somebody is.
#[must_use]
pub fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Unknown => "?".to_owned(),
        Actor::Local { uid, name: Some(name) } => format!("{name} (uid {uid})"),
        Actor::Local { uid, name: None } => format!("uid {uid}"),
        Actor::Remote { address } => address.clone(),
    }
}

fn lock(lock: &Lock, now: Timestamp) -> String {
    let soft = if lock.soft { " in part (see rule)" } else { "" };
    format!("locked{soft} since {}, {}", local(lock.since), end(lock, now))
}

/// What counts for an account, in words.
fn rule(rule: &RuleView) -> String {
    let length = rule.unlock_time.map_or_else(|| "until released".to_owned(), |s| format!("for {}", span(s)));
    let mut second =
        if rule.shadow_lock { ", password locked too (passwd -l)".to_owned() } else { String::new() };
    for (trips, what) in
        [(rule.expire_after_trips, "it expires too"), (rule.end_sessions_after_trips, "its sessions end")]
    {
        if trips != 0 {
            second.push_str(&format!("; from trip {trips} in a row on {what}"));
        }
    }
    let doubles = if rule.backoff_window == 0 {
        String::new()
    } else {
        let most =
            rule.max_unlock_time.map_or_else(|| "without limit".to_owned(), |s| format!("up to {}", span(s)));
        format!(", twice as long each time within {} of the last lock, {most}", span(rule.backoff_window))
    };
    let delay = if rule.delay == 0 {
        String::new()
    } else {
        format!("; a failure delays the next guess by {}, at most {}", span(rule.delay), span(rule.max_delay))
    };
    let within = span(rule.fail_interval);
    let mut delay = delay;
    if let Some(places) = &rule.restrict {
        delay.push_str(&format!("; the first lock is open from {places}"));
    }
    if let Some(count) = rule.factor_deny {
        delay.push_str(&format!(
            "; the first lock is open with another factor, until {count} further failures"
        ));
    }
    match rule.pair_deny {
        Some(pair_deny) => format!(
            "{pair_deny} failures of one source within {within} shut it out, {} of all sources lock the account, \
             each {length}{doubles}{second}{delay}",
            rule.deny
        ),
        None => format!("{} failures within {within} lock it {length}{doubles}{second}{delay}", rule.deny),
    }
}

/// `portcullis explain`.
#[must_use]
pub fn explain(answer: &Explain, now: Timestamp) -> String {
    let row = &answer.row;
    let uid = row.account.uid.map_or_else(String::new, |uid| format!(" (uid {uid})"));
    let because = if answer.because.is_empty() { String::new() } else { format!(" ({})", answer.because) };
    let mut lines = vec![format!("{}{uid}, class {}{because}", row.account.name, row.class)];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<9} {value}"));
    let state = match &row.lock {
        Some(found) if row.monitor => format!("monitor mode; otherwise {}", lock(found, now)),
        Some(found) => lock(found, now),
        None if row.exempt => "exempt: never locked".to_owned(),
        None => "not locked".to_owned(),
    };
    line("state", state);
    line("why", answer.why.clone());
    line("rule", rule(&answer.rule));
    line(
        "now",
        format!(
            "failures {} of {}, attempts under way {}, trips so far {}",
            row.failures, row.deny, row.reservations, row.trips
        ),
    );
    line(
        "password",
        match row.shadow {
            Shadow::None => "not locked in /etc/shadow",
            Shadow::Ours => "locked in /etc/shadow by us; undone with the lock",
            Shadow::Foreign => "locked in /etc/shadow by an administrator; never undone by us",
            Shadow::Unknown => "not known: no such line in /etc/shadow, or it cannot be read",
        }
        .to_owned(),
    );
    for way in &answer.release {
        line("release", way.clone());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    if !answer.pairs.is_empty() {
        let mut table = Table::new(["SOURCE", "FAILURES", "UNDER WAY", "SHUT OUT", "CAUSE"]);
        for row in &answer.pairs {
            table.row([
                row.source.as_ref().map_or_else(String::new, actor),
                format!("{}/{}", row.failures, row.deny),
                row.reservations.to_string(),
                row.lock.as_ref().map_or_else(|| "-".to_owned(), |lock| until(lock.until, now)),
                row.lock.as_ref().map_or_else(|| "-".to_owned(), |lock| lock.cause.clone()),
            ]);
        }
        text.push_str("\nby source\n");
        text.push_str(&table.render());
    }
    if !answer.attempts.is_empty() {
        let mut table = Table::new(["WHEN", "OUTCOME", "WHO", "SERVICE", "TERMINAL"]);
        for attempt in &answer.attempts {
            table.row([
                local(attempt.time),
                attempt.outcome.clone(),
                actor(&attempt.actor),
                attempt.service.clone(),
                attempt.tty.clone(),
            ]);
        }
        text.push_str("\nattempts, newest first\n");
        text.push_str(&table.render());
        let chains: Vec<String> = answer
            .attempts
            .iter()
            .filter_map(|attempt| Some(format!("  {}  {}\n", local(attempt.time), attempt.chain.as_ref()?)))
            .collect();
        if !chains.is_empty() {
            text.push_str("\nby which programs\n");
            text.push_str(&chains.concat());
        }
    }
    if !answer.actions.is_empty() {
        let mut table = Table::new(["WHEN", "ACTION", "RESULT", "REASON"]);
        for action in &answer.actions {
            table.row([
                local(action.time),
                action.action.clone(),
                action.result.clone().unwrap_or_else(|| "under way".to_owned()),
                action.reason.clone().unwrap_or_default(),
            ]);
        }
        text.push_str("\nactions, newest first\n");
        text.push_str(&table.render());
    }
    text
}

/// An event in one line.
#[must_use]
pub fn event(event: &Event) -> String {
    let mut words = vec![local(event.time), format!("{:<13}", event.event)];
    if let Some(account) = &event.account {
        words.push(account.name.clone());
    }
    if let Some(who) = &event.actor {
        words.push(format!("by {}", actor(who)));
    }
    match (&event.service, &event.tty) {
        (Some(service), Some(tty)) if !tty.is_empty() => words.push(format!("through {service} on {tty}")),
        (Some(service), _) if !service.is_empty() => words.push(format!("through {service}")),
        _ => {}
    }
    if let (Some(failures), Some(deny)) = (event.failures, event.deny) {
        words.push(format!("({failures} of {deny})"));
    }
    if event.tripped == Some(true) {
        words.push("LOCKED".to_owned());
    }
    if let Some(end) = event.locked_until {
        words.push(until(end, event.time));
    }
    if let Some(result) = &event.result {
        words.push(result.clone());
    }
    if let Some(detail) = &event.detail {
        words.push(detail.clone());
    }
    words.join(" ")
}
