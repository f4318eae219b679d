//! Sources and networks, as the policy knows them.
//!
//! Invariant: a network has no bits behind its length.

/// Who is behind a logon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An IPv4 address.
    V4(u32),
    /// The upper 64 bits of an IPv6 address.
    V6(u64),
    /// An IPv6 address by itself: of a network that this host is in, too, so that it is never dropped as a whole.
    Near(u128),
    /// A local user, by real uid.
    Local(u32),
}

/// A network: address in host order, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Net {
    /// IPv4, length up to 32.
    V4(u32, u8),
    /// IPv6, length up to 128.
    V6(u128, u8),
}

/// Networks that are never dropped, whatever the configuration says: this host's own, and those that any neighbour
/// shares.
const NEVER: [Net; 6] = [
    Net::V4(0, 8),
    Net::V4(0x7f00_0000, 8),
    Net::V4(0xa9fe_0000, 16),
    Net::V4(0xe000_0000, 3),
    Net::V6(0, 64),
    Net::V6(0xfe80 << 112, 10),
];

const fn mask_4(length: u8) -> u32 {
    if length == 0 { 0 } else { u32::MAX << (32 - if length > 32 { 32 } else { length }) }
}

const fn mask_6(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - if length > 128 { 128 } else { length }) }
}

impl Net {
    /// The network that a source is dropped as; a local user is none.
    #[must_use]
    pub const fn of(source: Source) -> Option<Self> {
        match source {
            Source::V4(address) => Some(Self::V4(address, 32)),
            Source::V6(upper) => Some(Self::V6((upper as u128) << 64, 64)),
            Source::Near(address) => Some(Self::V6(address, 128)),
            Source::Local(_) => None,
        }
    }

    /// Bits of the network.
    #[must_use]
    pub const fn length(self) -> u8 {
        match self {
            Self::V4(_, length) | Self::V6(_, length) => length,
        }
    }

    /// The network of `length` bits around it.
    #[must_use]
    pub const fn widened(self, length: u8) -> Self {
        match self {
            Self::V4(address, own) => {
                let length = if length < own { length } else { own };
                Self::V4(address & mask_4(length), length)
            }
            Self::V6(address, own) => {
                let length = if length < own { length } else { own };
                Self::V6(address & mask_6(length), length)
            }
        }
    }

    /// Whether `other` lies in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.length() <= other.length() && other.widened(self.length()) == self
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The next wider network that many dropped members make.
    pub(super) const fn above(self) -> Option<Self> {
        match self.length() {
            32 => Some(self.widened(24)),
            64 => Some(self.widened(56)),
            56 => Some(self.widened(48)),
            _ => None,
        }
    }

    /// Its last address, as a network of that one address.
    pub(super) const fn last(self) -> Self {
        match self {
            Self::V4(address, length) => Self::V4(address | !mask_4(length), 32),
            Self::V6(address, length) => Self::V6(address | !mask_6(length), 128),
        }
    }

    /// Whether it is never dropped, whatever the configuration says.
    #[must_use]
    pub fn is_never(self) -> bool {
        NEVER.iter().any(|never| never.overlaps(self))
    }
}
