//! Where things are: the work tree, its target folder, what the build leaves there. Finds, never changes.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The work tree and its target folder.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Folder of the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target folder: CARGO_TARGET_DIR, else `target` in the root.
    pub target: PathBuf,
}

impl Workspace {
    /// The work tree this program was built from.
    pub fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest).to_path_buf();
        if !root.join("Cargo.toml").is_file() {
            return Err(Error::Missing {
                what: format!("the work tree {}", root.display()),
                advice: "run `cargo xtask` in a clone of Portcullis".into(),
            });
        }
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(&folder).map_err(Error::file("find", Path::new(&folder)))?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The eBPF object that the agent embeds.
    pub fn bpf_object(&self) -> PathBuf {
        self.target.join("ebpf/portcullis.bpf.o")
    }

    /// Release build of the PAM module.
    pub fn module(&self) -> PathBuf {
        self.target.join("release/libpam_portcullis.so")
    }

    /// Release build of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// The newest change below `folders` (of the root), `target` left out. None: no file there.
    pub fn newest(&self, folders: &[&str]) -> Result<Option<SystemTime>> {
        let mut newest = None;
        let mut todo: Vec<PathBuf> = folders.iter().map(|folder| self.root.join(folder)).collect();
        while let Some(path) = todo.pop() {
            let meta = path.metadata().map_err(Error::file("look at", &path))?;
            if meta.is_dir() {
                for entry in path.read_dir().map_err(Error::file("list", &path))? {
                    todo.push(entry.map_err(Error::file("list", &path))?.path());
                }
            } else {
                let time = meta.modified().map_err(Error::file("look at", &path))?;
                newest = newest.max(Some(time));
            }
        }
        Ok(newest)
    }

    /// Whether `product` is missing or older than anything below `folders`.
    pub fn outdated(&self, product: &Path, folders: &[&str]) -> Result<bool> {
        let made = product.metadata().and_then(|meta| meta.modified()).ok();
        Ok(made.is_none() || self.newest(folders)? > made)
    }
}
