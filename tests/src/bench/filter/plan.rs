//! Sizes, kinds of traffic, rounds.

use std::path::PathBuf;
use std::time::Duration;

use super::fill::{Filled, fill};
use super::rows::{Row, Rows, make};
use crate::Result;
use crate::traffic::generator::{Flood, before_others, on, test_run};
use crate::traffic::port::FLOODER;
use crate::traffic::programs::map_bytes;
use crate::traffic::scene::Scene;
use crate::traffic::template::Kind;
use crate::traffic::watch::{Stretch, thread_on, watch};

/// First place of sources that are on no list.
const CLEAN: u32 = 1 << 29;
/// How many different clean sources there are.
const CLEAN_SOURCES: u32 = 1 << 20;
/// Sources of a flood by few.
pub const FEW: u32 = 1_000;
/// Before each stretch that counts: caches and the processor's clock settle.
const WARM_UP: Duration = Duration::from_millis(100);
/// Packets of one BPF_PROG_TEST_RUN.
const REPEAT: u32 = 2_000_000;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Begins the names of interfaces.
    pub token: String,
    /// The benchmark's object.
    pub object: PathBuf,
    /// IPv6 /64 instead of IPv4.
    pub six: bool,
    /// Lengths of the list, from short to long.
    pub sizes: Vec<u32>,
    /// How often each row is measured.
    pub rounds: u32,
    /// How long each time.
    pub time: Duration,
    /// Processor of the flood, and of the receiving threads.
    pub processors: (usize, usize),
}

/// Where the packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Any source of the list, each as likely.
    All,
    /// The first [`FEW`] of the list.
    Few,
    /// 1,048,576 sources, none of them on the list.
    Clean,
}

impl From {
    /// In JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "hit, uniform",
            Self::Few => "hit, 1,000 active",
            Self::Clean => "miss",
        }
    }

    fn places(self, size: u32) -> (u32, u32) {
        match self {
            Self::All => (0, size),
            Self::Few => (0, FEW),
            Self::Clean => (CLEAN, CLEAN_SOURCES),
        }
    }
}

/// One row under one kind of traffic.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Which row.
    pub row: Row,
    /// Which traffic.
    pub from: From,
    /// One stretch a round; in the same order for all rows.
    pub stretches: Vec<Stretch>,
}

/// A program without the path of a packet: BPF_PROG_TEST_RUN over packets with random sources.
#[derive(Clone, Copy, Debug)]
pub struct Tested {
    /// Which row.
    pub row: Row,
    /// Which traffic.
    pub from: From,
    /// Nanoseconds a packet, less what the same costs with a program that only drops; the median of all rounds.
    pub nanoseconds: i64,
}

/// All about one length of the list.
#[derive(Clone, Debug)]
pub struct Size {
    /// Entries.
    pub entries: u32,
    /// How the lists got there.
    pub filled: Vec<Filled>,
    /// Bytes of all maps of the filter, as the kernel charges them.
    pub bytes: u64,
    /// Packets.
    pub cells: Vec<Cell>,
    /// Programs.
    pub tested: Vec<Tested>,
}

/// Runs it.
///
/// # Errors
/// What a row says that cannot be made, filled or measured.
pub fn run(asked: &Asked) -> Result<Vec<Size>> {
    on(asked.processors.0)?;
    before_others()?;
    let mut rows = make(&asked.token, &asked.object, asked.six)?;
    let mut sizes = Vec::new();
    let mut have = 0;
    for entries in &asked.sizes {
        let filled = fill(&mut rows, &(have..*entries))?;
        have = *entries;
        let bytes = map_bytes(&rows.filter)?;
        let (cells, tested) = measure(&mut rows, asked, *entries)?;
        sizes.push(Size { entries: *entries, filled, bytes, cells, tested });
    }
    Ok(sizes)
}

fn measure(rows: &mut Rows, asked: &Asked, entries: u32) -> Result<(Vec<Cell>, Vec<Tested>)> {
    let traffic = [From::All, From::Few, From::Clean];
    let traffic = traffic.into_iter().filter(|from| *from != From::Few || entries > FEW);
    let mut cells: Vec<Cell> = Vec::new();
    for from in traffic.clone() {
        for ready in &rows.ready {
            // Without a list there is no difference between clean sources and others.
            if (ready.row != Row::None || from == From::All) && entries <= ready.row.most() {
                cells.push(Cell { row: ready.row, from, stretches: Vec::new() });
            }
        }
    }
    let tests = [Row::Bare, Row::Filter, Row::Hash];
    let mut tested: Vec<(Row, From, Vec<i64>)> = Vec::new();
    for round in 0..asked.rounds {
        let count = cells.len();
        for step in 0..count {
            let place = (step + round as usize * 3) % count;
            let Some(cell) = cells.get_mut(place) else { continue };
            eprint!(
                "\r\x1b[K{entries} entries, round {} of {}, {} of {count}: {}, {}",
                round + 1,
                asked.rounds,
                step + 1,
                cell.row.name(),
                cell.from.name()
            );
            let stretch = stretch(rows, asked, cell.row, cell.from, entries)?;
            cell.stretches.push(stretch);
        }
        for from in traffic.clone() {
            let mut base = 0;
            for row in tests {
                let took = i64::from(test(rows, asked, row, from, entries)?);
                if row == Row::Bare {
                    base = took;
                    continue;
                }
                match tested.iter_mut().find(|(other, traffic, _)| (*other, *traffic) == (row, from)) {
                    Some((_, _, all)) => all.push(took - base),
                    None => tested.push((row, from, vec![took - base])),
                }
            }
        }
    }
    eprint!("\r\x1b[K");
    let middle = |mut all: Vec<i64>| {
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    };
    let tested =
        tested.into_iter().map(|(row, from, all)| Tested { row, from, nanoseconds: middle(all) }).collect();
    Ok((cells, tested))
}

fn scene(base: Scene, interface: u32, from: From, entries: u32) -> Scene {
    let (first, count) = from.places(entries);
    Scene { interface, first, count, ..base }
}

const fn kind(six: bool) -> Kind {
    if six { Kind::Udp6 } else { Kind::Udp4 }
}

/// One flood at one row.
fn stretch(rows: &mut Rows, asked: &Asked, row: Row, from: From, entries: u32) -> Result<Stretch> {
    let template = kind(rows.six).template();
    let ports = rows.ready.iter().find(|ready| ready.row == row);
    let ports = ports.map(|ready| if from == From::Clean { &ready.closed } else { &ready.open });
    let port = ports
        .cloned()
        .ok_or_else(|| crate::Error::Answer { program: row.name().into(), output: "is not ready".into() })?;
    rows.programs.set(scene(template.scene, port.sender, from, entries))?;
    let thread = thread_on(&port, asked.processors.1)?;
    let flood = Flood::start(rows.programs.fd("flood")?, template.frame, FLOODER, asked.processors.0)?;
    std::thread::sleep(WARM_UP);
    let seen = watch(&port, &thread, asked.time)?;
    flood.end()?;
    Ok(seen)
}

/// The program of a row by itself; nanoseconds a packet, that of making the packet included.
fn test(rows: &mut Rows, asked: &Asked, row: Row, from: From, entries: u32) -> Result<u32> {
    let name = match row {
        Row::Filter => "tested_filter",
        Row::Hash => "tested_hash",
        _ => "tested_drop",
    };
    let template = kind(rows.six).template();
    rows.programs.set(scene(template.scene, 0, from, entries))?;
    let program = rows.programs.fd(name)?;
    let processor = asked.processors.1;
    std::thread::scope(|scope| {
        let run = scope.spawn(move || {
            on(processor)?;
            test_run(&program, &template.frame, REPEAT)
        });
        run.join().unwrap_or_else(|_| {
            Err(crate::Error::Answer { program: name.into(), output: "its thread panicked".into() })
        })
    })
}
