//! The second rung: `passwd -l` and `passwd -u`, and what /etc/shadow says before and after.
//!
//! Invariants
//! * A password that was locked before is not touched, and one that was changed since we locked it is left alone.
//! * The truth is what is read back from the file, not an exit status.
//! * No shell; a cleared environment; a time limit; names that could be taken for options or hold odd bytes are refused.
//! * The password field itself leaves this module as a keyed digest only.

mod file;
mod passwd;

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher24};

pub use file::{Field, field};
pub(crate) use passwd::can_be_named;

/// The field of an account's expiry, as it stands in shadow(5).
///
/// # Errors
/// The file cannot be read, or it has no line of that name.
pub(crate) fn expiry(root: &Path, name: &str) -> Result<Vec<u8>, ShadowError> {
    let file = file::path(root);
    file::expiry(&file, name)?.ok_or_else(|| ShadowError::NoLine { name: name.to_owned(), file })
}

/// A keyed digest (SipHash-2-4, 128 bits) of a password field as we left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

/// How a lock went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// Locked by us and read back; this is what we left.
    Verified(Digest),
    /// It was locked before; nothing was done.
    AlreadyLocked,
}

/// How an unlock went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlocked {
    /// Unlocked and read back.
    Verified,
    /// The field is not as we left it; nothing was done.
    Foreign,
}

/// What a lock would leave, for the intent that is written before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It can be locked; this is what will be left.
    Ready(Digest),
    /// It is locked; nothing is to be done.
    AlreadyLocked,
}

/// Why a shadow action failed.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// No name for `passwd`.
    #[error(
        "{0:?} is no name to give to passwd: it is empty, too long, starts with '-' or holds odd characters"
    )]
    Name(String),
    /// Not a local account.
    #[error("{name} has no line in {file}: accounts of other databases are locked in the gate alone", file = file.display())]
    NoLine {
        /// The account.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// An empty password cannot be locked in a way that can be undone.
    #[error("{0} has an empty password: passwd -u could not undo a lock; set a password (passwd {0})")]
    Empty(String),
    /// The file cannot be read.
    #[error("cannot read {file}: {source}; the agent must run as root", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program cannot be run.
    #[error("cannot run {program}: {source}; install the package passwd", program = program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program took too long.
    #[error(
        "passwd took longer than {0:?} and was stopped; see whether another program holds /etc/.pwd.lock"
    )]
    Timeout(Duration),
    /// The file says that it did not work.
    #[error("passwd {option} {name} ended with {status} and the password is {found}: {said}")]
    NotDone {
        /// What was asked.
        option: &'static str,
        /// The account.
        name: String,
        /// Exit status or signal.
        status: String,
        /// What the file says.
        found: &'static str,
        /// What the program said.
        said: String,
    },
}

impl ShadowError {
    /// Whether another try may help.
    #[must_use]
    pub fn retry(&self) -> bool {
        !matches!(self, Self::Name(_) | Self::NoLine { .. } | Self::Empty(_))
    }
}

/// Locks and unlocks passwords on a host.
#[derive(Clone, Debug)]
pub struct Shadow {
    root: PathBuf,
    key: [u8; 16],
    timeout: Duration,
}

impl Shadow {
    /// For the host under `root` (`/`, or another root folder: then `passwd --root` is used), with the key of the
    /// digests and the time limit of one run of `passwd`.
    #[must_use]
    pub fn new(root: &Path, key: [u8; 16], timeout: Duration) -> Self {
        Self { root: root.to_owned(), key, timeout }
    }

    /// What a lock would leave.
    ///
    /// # Errors
    /// It cannot be locked, or that cannot be found out.
    pub fn prepare(&self, name: &str) -> Result<Prepared, ShadowError> {
        let before = self.read(name)?;
        match Field::of(&before) {
            Field::Locked => Ok(Prepared::AlreadyLocked),
            Field::Empty => Err(ShadowError::Empty(name.to_owned())),
            Field::Usable => Ok(Prepared::Ready(self.digest(&locked(&before)))),
        }
    }

    /// Whether the field is as we left it.
    ///
    /// # Errors
    /// That cannot be found out.
    pub fn holds(&self, name: &str, digest: &Digest) -> Result<bool, ShadowError> {
        Ok(self.digest(&self.read(name)?) == *digest)
    }

    /// Locks the password.
    ///
    /// # Errors
    /// The field is not locked afterwards.
    pub async fn lock(&self, name: &str) -> Result<Locked, ShadowError> {
        let before = self.read(name)?;
        match Field::of(&before) {
            Field::Locked => return Ok(Locked::AlreadyLocked),
            Field::Empty => return Err(ShadowError::Empty(name.to_owned())),
            Field::Usable => {}
        }
        let wanted = locked(&before);
        self.change("-l", name, |field| *field == wanted).await?;
        Ok(Locked::Verified(self.digest(&wanted)))
    }

    /// Unlocks a password that is as we left it.
    ///
    /// # Errors
    /// The field is still locked afterwards.
    pub async fn unlock(&self, name: &str, digest: &Digest) -> Result<Unlocked, ShadowError> {
        let before = self.read(name)?;
        if self.digest(&before) != *digest {
            return Ok(Unlocked::Foreign);
        }
        let wanted = before.get(1..).unwrap_or_default().to_vec();
        self.change("-u", name, |field| *field == wanted).await?;
        Ok(Unlocked::Verified)
    }

    /// Runs `passwd` and reads back, until the field is as wanted or it is given up.
    async fn change(
        &self,
        option: &'static str,
        name: &str,
        done: impl Fn(&Vec<u8>) -> bool,
    ) -> Result<(), ShadowError> {
        let ended = passwd::run(&self.root, option, name, self.timeout).await;
        let field = self.read(name)?;
        if done(&field) {
            return Ok(());
        }
        let ended = ended?;
        Err(ShadowError::NotDone {
            option,
            name: name.to_owned(),
            status: ended.status,
            found: Field::of(&field).word(),
            said: ended.said,
        })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ShadowError> {
        if !passwd::can_be_named(name) {
            return Err(ShadowError::Name(name.to_owned()));
        }
        let file = file::path(&self.root);
        file::password(&file, name)?.ok_or_else(|| ShadowError::NoLine { name: name.to_owned(), file })
    }

    fn digest(&self, field: &[u8]) -> Digest {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(field);
        Digest(hasher.finish128().as_bytes())
    }
}

/// What `passwd -l` makes of a field.
fn locked(field: &[u8]) -> Vec<u8> {
    let mut wanted = vec![b'!'];
    wanted.extend_from_slice(field);
    wanted
}
