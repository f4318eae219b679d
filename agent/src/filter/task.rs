//! The filter's task: commands, leases that end, interfaces and addresses that come and go, samples.
//!
//! Invariants: everything that changes the filter happens in this task, one after the other; stopping lets nothing go.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::command::{Command, Handle};
use super::samples::{Raw, Samples};
use super::throttle::HeldThrottle;
use super::worker::Worker;
use super::{Given, Held, links};
use crate::api::hub::Hub;
use crate::api::view::Event;
use crate::config::Config;
use crate::store::drops::DropStore;

/// News of interfaces come in bursts: one look is enough for all that come within this time.
const BURST: Duration = Duration::from_millis(20);
/// Drops told one by one; of more, how many.
const TOLD: usize = 20;

/// Loads the filter, gives back what the store has and attaches it, then ends: before the network's services start.
///
/// What goes wrong is logged: the gate does not wait for the filter.
pub fn bring_up(config: &Config) {
    Worker::new(config.filter.clone(), DropStore::open(&config.agent.store)).start();
}

/// The task.
pub struct Task {
    worker: Worker,
    handle: Handle,
    hub: Arc<Hub>,
    samples: Option<Samples>,
    news: Option<AsyncFd<OwnedFd>>,
}

impl Task {
    /// Starts the filter as the configuration has it. Call it inside a tokio runtime.
    #[must_use]
    pub fn new(config: &Config, handle: Handle, hub: Arc<Hub>) -> Self {
        let worker = Worker::new(config.filter.clone(), DropStore::open(&config.agent.store));
        let news = links::news()
            // SAFETY: the socket is owned by the AsyncFd, and its descriptor is the same as long as it lives.
            .and_then(|socket| Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?))
            .map_err(|error| log::error!("interfaces and addresses that come later are not seen: {error}"))
            .ok();
        Self { worker, handle, hub, samples: None, news }
    }

    /// Works until told to stop.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        tokio::task::block_in_place(|| {
            self.worker.start();
            self.look_around();
        });
        self.open_samples();
        loop {
            let next = self.worker.until_next();
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => break,
                    // A list of 100,000 takes a while.
                    Some(command) => tokio::task::block_in_place(|| self.command(command)),
                },
                () = tokio::time::sleep(next) => self.expire(),
                () = changed(self.news.as_ref()) => {
                    tokio::task::block_in_place(|| self.look());
                }
                found = read(self.samples.as_mut()) => self.tell(&found),
            }
        }
    }

    /// Looks at interfaces, addresses and routes after news of them.
    fn look(&mut self) {
        if let Err(error) = self.worker.follow(false) {
            log::error!("{error}");
        }
        self.look_around();
    }

    fn look_around(&mut self) {
        if let Some(ours) = self.worker.look_around() {
            self.publish("undropped", ours.iter(), ours.len());
            self.handle.moved();
        }
    }

    fn open_samples(&mut self) {
        let opened = self.worker.works().then(Samples::open).transpose();
        self.samples = opened.unwrap_or_else(|error| {
            log::error!("no samples of dropped packets: {error}");
            None
        });
    }

    fn command(&mut self, command: Command) {
        // Whoever asked may be gone.
        match command {
            Command::Give { leases, all_or_none, asker, reply } => {
                let answers = self.worker.give(leases, all_or_none, &asker);
                let given: Vec<&Given> = answers.iter().flatten().collect();
                self.publish("dropped", given.iter().map(|given| &given.held), given.len());
                let _ = reply.send(answers);
            }
            Command::Take { nets, by, reply } => {
                let answers = self.worker.take(&nets, by);
                let taken: Vec<&Held> = answers.iter().flatten().collect();
                self.publish("undropped", taken.iter().copied(), taken.len());
                let _ = reply.send(answers);
            }
            Command::List(reply) => {
                let _ = reply.send(self.worker.list());
            }
            Command::Throttle { throttle, asker, reply } => {
                let answer = self.worker.throttle(throttle, &asker);
                if let Ok(held) = &answer {
                    self.publish_throttles("throttled", std::slice::from_ref(held));
                }
                let _ = reply.send(answer);
            }
            Command::Unthrottle { target, reply } => {
                let answer = self.worker.unthrottle(&target);
                self.publish_throttles("unthrottled", answer.as_deref().unwrap_or_default());
                let _ = reply.send(answer);
            }
            Command::Throttles(reply) => {
                let _ = reply.send(self.worker.throttles());
            }
            Command::Show(reply) => {
                let _ = reply.send(self.worker.show());
            }
            Command::Adopt(config, reply) => {
                let worked = self.worker.works();
                let adopted = self.worker.adopt(config.filter);
                self.look_around();
                if worked != self.worker.works() {
                    self.open_samples();
                }
                if let Err(error) = &adopted {
                    log::error!("{error}");
                }
                let _ = reply.send(adopted);
            }
            Command::Heal(reply) => {
                let _ = reply.send(self.worker.follow(true));
            }
            Command::Stop => {}
        }
    }

    fn expire(&mut self) {
        match self.worker.expire() {
            Ok(ended) => self.publish("drop_ended", ended.iter(), ended.len()),
            Err(error) => log::error!("{error}"),
        }
        match self.worker.expire_throttles() {
            Ok(ended) => self.publish_throttles("throttle_ended", &ended),
            Err(error) => log::error!("{error}"),
        }
    }

    fn publish_throttles(&self, name: &str, throttles: &[HeldThrottle]) {
        let words = |held: &HeldThrottle| {
            let throttle = &held.throttle;
            let target = crate::text::escape(throttle.target.to_string().as_bytes());
            let reason = crate::text::escape(throttle.reason.as_bytes());
            format!(
                "{target} to {} ({}: {reason}), {} packets passed, {} held back",
                throttle.rate, throttle.cause, held.passed.0, held.limited.0
            )
        };
        self.say(name, throttles.iter().map(words).collect());
    }

    /// Says what was done, as the engine says it.
    fn publish<'a>(&self, name: &str, leases: impl Iterator<Item = &'a Held>, count: usize) {
        let details: Vec<String> = if count > TOLD {
            vec![format!("{count} networks")]
        } else {
            leases
                .map(|held| {
                    let reason = crate::text::escape(held.lease.reason.as_bytes());
                    format!("{} ({}: {reason}), {} packets", held.lease.net, held.lease.cause, held.packets)
                })
                .collect()
        };
        self.say(name, details);
    }

    fn say(&self, name: &str, details: Vec<String>) {
        for detail in details {
            let mut event = Event::new(Timestamp::now(), name);
            event.detail = Some(detail);
            self.hub.publish(log::Level::Info, event);
        }
    }

    fn tell(&self, found: &[Raw]) {
        let Ok(boot) = crate::clock::boot() else { return };
        let now = (boot.0, Timestamp::now());
        for raw in found {
            self.handle.tell(raw.view(now, self.worker.name_of(raw.interface())));
        }
    }
}

/// Returns when interfaces have changed; never where no news come.
async fn changed(news: Option<&AsyncFd<OwnedFd>>) {
    let Some(news) = news else { return std::future::pending().await };
    let Ok(mut guard) = news.readable().await else { return std::future::pending().await };
    // Who is cancelled here is ready again at once.
    tokio::time::sleep(BURST).await;
    // What they say does not matter: the whole list is looked at. Lost ones (ENOBUFS) are news too.
    let mut bytes = [0; 8192];
    while nix::sys::socket::recv(news.as_raw_fd(), &mut bytes, nix::sys::socket::MsgFlags::empty()).is_ok() {}
    guard.clear_ready();
}

/// Samples; never where there are none to read.
async fn read(samples: Option<&mut Samples>) -> Vec<Raw> {
    match samples {
        None => std::future::pending().await,
        Some(samples) => match samples.read().await {
            Ok(found) => found,
            Err(error) => {
                log::error!("{error}");
                std::future::pending().await
            }
        },
    }
}
