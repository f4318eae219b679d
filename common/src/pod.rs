//! The only `unsafe impl Pod`: what may cross into and out of BPF maps as bytes.

use crate::abi::{Entry, Row, Settings};
use crate::filter::{limit, record, throttle};
use crate::ledger::Rule;
use crate::observer;
use crate::sources::{Bucket, SourceRule};

// SAFETY: repr(C), fixed-width integers only, no implicit padding (sizes asserted in abi.rs), any bit pattern is valid.
unsafe impl aya::Pod for Entry {}
// SAFETY: as above.
unsafe impl aya::Pod for crate::abi::Place {}
// SAFETY: as above.
unsafe impl aya::Pod for Row {}
// SAFETY: as above.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
unsafe impl aya::Pod for Rule {}
// SAFETY: as above; sizes asserted in filter/record.rs.
unsafe impl aya::Pod for record::Lease {}
// SAFETY: as above.
unsafe impl aya::Pod for record::Settings {}
// SAFETY: as above; sizes asserted in filter/throttle.rs and filter/limit.rs.
unsafe impl aya::Pod for throttle::Throttle {}
// SAFETY: as above.
unsafe impl aya::Pod for throttle::Chain {}
// SAFETY: as above.
unsafe impl aya::Pod for throttle::Counts {}
// SAFETY: as above.
unsafe impl aya::Pod for limit::Share {}
// SAFETY: as above (sizes asserted in sources.rs).
unsafe impl aya::Pod for Bucket {}
// SAFETY: as above.
unsafe impl aya::Pod for SourceRule {}
// SAFETY: as above; sizes asserted in observer/record.rs, a layout is u32 only.
unsafe impl aya::Pod for observer::File {}
// SAFETY: as above; sizes asserted in observer/record.rs, a layout is u32 only.
unsafe impl aya::Pod for observer::Watch {}
// SAFETY: as above; sizes asserted in observer/record.rs, a layout is u32 only.
unsafe impl aya::Pod for observer::Scope {}
// SAFETY: as above; its size is asserted in observer/sieve.rs.
unsafe impl aya::Pod for observer::Sieve {}
// SAFETY: as above; sizes asserted in observer/record.rs, a layout is u32 only.
unsafe impl aya::Pod for observer::Process {}
// SAFETY: as above; sizes asserted in observer/record.rs, a layout is u32 only.
unsafe impl aya::Pod for observer::Layout {}
