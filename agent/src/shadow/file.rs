//! Reads shadow(5).
//!
//! Invariants: read only; bytes, not text, for names and fields are bytes.

use std::path::{Path, PathBuf};

use super::ShadowError;

/// What a password field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// No password is right: it starts with `!` or `*`.
    Locked,
    /// Every password is right.
    Empty,
    /// A hash.
    Usable,
}

impl Field {
    pub(super) fn of(field: &[u8]) -> Self {
        match field.first() {
            None => Self::Empty,
            Some(b'!' | b'*') => Self::Locked,
            Some(_) => Self::Usable,
        }
    }

    /// For people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Empty => "empty",
            Self::Usable => "not locked",
        }
    }
}

/// What the password field of an account means; none: no line of that name.
///
/// # Errors
/// The file cannot be read.
pub fn field(root: &Path, name: &str) -> Result<Option<Field>, ShadowError> {
    Ok(password(&path(root), name)?.map(|field| Field::of(&field)))
}

pub(super) fn path(root: &Path) -> PathBuf {
    root.join("etc/shadow")
}

/// The password field of an account.
pub(super) fn password(file: &Path, name: &str) -> Result<Option<Vec<u8>>, ShadowError> {
    let text = std::fs::read(file).map_err(|source| ShadowError::Read { file: file.to_owned(), source })?;
    Ok(find(&text, name).map(<[u8]>::to_vec))
}

/// The field of an account's expiry; empty where the line ends before it.
pub(super) fn expiry(file: &Path, name: &str) -> Result<Option<Vec<u8>>, ShadowError> {
    let text = std::fs::read(file).map_err(|source| ShadowError::Read { file: file.to_owned(), source })?;
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':'));
    let line = lines.find(|line| line.clone().next() == Some(name.as_bytes()));
    Ok(line.map(|mut fields| fields.nth(7).unwrap_or_default().to_vec()))
}

/// The first line of that name counts, as for getspnam(3).
fn find<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if name.is_empty() {
        return None;
    }
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let found = fields.next() == Some(name.as_bytes());
        if found { fields.next() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::{Field, field, find};

    const TEXT: &[u8] = b"root:$y$j9T$abc:19000:0:99999:7:::\n\
        daemon:*:19000:0:99999:7:::\n\
        jo:!$y$x:1::::::\n\
        jon:$6$salt$hash:19000:0:99999:7:::\n\
        jon:!second:1::::::\n\
        empty::1::::::\n\
        torn\n\
        last:!*:1::::::";

    #[test]
    fn lines_are_found_by_their_whole_name() {
        assert_eq!(find(TEXT, "jon"), Some(&b"$6$salt$hash"[..]));
        assert_eq!(find(TEXT, "jo"), Some(&b"!$y$x"[..]));
        assert_eq!(find(TEXT, "j"), None);
        assert_eq!(find(TEXT, "empty"), Some(&b""[..]));
        assert_eq!(find(TEXT, "torn"), None);
        assert_eq!(find(TEXT, "last"), Some(&b"!*"[..]));
        assert_eq!(find(TEXT, ""), None);
        assert_eq!(find(TEXT, "jon:$6$salt$hash"), None);
    }

    #[test]
    fn fields_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/shadow"), TEXT).unwrap();
        let of = |name| field(folder.path(), name).unwrap();
        assert_eq!(of("root"), Some(Field::Usable));
        assert_eq!(of("daemon"), Some(Field::Locked));
        assert_eq!(of("jo"), Some(Field::Locked));
        assert_eq!(of("empty"), Some(Field::Empty));
        assert_eq!(of("nobody"), None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = field(folder.path(), "jon").unwrap_err().to_string();
        assert!(error.contains("etc/shadow") && error.contains("root"), "{error}");
    }
}
