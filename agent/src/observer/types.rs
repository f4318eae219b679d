//! The kernel's type information (BTF), as far as the observer needs it: where a member lies in a structure.
//!
//! Format: the kernel's Documentation/bpf/btf.rst. Invariant: any bytes give an answer or none, never a panic.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const TYPE_TAG: u32 = 18;
/// Structures within structures that are followed.
const DEPTH: usize = 16;

/// One type: where its head lies, and its words.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    size: u32,
    members: usize,
}

impl Type {
    const fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    const fn count(self) -> u32 {
        self.info & 0xffff
    }
}

/// The types of a kernel.
pub struct Types<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    all: Vec<Type>,
    structures: HashMap<&'a [u8], usize>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()
}

impl<'a> Types<'a> {
    /// Reads the types; none where the bytes are no type information of this machine's byte order.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let head = index(word(bytes, 4)?)?;
        let part = |offset: usize, length: usize| {
            let start = head.checked_add(index(word(bytes, offset)?)?)?;
            bytes.get(start..start.checked_add(index(word(bytes, length)?)?)?)
        };
        let (types, strings) = (part(8, 12)?, part(16, 20)?);
        let mut found = Self { strings, types, all: Vec::new(), structures: HashMap::new() };
        let mut at = 0;
        while at < types.len() {
            let one = Type {
                name: word(types, at)?,
                info: word(types, at.checked_add(4)?)?,
                size: word(types, at.checked_add(8)?)?,
                members: at.checked_add(12)?,
            };
            let count = index(one.count())?;
            let more = match one.kind() {
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => count.checked_mul(12)?,
                6 | 13 => count.checked_mul(8)?,
                _ => 0,
            };
            at = one.members.checked_add(more)?;
            if one.kind() == STRUCT && one.size != 0 {
                let name = found.text(one.name)?;
                found.structures.entry(name).or_insert(found.all.len());
            }
            found.all.push(one);
        }
        Some(found)
    }

    fn text(&self, at: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(index(at)?..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// A type by its id, without names and qualifiers around it. Id 0 is void.
    fn by_id(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let one = *self.all.get(index(id)?.checked_sub(1)?)?;
            if !matches!(one.kind(), TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(one);
            }
            id = one.size;
        }
        None
    }

    /// The offset in bytes of a member; `path` may lead through structures (`ns.inum`). An empty path: the size.
    #[must_use]
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut here = *self.all.get(*self.structures.get(structure.as_bytes())?)?;
        if path.is_empty() {
            return Some(here.size);
        }
        let mut bits: u32 = 0;
        for name in path.split('.') {
            let (member, offset) = self.member(here, name.as_bytes(), DEPTH)?;
            bits = bits.checked_add(offset)?;
            // Of the last one the type does not matter.
            here = self.by_id(member).unwrap_or(here);
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Type and offset in bits of a member, looked for in unnamed structures too.
    fn member(&self, of: Type, name: &[u8], depth: usize) -> Option<(u32, u32)> {
        if !matches!(of.kind(), STRUCT | UNION) || depth == 0 {
            return None;
        }
        for number in 0..index(of.count())? {
            let at = of.members.checked_add(number.checked_mul(12)?)?;
            let (text, kind, place) = (
                self.text(word(self.types, at)?)?,
                word(self.types, at.checked_add(4)?)?,
                word(self.types, at.checked_add(8)?)?,
            );
            let place = if of.info >> 31 == 0 { place } else { place & 0x00ff_ffff };
            if text == name {
                return Some((kind, place));
            }
            if text.is_empty()
                && let Some(inner) = self.by_id(kind)
                && let Some((kind, more)) = self.member(inner, name, depth - 1)
            {
                return Some((kind, place.checked_add(more)?));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_where_things_are() {
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let types = Types::read(&bytes).unwrap();
        assert_eq!(types.offset("list_head", "prev"), Some(8));
        assert_eq!(types.offset("list_head", ""), Some(16));
        assert_eq!(types.offset("list_head", "nobody"), None);
        assert_eq!(types.offset("nothing_of_the_kind", "prev"), None);
        // `f_inode` of an open file, `val` within `uid`, and a member of an unnamed structure.
        for (structure, path) in [("file", "f_inode"), ("cred", "uid.val"), ("mm_struct", "arg_start")] {
            assert!(types.offset(structure, path).is_some(), "{structure}.{path}");
        }
        let uid = types.offset("cred", "uid.val").unwrap();
        assert_eq!(types.offset("cred", "euid.val"), Some(uid + 16), "uid, gid, suid, sgid, euid");
    }

    #[test]
    fn bytes_that_are_none_are_refused_or_empty() {
        assert!(Types::read(b"").is_none());
        assert!(Types::read(&[0; 64]).is_none());
        let mut bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        bytes.truncate(4096);
        assert!(Types::read(&bytes).is_none());
    }
}
