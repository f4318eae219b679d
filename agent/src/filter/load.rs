//! Loads the filter's object over its pinned maps.
//!
//! Invariants: pins are root's (0600 in a 0700 folder); maps that are pinned are reused after their shape was checked;
//! nothing here touches the gate or its pins.

use aya::maps::MapType;
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Btf, Ebpf, EbpfLoader};
use portcullis_common::filter::{self, FILTER_DIR, fast, limit, map, record, stat, throttle};

use super::command::FilterError;
use crate::kernel::{Maps, Shape, bytes};

/// The eBPF object this agent was built with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis.filter.o"));

/// The classifier for interfaces with Ethernet headers.
pub const TC: &str = "filter_tc";
/// The classifier for those without.
pub const RAW: &str = "filter_raw";
/// Starts the timer that ends leases.
pub const SWEEP: &str = "filter_sweep";
/// The XDP program.
pub const XDP: &str = "filter_xdp";

const LEASE: u32 = bytes::<record::Lease>();
const LINES: u32 = fast::MAX_LINES;
const MAPS: Maps = Maps { folder: FILTER_DIR, shapes: &SHAPES, removed: "drops come back from the store" };
const CHAIN: u32 = bytes::<throttle::Chain>();
const SHAPES: [Shape; 29] = [
    Shape::array(map::FAST, bytes::<fast::Heads>(), 1),
    Shape::array(map::FAST_LINES_4, 64, LINES),
    Shape::array(map::FAST_LINES_6, 64, LINES),
    Shape::array(map::FAST_BITS_4, 8, LINES),
    Shape::array(map::FAST_BITS_6, 8, LINES),
    Shape::array(map::FAST_INDEX_4, 96, LINES),
    Shape::array(map::FAST_INDEX_6, 32, LINES),
    Shape::array(map::FAST_ROWS_4, 24, fast::ROWS_4),
    Shape::array(map::FAST_ROWS_6, 32, fast::ROWS_6),
    Shape::array(map::TIMER, 16, 1),
    Shape::array(map::TURNS, 4, fast::TURNS),
    Shape::new(map::DROPS_4, MapType::Hash, 4, LEASE, filter::MAX_HOSTS),
    Shape::new(map::DROPS_6, MapType::Hash, 8, LEASE, filter::MAX_HOSTS),
    Shape::new(map::NETS_4, MapType::LpmTrie, 12, LEASE, filter::MAX_NETS),
    Shape::new(map::NETS_6, MapType::LpmTrie, 20, LEASE, filter::MAX_NETS),
    Shape::new(map::ALLOW_4, MapType::LpmTrie, 12, 8, filter::MAX_ALLOW),
    Shape::new(map::ALLOW_6, MapType::LpmTrie, 20, 8, filter::MAX_ALLOW),
    Shape::array(map::SETTINGS, bytes::<record::Settings>(), 1),
    Shape::new(map::STATS, MapType::PerCpuArray, 4, 8, stat::ENTRIES),
    Shape::new(map::PACE, MapType::PerCpuArray, 4, 8 * filter::pace::ENTRIES as u32, 1),
    Shape::ring(map::SAMPLES, filter::SAMPLES_BYTES),
    Shape::array(throttle::map::THROTTLES, bytes::<throttle::Throttle>(), throttle::MAX_THROTTLES),
    Shape::array(throttle::map::COUNTS, bytes::<throttle::Counts>(), 1),
    Shape::new(throttle::map::NETS_4, MapType::LpmTrie, 12, CHAIN, throttle::MAX_THROTTLES),
    Shape::new(throttle::map::NETS_6, MapType::LpmTrie, 20, CHAIN, throttle::MAX_THROTTLES),
    Shape::new(throttle::map::PORTS, MapType::Hash, 4, CHAIN, throttle::MAX_THROTTLES),
    Shape::new(throttle::map::LINKS, MapType::Hash, 4, CHAIN, throttle::MAX_THROTTLES),
    Shape::new(throttle::map::SHARES, MapType::LruHash, 16, bytes::<limit::Share>(), throttle::MAX_SHARES),
    Shape::new(throttle::map::FLOWS, MapType::LruHash, 24, 8, throttle::MAX_FLOWS),
];

/// The loaded programs; XDP where the kernel takes it.
pub struct Programs {
    ebpf: Ebpf,
    /// Why there is no XDP.
    pub no_xdp: Option<String>,
}

fn kernel<E: std::error::Error + 'static>(what: &'static str) -> impl FnOnce(E) -> FilterError {
    move |error| FilterError::Kernel(format!("cannot {what}: {}", crate::text::chain(&error)))
}

fn refused(program: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> FilterError {
    move |error| crate::kernel::refused(program)(error).into()
}

/// Loads the object and pins its maps.
///
/// # Errors
/// `portcullis=off`, no bpffs, pins of another shape, or the kernel takes neither maps nor classifiers.
pub fn load(object: &[u8]) -> Result<Programs, FilterError> {
    crate::kernel::prepare()?;
    MAPS.prepare()?;
    crate::kernel::raise_memlock();
    let btf = Btf::from_sys_fs().map_err(kernel("read the kernel's type information"))?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    MAPS.pin(&mut loader);
    let mut ebpf = loader.load(object).map_err(kernel("load the filter's object"))?;
    MAPS.tighten()?;
    for name in [TC, RAW] {
        classifier(&mut ebpf, name)?.load().map_err(refused(name))?;
    }
    if !cfg!(feature = "mutation-no-sweep") {
        sweep(&mut ebpf)?;
    }
    let no_xdp = xdp(&mut ebpf)
        .and_then(|program| program.load().map_err(refused(XDP)))
        .err()
        .map(|error| error.to_string());
    Ok(Programs { ebpf, no_xdp })
}

/// Starts the sweep, with this object's program; it goes on when this process ends.
fn sweep(ebpf: &mut Ebpf) -> Result<(), FilterError> {
    let program = classifier(ebpf, SWEEP)?;
    program.load().map_err(refused(SWEEP))?;
    // Any packet will do; none shorter than this is taken.
    let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() };
    let answer = program.test_run(options).map_err(kernel("start the filter's timer"))?.return_value;
    if answer == 0 {
        return Ok(());
    }
    let error = std::io::Error::from_raw_os_error((answer as i32).wrapping_neg());
    Err(FilterError::Kernel(format!("cannot start the filter's timer, so that drops would not end: {error}")))
}

fn missing(name: &str) -> FilterError {
    FilterError::Kernel(format!(
        "the filter's object lacks {name}: it is another version's, build it anew with `cargo xtask build-ebpf`"
    ))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, FilterError> {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(missing(name)),
    }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, FilterError> {
    match ebpf.program_mut(XDP) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(missing(XDP)),
    }
}

impl Programs {
    /// The classifier for interfaces with ([`TC`]) or without ([`RAW`]) Ethernet headers.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, FilterError> {
        classifier(&mut self.ebpf, name)
    }

    /// The kernel's numbers of the classifiers.
    #[must_use]
    pub fn classifiers(&self) -> Vec<u32> {
        let id = |name| match self.ebpf.program(name) {
            Some(Program::SchedClassifier(program)) => program.info().ok().map(|info| info.id()),
            _ => None,
        };
        [TC, RAW].into_iter().filter_map(id).collect()
    }

    /// The XDP program, loaded.
    ///
    /// # Errors
    /// The kernel did not take it.
    pub fn xdp(&mut self) -> Result<&mut Xdp, FilterError> {
        match &self.no_xdp {
            Some(why) => Err(FilterError::Kernel(why.clone())),
            None => xdp(&mut self.ebpf),
        }
    }
}
