//! An apt of its own: one suite, one keyring, one folder. The host's apt is neither read nor written, nothing is
//! installed; packages are unpacked.

use crate::error::{Error, Result};
use crate::run;
use std::path::{Path, PathBuf};
use std::process::Command;

const ADVICE: &str = "is there a network, and is this suite still there?";

/// Lists and packages of one suite, in one folder.
#[derive(Debug)]
pub struct AptRoot {
    work: PathBuf,
}

impl AptRoot {
    /// Fetches the lists of `suite` (component main) into the new folder `work`.
    ///
    /// # Errors
    /// No network, no such suite, a wrong signature.
    pub fn open(work: &Path, url: &str, suite: &str, keyring: &Path) -> Result<Self> {
        for folder in ["lists/partial", "archives/partial"] {
            let folder = work.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        }
        let list = work.join("sources.list");
        let source = format!("deb [arch=amd64 signed-by={}] {url} {suite} main\n", keyring.display());
        std::fs::write(&list, source).map_err(Error::file("write", &list))?;
        let root = Self { work: work.to_path_buf() };
        run::quietly(root.apt("apt-get").args(["-qq", "update"]), ADVICE)?;
        Ok(root)
    }

    /// The names of packages that begin so, one a line.
    ///
    /// # Errors
    /// The lists cannot be read.
    pub fn names(&self, beginning: &str) -> Result<String> {
        run::quietly(self.apt("apt-cache").args(["pkgnames", beginning]), ADVICE)
    }

    /// Downloads packages and unpacks them into one folder, which is returned.
    ///
    /// # Errors
    /// No such package, no network, no room.
    pub fn unpack(&self, packages: &[String]) -> Result<PathBuf> {
        let mut download = self.apt("apt-get");
        run::quietly(download.args(["-qq", "download"]).args(packages).current_dir(&self.work), ADVICE)?;
        let unpacked = self.work.join("unpacked");
        for entry in self.work.read_dir().map_err(Error::file("read", &self.work))?.flatten() {
            if entry.path().extension() == Some("deb".as_ref()) {
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("--extract").arg(entry.path()).arg(&unpacked);
                run::quietly(&mut unpack, "is there room in the target folder?")?;
            }
        }
        Ok(unpacked)
    }

    /// An apt program that knows nothing but this folder.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let option = |name: &str, place: &Path| format!("{name}={}", place.display());
        for setting in [
            option("Dir::Etc::sourcelist", &self.work.join("sources.list")),
            option("Dir::State::lists", &self.work.join("lists")),
            option("Dir::Cache", &self.work),
            "Dir::Etc::sourceparts=-".into(),
            "Dir::State::status=/dev/null".into(),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64".into(),
            // Its own user may not write into the target folder.
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ] {
            apt.args(["-o", &setting]);
        }
        apt.env("LC_ALL", "C");
        apt
    }
}
