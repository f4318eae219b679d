//! What lets a program that nobody watches pass by, for a few loads: bits for the files and names that are watched, and
//! a counter for the pids of watched programs that run.
//!
//! Invariants: whatever was added is found; what is found may be nothing, and is looked up after that.

/// Words of bits for the files, and as many for the names.
const WORDS: usize = 64;
/// The upper bits of a product are its hash: 6 for the word, 6 for the bit in it.
const SHIFT: u32 = 52;
/// 2^64 divided by the golden ratio: neighbours come to lie far apart.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Counters of pids that run.
pub const COUNTERS: u32 = 4_096;

/// Bits of files and names: value of `SIEVE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sieve {
    /// By the number of the inode.
    files: [u64; WORDS],
    /// By the first eight bytes of the command name.
    names: [u64; WORDS],
}

const _: () = assert!(size_of::<Sieve>() == 2 * 8 * WORDS);

/// The counter of a pid, in the machine's own pid namespace.
#[inline(always)]
#[must_use]
pub const fn counter(pid: u32) -> u32 {
    pid & (COUNTERS - 1)
}

/// What lies in front of the first zero byte of eight; the kernel leaves older names behind it.
#[inline(always)]
#[must_use]
const fn in_front_of_zero(name: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest bit that is set here is the highest of the first byte that is zero.
    let zeros = name.wrapping_sub(ONES) & !name & HIGHS;
    if zeros == 0 { name } else { name & ((zeros ^ zeros.wrapping_sub(1)) >> 8) }
}

#[inline(always)]
fn is_set(bits: &[u64; WORDS], what: u64) -> bool {
    let hash = what.wrapping_mul(FACTOR) >> SHIFT;
    bits.get((hash >> 6) as usize).is_some_and(|word| word >> (hash & 63) & 1 != 0)
}

fn set(bits: &mut [u64; WORDS], what: u64) {
    let hash = what.wrapping_mul(FACTOR) >> SHIFT;
    if let Some(word) = bits.get_mut((hash >> 6) as usize) {
        *word |= 1 << (hash & 63);
    }
}

/// The first eight bytes of a command name, as they lie in memory.
#[inline(always)]
#[must_use]
pub const fn first_bytes(comm: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *comm;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Sieve {
    /// Nothing is watched.
    pub const EMPTY: Self = Self { files: [0; WORDS], names: [0; WORDS] };

    /// Adds a file.
    pub fn add_file(&mut self, inode: u64) {
        set(&mut self.files, inode);
    }

    /// Adds a command name.
    pub fn add_name(&mut self, comm: &[u8; 16]) {
        set(&mut self.names, in_front_of_zero(first_bytes(comm)));
    }

    /// Both together.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        let both = self.files.iter_mut().chain(&mut self.names);
        both.zip(other.files.iter().chain(&other.names)).for_each(|(word, more)| *word |= more);
        self
    }

    /// Whether a file of this number may be watched.
    #[inline(always)]
    #[must_use]
    pub fn may_file(&self, inode: u64) -> bool {
        is_set(&self.files, inode)
    }

    /// Whether a name that begins with these eight bytes may be watched.
    #[inline(always)]
    #[must_use]
    pub fn may_name(&self, first: u64) -> bool {
        is_set(&self.names, in_front_of_zero(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comm(name: &str, behind: u8) -> [u8; 16] {
        let mut comm = [behind; 16];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        comm[name.len()] = 0;
        comm
    }

    #[test]
    fn whatever_was_added_is_found() {
        let mut sieve = Sieve::EMPTY;
        let names = ["su", "sudo", "login", "sshd-session", "unix_chkpwd", "exactly8", "seven77"];
        for inode in (0..256).map(|number: u64| number * 7_919) {
            sieve.add_file(inode);
            assert!(sieve.may_file(inode));
        }
        for name in names {
            sieve.add_name(&comm(name, 0));
        }
        for name in names {
            for behind in [0, 1, 0x7f, 0x80, 0xff] {
                assert!(sieve.may_name(first_bytes(&comm(name, behind))), "{name}, older name behind it");
            }
        }
        let both = Sieve::EMPTY.or(&sieve);
        assert_eq!(both, sieve);
    }

    #[test]
    fn nearly_everything_else_passes_by() {
        let mut sieve = Sieve::EMPTY;
        for inode in 0..14 {
            sieve.add_file(1_000 + inode);
            sieve.add_name(&comm(&format!("name{inode}"), 0));
        }
        let files = (100_000..200_000).filter(|inode| sieve.may_file(*inode)).count();
        let names = (0..100_000)
            .filter(|number| sieve.may_name(first_bytes(&comm(&format!("x{number}"), 0))))
            .count();
        assert!(files < 1_000 && names < 1_000, "{files} {names}");
        assert!(!sieve.may_name(first_bytes(&comm("name", 0))), "a name that one begins with is another");
    }
}
