//! The smallest program there is: it ends at once with 0. For whoever starts programs by the million.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// Where its one segment is put.
const BASE: u64 = 0x40_0000;
/// Bytes of ELF's header and of one program header.
const HEADERS: u64 = 64 + 56;
/// `xor edi, edi; mov eax, SYS_exit_group; syscall`.
const CODE: [u8; 9] = [0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05];

/// The file: an ELF for x86-64 without sections, dynamic linker or data (elf(5)).
fn elf() -> Vec<u8> {
    let size = HEADERS + CODE.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves =
        |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|one| file.extend(one.to_le_bytes()));
    let words =
        |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|one| file.extend(one.to_le_bytes()));
    // ET_EXEC, EM_X86_64, version 1.
    halves(&mut file, &[2, 62, 1, 0]);
    // Entry; program headers follow; no section headers.
    words(&mut file, &[BASE + HEADERS, 64, 0]);
    // Flags, sizes and numbers of headers.
    halves(&mut file, &[0, 0, 64, 56, 1, 0, 0, 0]);
    // PT_LOAD, readable and executable: the whole file.
    halves(&mut file, &[1, 0, 5, 0]);
    words(&mut file, &[0, BASE, BASE, size, size, 0x1000]);
    file.extend(CODE);
    file
}

/// Writes the program.
///
/// # Errors
/// With the system's words.
pub fn write(path: &Path) -> Result<()> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o755).open(path).map_err(failed)?;
    std::io::Write::write_all(&mut file, &elf()).map_err(failed)
}

/// Starts it `count` times, one after the other (vfork, exec, exit).
///
/// # Errors
/// It cannot be started, or does not end with 0.
pub fn run(path: &Path, count: u32) -> Result<()> {
    let failed = |source| Error::Program { program: path.display().to_string(), source };
    let mut program = Command::new(path);
    program.env_clear().stdin(Stdio::inherit());
    for _ in 0..count {
        let status = program.status().map_err(failed)?;
        if !status.success() {
            return Err(Error::Answer { program: path.display().to_string(), output: status.to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_ends_with_nothing() {
        let folder = tempfile_folder();
        let path = folder.join("tiny");
        write(&path).unwrap();
        run(&path, 3).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile_folder() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("portcullis-tiny-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}
