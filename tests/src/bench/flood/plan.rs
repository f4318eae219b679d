//! Kinds, rates, rounds.
//!
//! Invariant: what is not asked of a defence is not in its row.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::floods::{Crowd, Kind};
use super::innocents::{Answers, ask};
use super::rules::{answer, fill, prepare};
use super::scene::{Defence, Place, SSHD, Scene, make};
use crate::Result;
use crate::system::{wait_for, write};
use crate::traffic::generator::{Flood, before_others, on};
use crate::traffic::port::FLOODER;
use crate::traffic::refused;
use crate::traffic::scene as packets;
use crate::traffic::watch::thread_on;

/// Before each stretch that counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Nanoseconds between two bursts of a flood, as network cards moderate their interrupts: without, the flood's cost is that
/// of waking the receiver for every packet.
const MODERATION: u64 = 50_000;
/// Frames of a burst at the most: those of one turn of the generator.
const BATCH: u64 = 64;
/// sshd as it comes, on every address, without PAM: nobody logs on.
const SETTINGS: &str =
    "HostKey /etc/ssh/ssh_host_ed25519_key\nPidFile none\nUsePAM no\nMaxStartups 10:30:100\n";
const CONFIG: &str = "/etc/ssh/sshd-flood.conf";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Begins the names of interfaces.
    pub token: String,
    /// The benchmark's object.
    pub object: PathBuf,
    /// Packets a second.
    pub rates: Vec<u32>,
    /// How often each row is measured.
    pub rounds: u32,
    /// How long each time.
    pub time: Duration,
    /// Processor of the flood and the innocents, and of the victims.
    pub processors: (usize, usize),
}

/// One stretch of a row.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Packets or connections that were sent in a second.
    pub sent: f64,
    /// What the innocents got.
    pub answers: Answers,
}

/// A row: a defence, or the same flood that does not arrive.
#[derive(Clone, Debug)]
pub struct Row {
    /// None: the flood does not arrive.
    pub defence: Option<Defence>,
    /// What is done; none: nothing there is, and nothing was measured.
    pub answer: Option<&'static str>,
    /// One a round.
    pub stretches: Vec<Stretch>,
}

/// One kind of flood at one rate.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which.
    pub kind: Kind,
    /// Packets a second; none: as many as connections are kept open.
    pub rate: Option<u32>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Runs it.
///
/// # Errors
/// What cannot be made or measured.
pub fn run(asked: &Asked) -> Result<Vec<Case>> {
    // For the connections of a flood, both ends.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused("getrlimit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(refused("setrlimit"))?;
    on(asked.processors.0)?;
    before_others()?;
    let mut scene = make(&asked.token, &asked.object, asked.processors.1)?;
    fill(&scene)?;
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        prepare(&scene, kind)?;
        let rates: Vec<Option<u32>> = match kind.packets() {
            Some(_) => asked.rates.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let servers = if kind == Kind::Slow { servers(&scene, asked.processors.1)? } else { Vec::new() };
        for rate in rates {
            cases.push(case(&mut scene, asked, kind, rate)?);
        }
        drop(servers);
    }
    eprint!("\r\x1b[K");
    Ok(cases)
}

fn case(scene: &mut Scene, asked: &Asked, kind: Kind, rate: Option<u32>) -> Result<Case> {
    let defended = Defence::ALL.map(|defence| Row {
        defence: Some(defence),
        answer: answer(defence, kind),
        stretches: Vec::new(),
    });
    let quiet = Row { defence: None, answer: Some("the flood does not arrive"), stretches: Vec::new() };
    let mut rows: Vec<Row> = std::iter::once(quiet).chain(defended).collect();
    let count = rows.len();
    for round in 0..asked.rounds as usize {
        for step in 0..count {
            let Some(row) = rows.get_mut((step + round * 2) % count) else { continue };
            if row.answer.is_none() {
                continue;
            }
            let name = row.defence.map_or("none arrives", Defence::name);
            eprint!("\r\x1b[K{}, {rate:?}, round {} of {}: {name}", kind.name(), round + 1, asked.rounds);
            let stretch = stretch(scene, asked, kind, rate, row.defence)?;
            row.stretches.push(stretch);
        }
    }
    Ok(Case { kind, rate, rows })
}

/// One flood at one victim.
fn stretch(
    scene: &mut Scene,
    asked: &Asked,
    kind: Kind,
    rate: Option<u32>,
    defence: Option<Defence>,
) -> Result<Stretch> {
    let Scene { places, programs } = scene;
    let wanted = defence.unwrap_or(Defence::None);
    let place = places.iter().find(|place| place.defence == wanted).ok_or_else(|| missing(wanted))?;
    let (flood, victims) = asked.processors;
    thread_on(&place.port, victims)?;
    let innocents = |sent: &dyn Fn() -> Result<u64>| {
        std::thread::sleep(WARM_UP);
        let (begun, before) = (Instant::now(), sent()?);
        let answers = ask(place, kind.request(), flood, asked.time)?;
        let sent = (sent()? - before) as f64 / begun.elapsed().as_secs_f64();
        Ok::<Stretch, crate::Error>(Stretch { sent, answers })
    };
    let Some(frames) = kind.packets() else {
        if defence.is_none() {
            return innocents(&|| Ok(0));
        }
        let crowd = Crowd::start(place, kind, flood);
        let stretch = innocents(&|| Ok(crowd.begun()))?;
        crowd.end()?;
        return Ok(stretch);
    };
    let template = frames.template();
    let (first, count) = kind.sources();
    let pace = rate.map_or(0, |rate| 1_000_000_000 / u64::from(rate.max(1)));
    programs.set(packets::Scene {
        interface: place.port.sender,
        first,
        count,
        pace,
        burst: MODERATION.checked_div(pace).unwrap_or(1).clamp(1, BATCH),
        mute: u64::from(defence.is_none()),
        ..template.scene
    })?;
    let running = Flood::start(programs.fd("flood")?, template.frame, FLOODER, flood)?;
    let stretch = innocents(&|| Ok(programs.scene()?.sent))?;
    running.end()?;
    Ok(stretch)
}

fn missing(defence: Defence) -> crate::Error {
    crate::Error::Answer { program: defence.name().into(), output: "is not ready".into() }
}

/// An sshd that ends with this.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An sshd in each network, on the victims' processor.
fn servers(scene: &Scene, processor: usize) -> Result<Vec<Sshd>> {
    // Newer ones shut out who asks for the banner alone, innocents too.
    let penalties = crate::system::run("/usr/sbin/sshd", &["-T", "-o", "PerSourcePenalties=no"])?;
    let penalties = if penalties.0 { "PerSourcePenalties no\n" } else { "" };
    write(Path::new(CONFIG), &format!("Port {SSHD}\n{SETTINGS}{penalties}"))?;
    let mut servers = Vec::new();
    let mut networks: Vec<Option<String>> = Vec::new();
    for place in &scene.places {
        if networks.contains(&place.port.network) {
            continue;
        }
        networks.push(place.port.network.clone());
        let mut words =
            place.port.network.as_ref().map_or_else(Vec::new, |network| {
                ["ip", "netns", "exec", network].map(str::to_owned).to_vec()
            });
        let processor = processor.to_string();
        words.extend(["taskset", "-c", &processor, "/usr/sbin/sshd", "-D", "-f", CONFIG].map(str::to_owned));
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default();
        let child = Command::new(&program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| crate::Error::Program { program, source })?;
        servers.push(Sshd(child));
    }
    for place in &scene.places {
        wait_for(&format!("sshd behind {}", place.defence.name()), 10, || banner(place))?;
    }
    Ok(servers)
}

fn banner(place: &Place) -> Result<bool> {
    let Ok(answers) = ask(place, super::innocents::Request::Banner, 0, Duration::from_millis(1)) else {
        // Nobody listens yet.
        return Ok(false);
    };
    Ok(!answers.times.is_empty())
}
