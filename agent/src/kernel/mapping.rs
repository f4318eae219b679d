//! A file as the kernel shows it to programs that run it: a private mapping, compared with the file.
//!
//! A uprobe is a breakpoint that the kernel writes into the memory of every process that maps the file, whoever asked for
//! it and by which call. A mapping of ours gets it as well, and differs from the file from then on.
//!
//! Invariants: the mapping is read through /proc/self/mem, so that a file cut short under it is an error and no SIGBUS; it
//! is never executed or written.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Largest file mapped.
const LARGEST: u64 = 64 << 20;
/// Bytes compared at once.
const PIECE: usize = 64 << 10;

/// A mapped file.
#[derive(Debug)]
pub struct Mapping {
    file: File,
    memory: File,
    address: usize,
    length: usize,
}

impl Mapping {
    /// Maps the file.
    ///
    /// # Errors
    /// It cannot be opened or mapped, or is empty or larger than 64 MiB.
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let length = usize::try_from(length).ok().filter(|_| (1..=LARGEST).contains(&length));
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "odd size"))?;
        let memory = File::open("/proc/self/mem")?;
        // SAFETY: a new private mapping, read only, of a file that is open; nothing else is at the address it gets.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, memory, address: address as usize, length })
    }

    /// The first place where memory and file differ.
    ///
    /// # Errors
    /// Either cannot be read.
    pub fn differs(&self) -> io::Result<Option<u64>> {
        let (mut mapped, mut plain) = (vec![0; PIECE], vec![0; PIECE]);
        let mut at = 0;
        while at < self.length {
            let piece = PIECE.min(self.length - at);
            let (Some(mapped), Some(plain)) = (mapped.get_mut(..piece), plain.get_mut(..piece)) else {
                break;
            };
            self.file.read_exact_at(plain, at as u64)?;
            self.memory.read_exact_at(mapped, (self.address + at) as u64)?;
            if mapped != plain {
                let first = mapped.iter().zip(plain.iter()).position(|(one, other)| one != other);
                return Ok(first.map(|first| (at + first) as u64));
            }
            at += piece;
        }
        Ok(None)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and nobody holds a reference into it.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_like_its_mapping_and_one_cut_short_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library");
        std::fs::write(&path, vec![7; 200_000]).unwrap();
        let mapping = Mapping::new(&path).unwrap();
        assert_eq!(mapping.differs().unwrap(), None);
        std::fs::write(&path, vec![8; 200_000]).unwrap();
        assert_eq!(mapping.differs().unwrap(), None, "a file that is written is seen in the mapping");
        std::fs::write(&path, "").unwrap();
        assert!(mapping.differs().is_err());
    }
}
