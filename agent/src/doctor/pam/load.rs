//! A service's stacks, put together from its files as libpam does.
//!
//! Invariants: no I/O, files come from a function that is given; any files, loops of includes too, give an end within
//! fixed bounds.

use std::collections::BTreeSet;
use std::fmt;

use super::control::{Control, Field, field};
use super::line::{Words, lines};
use crate::text::escape;

/// Folders with the files of services, in libpam's order.
pub const FOLDERS: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];
/// The service whose stacks stand in for those that are missing.
pub const OTHER: &str = "other";
/// Includes in includes, as libpam from 1.6 on.
const MAX_DEPTH: usize = 16;
/// Files read for one service; far more than any real one needs.
const MAX_FILES: usize = 512;
/// Lines of one service.
const MAX_HANDLERS: usize = 4096;

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Who is it.
    Auth,
    /// May he.
    Account,
    /// A new password.
    Password,
    /// Before and after.
    Session,
}

impl Kind {
    fn of(word: &[u8]) -> Option<Self> {
        match word.to_ascii_lowercase().as_slice() {
            b"auth" => Some(Self::Auth),
            b"account" => Some(Self::Account),
            b"password" => Some(Self::Password),
            b"session" => Some(Self::Session),
            _ => None,
        }
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, from the root.
    pub file: String,
    /// The line, from 1; 0: the file.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escape(self.file.as_bytes()))?;
        if self.line > 0 { write!(formatter, ":{}", self.line) } else { Ok(()) }
    }
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A module.
    Module {
        /// As it is written: a name, or a path.
        path: Vec<u8>,
        /// Its words.
        words: Vec<Vec<u8>>,
    },
    /// Nothing: here a substack begins.
    Substack,
    /// Nothing: a line that libpam cannot use, and that fails.
    MustFail,
}

/// One entry of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// What is run.
    pub what: What,
    /// How deep in substacks.
    pub level: usize,
    /// What becomes of its return code.
    pub control: Control,
    /// The control field as written.
    pub word: String,
    /// Its line.
    pub place: Place,
}

impl Handler {
    /// The module's name without folder and `.so`; empty where none is run.
    #[must_use]
    pub fn module(&self) -> String {
        let What::Module { path, .. } = &self.what else {
            return String::new();
        };
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        escape(name.strip_suffix(b".so").unwrap_or(name))
    }
}

/// Something odd in the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub what: String,
}

/// The stacks of a file and what it includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    /// By kind.
    entries: Vec<(Kind, Handler)>,
    /// Lines that libpam passes over or fails at.
    pub faults: Vec<Fault>,
    /// Why libpam refuses the service as a whole.
    pub broken: Option<Fault>,
    /// Files that were included.
    pub included: BTreeSet<String>,
}

impl Stacks {
    /// The stack of one kind.
    #[must_use]
    pub fn stack(&self, kind: Kind) -> Vec<Handler> {
        self.entries.iter().filter(|(of, _)| *of == kind).map(|(_, handler)| handler.clone()).collect()
    }
}

/// Reads the file of a service, lower case, out of the first folder that has it; None: no folder has.
///
/// `read` gives a file's bytes by its path, or None where it cannot be opened.
pub fn service(name: &str, read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Stacks> {
    let paths = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    let (path, bytes) = paths.filter_map(|path| read(&path).map(|bytes| (path, bytes))).next()?;
    let mut loader = Loader { read, stacks: Stacks::default(), files: 1 };
    if let Err(Stop(fault)) = loader.file(&path, &bytes, Scope { kind: None, depth: 0, level: 0 }) {
        loader.stacks.broken = Some(fault);
    }
    Some(loader.stacks)
}

/// libpam gives the file up, and with it what includes it.
struct Stop(Fault);

#[derive(Clone, Copy)]
struct Scope {
    /// Only lines of this kind count: the file is included by a line of that kind.
    kind: Option<Kind>,
    depth: usize,
    level: usize,
}

struct Loader<'a> {
    read: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    stacks: Stacks,
    files: usize,
}

impl Loader<'_> {
    fn file(&mut self, path: &str, bytes: &[u8], scope: Scope) -> Result<(), Stop> {
        let place = |line| Place { file: path.to_owned(), line };
        let cut = lines(bytes);
        for number in cut.long {
            self.fault(place(number), "longer than 1023 bytes: libpam before 1.6 cuts it in two");
        }
        for line in cut.lines {
            self.line(place(line.number), &mut Words::new(&line.text), scope)?;
        }
        match cut.cut_off {
            Some(number) => {
                Err(Stop(Fault { place: place(number), what: "the file ends with a backslash".to_owned() }))
            }
            None => Ok(()),
        }
    }

    fn fault(&mut self, place: Place, what: impl Into<String>) {
        self.stacks.faults.push(Fault { place, what: what.into() });
    }

    fn push(&mut self, kind: Kind, handler: Handler) -> Result<(), Stop> {
        if self.stacks.entries.len() >= MAX_HANDLERS {
            let what = format!("more than {MAX_HANDLERS} lines with all that is included");
            return Err(Stop(Fault { place: handler.place, what }));
        }
        self.stacks.entries.push((kind, handler));
        Ok(())
    }

    fn line(&mut self, place: Place, words: &mut Words<'_>, scope: Scope) -> Result<(), Stop> {
        let level = scope.level;
        let first = words.next().unwrap_or_default();
        let bare = first.strip_prefix(b"-").unwrap_or(&first);
        if bare.eq_ignore_ascii_case(b"@include") {
            return self.include(place, words, scope, scope.kind, None);
        }
        let known = Kind::of(bare);
        let kind = known.unwrap_or(scope.kind.unwrap_or(Kind::Auth));
        if known.is_none() {
            self.fault(place.clone(), format!("no such type of line: {}", escape(&first)));
        }
        if scope.kind.is_some_and(|wanted| wanted != kind) {
            return Ok(());
        }
        let word = words.next();
        let control = word.as_deref().map(field);
        let word = escape(&word.unwrap_or_default());
        let control = match control {
            None => {
                self.fault(place.clone(), "no control field");
                Control::BAD
            }
            Some(Field::Include) => return self.include(place, words, scope, Some(kind), None),
            Some(Field::Substack) => return self.include(place, words, scope, Some(kind), Some(word)),
            Some(Field::Module(control, understood)) => {
                if !understood {
                    self.fault(place.clone(), format!("control field not understood: {word}"));
                }
                *control
            }
        };
        let path = words.next();
        if path.is_none() {
            self.fault(place.clone(), "no module");
        }
        let what = match path {
            Some(path) if known.is_some() => What::Module { path, words: words.collect() },
            _ => What::MustFail,
        };
        self.push(kind, Handler { what, level, control, word, place })
    }

    /// `include`, `substack` (with its word) or `@include`, which is for lines of every kind.
    fn include(
        &mut self,
        place: Place,
        words: &mut Words<'_>,
        scope: Scope,
        kind: Option<Kind>,
        substack: Option<String>,
    ) -> Result<(), Stop> {
        let name = words.next();
        let mut inner = Scope { kind, depth: scope.depth + 1, level: scope.level };
        if let (Some(kind), Some(word)) = (kind, substack) {
            inner.level += 1;
            let (what, place) = (What::Substack, place.clone());
            self.push(kind, Handler { what, level: scope.level, control: Control::BAD, word, place })?;
        }
        let Err(why) = self.included(&place, name.as_deref(), inner)? else {
            return Ok(());
        };
        let fault = Fault { place: place.clone(), what: why };
        let Some(kind) = kind else {
            // Without a type libpam has no stack to put the failure in.
            return Err(Stop(fault));
        };
        self.stacks.faults.push(fault);
        let word = String::new();
        let what = What::MustFail;
        self.push(kind, Handler { what, level: scope.level, control: Control::BAD, word, place })
    }

    /// Reads an included file. The inner error: why the line that includes it fails.
    fn included(
        &mut self,
        place: &Place,
        name: Option<&[u8]>,
        scope: Scope,
    ) -> Result<Result<(), String>, Stop> {
        let Some(name) = name else {
            return Ok(Err("no file is named".to_owned()));
        };
        let shown = escape(name);
        if scope.depth > MAX_DEPTH {
            return Ok(Err(format!("includes in includes, {MAX_DEPTH} deep, a loop most likely: {shown}")));
        }
        self.files += 1;
        if self.files > MAX_FILES {
            let what = format!("more than {MAX_FILES} files are included, a loop most likely");
            return Err(Stop(Fault { place: place.clone(), what }));
        }
        let Ok(name) = std::str::from_utf8(name) else {
            return Ok(Err(format!("cannot open {shown}")));
        };
        let paths = if name.starts_with('/') {
            vec![name.to_owned()]
        } else {
            FOLDERS.iter().map(|folder| format!("{folder}/{name}")).collect()
        };
        let mut found = paths.into_iter().filter_map(|path| (self.read)(&path).map(|bytes| (path, bytes)));
        let Some((path, bytes)) = found.next() else {
            return Ok(Err(format!("cannot open {shown}")));
        };
        if path.starts_with("/usr/lib/") && !name.starts_with('/') {
            let what = format!("{shown} is in /usr/lib/pam.d only: Debian's libpam includes from /etc/pam.d");
            self.fault(place.clone(), what);
        }
        self.stacks.included.insert(path.clone());
        match self.file(&path, &bytes, scope) {
            Ok(()) => Ok(Ok(())),
            // Bounds of ours end the whole; a file that libpam gives up fails the line that includes it.
            Err(stop) if self.files > MAX_FILES || self.stacks.entries.len() >= MAX_HANDLERS => Err(stop),
            Err(Stop(fault)) => Ok(Err(format!("{shown}: {} ({})", fault.what, fault.place))),
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
