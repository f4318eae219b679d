//! The benchmark's own object (ebpf/src/bench), loaded; and programs of others, by their number.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::{Array, HashMap, MapData, ProgramArray, loaded_maps};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode, loaded_programs};
use aya::{Ebpf, EbpfLoader, Pod};

use super::refused;
use super::scene::{Scene, source_4, source_6};
use crate::{Error, Result};

// SAFETY: repr(C), integers alone, without padding: 8 of 32 bits, 5 of 64.
unsafe impl Pod for Scene {}

/// Places of the judges, as in the object.
pub mod judge {
    /// Drops everything.
    pub const DROP: u32 = 0;
    /// The filter's XDP program.
    pub const FILTER: u32 = 1;
    /// The kernel's hash.
    pub const HASH: u32 = 2;
}

/// The loaded object.
#[derive(Debug)]
pub struct Programs(Ebpf);

impl Programs {
    /// Loads everything in it.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn load(object: &Path) -> Result<Self> {
        let bytes = fs::read(object).map_err(|source| Error::File { path: object.into(), source })?;
        let mut ebpf = EbpfLoader::new().load(&bytes).map_err(refused("the benchmark's object"))?;
        for (name, program) in ebpf.programs_mut() {
            match program {
                aya::programs::Program::Xdp(program) => program.load().map_err(refused(name))?,
                aya::programs::Program::SchedClassifier(program) => program.load().map_err(refused(name))?,
                _ => {}
            }
        }
        Ok(Self(ebpf))
    }

    /// An XDP program of the object.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let found = self.0.program_mut(name).and_then(|program| program.try_into().ok());
        found.ok_or_else(|| missing(name))
    }

    /// The classifier that drops everything.
    ///
    /// # Errors
    /// It is not there.
    pub fn tc_drop(&mut self) -> Result<&mut SchedClassifier> {
        let found = self.0.program_mut("tc_drop").and_then(|program| program.try_into().ok());
        found.ok_or_else(|| missing("tc_drop"))
    }

    /// A program's descriptor.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn fd(&self, name: &str) -> Result<ProgramFd> {
        let program = self.0.program(name).ok_or_else(|| missing(name))?;
        let fd = program.fd().map_err(refused(name))?;
        fd.try_clone().map_err(refused(name))
    }

    /// Attaches an XDP program to an interface of the calling thread's network, in the driver. It is let go with this.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn attach(&mut self, name: &str, interface: u32) -> Result<()> {
        self.xdp(name)?.attach_to_if_index(interface, XdpMode::Driver).map_err(refused(name)).map(drop)
    }

    /// Attaches the classifier that drops everything, behind those that are there.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn attach_tc_drop(&mut self, interface: &str) -> Result<()> {
        self.tc_drop()?.attach(interface, TcAttachType::Ingress).map_err(refused("tc_drop")).map(drop)
    }

    /// Names the program that answers for a judge.
    ///
    /// # Errors
    /// The kernel's words: it is of another kind.
    pub fn appoint(&mut self, judge: u32, program: &ProgramFd) -> Result<()> {
        let map = self.0.map_mut("JUDGES").ok_or_else(|| missing("JUDGES"))?;
        let mut judges = ProgramArray::try_from(map).map_err(refused("JUDGES"))?;
        judges.set(judge, program, 0).map_err(refused("a judge"))
    }

    /// Sets the scene.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn set(&mut self, scene: Scene) -> Result<()> {
        let map = self.0.map_mut("SCENE").ok_or_else(|| missing("SCENE"))?;
        let mut scenes: Array<&mut MapData, Scene> = Array::try_from(map).map_err(refused("SCENE"))?;
        scenes.set(0, scene, 0).map_err(refused("the scene"))
    }

    /// What the flood has written.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn scene(&self) -> Result<Scene> {
        let map = self.0.map("SCENE").ok_or_else(|| missing("SCENE"))?;
        let scenes: Array<&MapData, Scene> = Array::try_from(map).map_err(refused("SCENE"))?;
        scenes.get(&0, 0).map_err(refused("the scene"))
    }

    /// Puts places into the kernel's hash, one call an entry.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn list(&mut self, six: bool, places: std::ops::Range<u32>) -> Result<()> {
        let name = if six { "HASH_6" } else { "HASH_4" };
        let map = self.0.map_mut(name).ok_or_else(|| missing(name))?;
        if six {
            let mut hash: HashMap<&mut MapData, [u8; 8], u64> =
                HashMap::try_from(map).map_err(refused(name))?;
            for place in places {
                hash.insert(source_6(place).to_be_bytes(), 1, 0).map_err(refused(name))?;
            }
        } else {
            let mut hash: HashMap<&mut MapData, [u8; 4], u64> =
                HashMap::try_from(map).map_err(refused(name))?;
            for place in places {
                hash.insert(source_4(place).to_be_bytes(), 1, 0).map_err(refused(name))?;
            }
        }
        Ok(())
    }

    /// Bytes that the kernel charges for one of the hashes.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn hash_bytes(&self, six: bool) -> Result<u64> {
        let name = if six { "HASH_6" } else { "HASH_4" };
        match self.0.map(name) {
            Some(aya::maps::Map::HashMap(data)) => memlock(data.fd()),
            _ => Err(missing(name)),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::Answer { program: "the benchmark's object".into(), output: format!("has no {name}") }
}

/// A loaded program of anybody, by its number.
///
/// # Errors
/// There is none.
pub fn by_id(id: u32) -> Result<ProgramInfo> {
    let found = loaded_programs().filter_map(std::result::Result::ok).find(|program| program.id() == id);
    found.ok_or_else(|| Error::Answer { program: "the kernel".into(), output: format!("no program {id}") })
}

/// Bytes that the kernel charges for all maps of a program.
///
/// # Errors
/// The kernel's words.
pub fn map_bytes(program: &ProgramInfo) -> Result<u64> {
    let ids = program.map_ids().map_err(refused("the filter's maps"))?.unwrap_or_default();
    let mut bytes = 0;
    for map in loaded_maps().filter_map(std::result::Result::ok).filter(|map| ids.contains(&map.id())) {
        bytes += memlock(&map.fd().map_err(refused("a map of the filter"))?)?;
    }
    Ok(bytes)
}

/// `memlock` of a descriptor in /proc/self/fdinfo.
fn memlock(fd: &impl AsFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = crate::system::read(Path::new(&path))?;
    let number = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    number.ok_or(Error::Answer { program: path, output: text })
}
