//! What the PAM module did without the gate: it leaves one byte a time in a file, where nothing else could be told.
//!
//! Invariants: the file is the module's to write and root's alone; here it is only read, and emptied when it has grown;
//! what was counted once is not counted again while the agent runs. Bytes that are none of the two are passed over.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use portcullis_common::abi::unreachable::{GROWN, IGNORED, REFUSED};

/// The file, as far as it was read.
#[derive(Debug)]
pub struct Unreachable {
    path: PathBuf,
    read: u64,
}

/// What is new in it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Attempts let through uncounted (`on_error=ignore`).
    pub ignored: u64,
    /// Attempts refused (`on_error=deny`, or what a caller can cause).
    pub refused: u64,
}

impl Unreachable {
    /// The file at `path`, from its beginning: what happened before the agent started is news.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// Reads on.
    ///
    /// # Errors
    /// The file can be opened but not read or emptied. No file is no error.
    pub fn news(&mut self) -> io::Result<News> {
        let mut file = match File::options().read(true).write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(News::default()),
            other => other?,
        };
        if file.metadata()?.len() < self.read {
            // Somebody else emptied it.
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.take(2 * GROWN).read_to_end(&mut bytes)?;
        self.read += bytes.len() as u64;
        if self.read >= GROWN {
            // A byte that comes between the reading and this is lost; the journal has its line.
            File::options().write(true).truncate(true).open(&self.path)?;
            self.read = 0;
        }
        let count = |kind: u8| bytes.iter().filter(|byte| **byte == kind).count() as u64;
        Ok(News { ignored: count(IGNORED), refused: count(REFUSED) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn each_byte_is_news_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unreachable");
        let mut unreachable = Unreachable::new(path.clone());
        assert_eq!(unreachable.news().unwrap(), News::default(), "no file");
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(&[IGNORED, REFUSED, IGNORED, b'?']).unwrap();
        assert_eq!(unreachable.news().unwrap(), News { ignored: 2, refused: 1 });
        assert_eq!(unreachable.news().unwrap(), News::default());
        file.write_all(&[REFUSED]).unwrap();
        assert_eq!(unreachable.news().unwrap(), News { ignored: 0, refused: 1 });
    }

    #[test]
    fn a_file_that_has_grown_is_emptied_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unreachable");
        let mut unreachable = Unreachable::new(path.clone());
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(&vec![IGNORED; GROWN as usize]).unwrap();
        assert_eq!(unreachable.news().unwrap().ignored, GROWN);
        assert_eq!(file.metadata().unwrap().len(), 0);
        file.write_all(&[IGNORED]).unwrap();
        assert_eq!(unreachable.news().unwrap().ignored, 1);
    }
}
