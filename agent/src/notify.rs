//! Tells others: a command per class of events, and a file of JSON lines.
//!
//! Invariants
//! * Nothing here delays what decides: it looks on at the hub like any reader, and what it cannot keep up with is dropped
//!   and counted.
//! * A command is an argument vector, never a shell; the event is on its standard input alone.
//! * Bounded: commands at once, their time, commands that wait, lines that wait.

pub mod file;
pub mod kind;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::api::hub::Hub;
use crate::api::view::Event;
use crate::config::notify::Notify;
use crate::metrics::Metrics;
use crate::program::{self, Ended, RunError};

/// The way to tell the notifier a new configuration.
pub type Handle = watch::Sender<Notify>;

/// A command that waits for its turn.
struct Run {
    command: Vec<String>,
    event: String,
    line: Vec<u8>,
}

impl Run {
    /// Runs it; how that ended, in the words of the metrics.
    async fn run(self, limit: Duration) -> &'static str {
        let mut words = self.command.into_iter();
        let program = PathBuf::from(words.next().unwrap_or_default());
        let event = self.event;
        match program::run(&program, words, self.line, limit).await {
            Ok(ended) if ended.success => "done",
            Ok(Ended { status, said, .. }) => {
                let program = program.display();
                log::error!(
                    "notify.command for {event}: {program} ended with {status}, nobody may have been told; it said: {said}; \
                     try it by hand with an event as its input"
                );
                "failed"
            }
            Err(error @ RunError::Timeout { .. }) => {
                log::error!("notify.command for {event}: {error}; see notify.timeout");
                "timeout"
            }
            Err(error) => {
                log::error!("notify.command for {event}: {error}");
                "failed"
            }
        }
    }
}

/// Looks on and tells.
pub struct Notifier {
    events: broadcast::Receiver<Arc<Event>>,
    config: watch::Receiver<Notify>,
    metrics: Arc<Metrics>,
    file: file::Writer,
    waiting: VecDeque<Run>,
    running: JoinSet<&'static str>,
    /// Commands that were not run for want of room, since that was said.
    unrun: u64,
}

impl Notifier {
    /// A notifier of what the hub tells from now on.
    #[must_use]
    pub fn new(config: &Notify, hub: &Hub, metrics: Arc<Metrics>) -> (Handle, Self) {
        let (handle, receiver) = watch::channel(config.clone());
        let notifier = Self {
            events: hub.subscribe(),
            config: receiver,
            file: file::Writer::new(config.place(), Arc::clone(&metrics)),
            metrics,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            unrun: 0,
        };
        (handle, notifier)
    }

    /// Works until the hub or the one who configures is gone.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Ok(event) => self.event(&event),
                    Err(RecvError::Lagged(count)) => self.metrics.notified("dropped", count),
                    Err(RecvError::Closed) => return,
                },
                Some(ended) = self.running.join_next(), if !self.running.is_empty() => {
                    // A panic ends the agent before it gets here.
                    self.metrics.notified(ended.unwrap_or("failed"), 1);
                    self.start();
                }
                changed = self.config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let place = self.config.borrow_and_update().place();
                    self.file.reopen(place);
                }
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let config = self.config.borrow();
        if config.file.is_none() && config.commands.is_empty() {
            return;
        }
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let mut runs = Vec::new();
        for wanted in &config.commands {
            if wanted.events.iter().any(|word| kind::matches(word, &event.event)) {
                let (command, event) = (wanted.argv.clone(), event.event.clone());
                runs.push(Run { command, event, line: line.clone() });
            }
        }
        let room = config.queue;
        let writes = config.file.is_some();
        drop(config);
        if writes {
            self.file.write(line);
        }
        for run in runs {
            if self.waiting.len() >= room {
                self.metrics.notified("dropped", 1);
                if self.unrun == 0 {
                    log::warn!(
                        "notify.command: {room} commands wait, those for further events are not run; see notify.parallel, \
                         notify.queue and notify.timeout"
                    );
                }
                self.unrun = self.unrun.saturating_add(1);
            } else {
                self.waiting.push_back(run);
            }
        }
        self.start();
    }

    /// Starts what waits, as far as there is room.
    fn start(&mut self) {
        let (parallel, limit) = {
            let config = self.config.borrow();
            (config.parallel, config.timeout.duration())
        };
        while self.running.len() < parallel
            && let Some(run) = self.waiting.pop_front()
        {
            self.running.spawn(run.run(limit));
        }
        if self.waiting.is_empty() && self.unrun != 0 {
            log::warn!("notify.command: {} commands were not run for want of room", self.unrun);
            self.unrun = 0;
        }
    }
}
