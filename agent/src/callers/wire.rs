//! Requests and answers as they travel: the ABI's records as they lie in memory, field by field.

use bytes::{Buf as _, BufMut as _, TryGetError};
use portcullis_common::abi::{Answer, Request};

use crate::event;

/// Bytes of a request.
pub const REQUEST: usize = size_of::<Request>();
/// Bytes of an answer.
pub const ANSWER: usize = size_of::<Answer>();

/// Reads a request.
///
/// # Errors
/// There are fewer than [`REQUEST`] bytes.
pub fn request(mut bytes: &[u8]) -> Result<Request, TryGetError> {
    let bytes = &mut bytes;
    Ok(Request {
        abi: bytes.try_get_u32_ne()?,
        op: bytes.try_get_u32_ne()?,
        flags: bytes.try_get_u32_ne()?,
        arg: bytes.try_get_u32_ne()?,
        until: bytes.try_get_u64_ne()?,
        entry: event::entry(bytes)?,
    })
}

/// Writes an answer.
#[must_use]
pub fn answer(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ANSWER);
    for field in
        [answer.verdict, answer.flags, answer.failures, answer.reservations, answer.deny, answer.trips]
    {
        bytes.put_u32_ne(field);
    }
    for field in [answer.token, answer.locked_until, answer.delay, answer.now] {
        bytes.put_u64_ne(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_abi_says() {
        use std::mem::offset_of;
        let mut bytes = vec![0; REQUEST];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(offset_of!(Request, abi), &1_u32.to_ne_bytes());
        put(offset_of!(Request, op), &2_u32.to_ne_bytes());
        put(offset_of!(Request, flags), &3_u32.to_ne_bytes());
        put(offset_of!(Request, arg), &4_u32.to_ne_bytes());
        put(offset_of!(Request, until), &5_u64.to_ne_bytes());
        put(offset_of!(Request, entry), &6_u64.to_ne_bytes());
        let read = request(&bytes).unwrap();
        assert_eq!((read.abi, read.op, read.flags, read.arg), (1, 2, 3, 4));
        assert_eq!((read.until, read.entry.account), (5, 6));
        assert!(request(&bytes[1..]).is_err());

        let told = Answer {
            verdict: 1,
            flags: 2,
            failures: 3,
            reservations: 4,
            deny: 5,
            trips: 6,
            token: 7,
            locked_until: 8,
            delay: 9,
            now: 10,
        };
        let bytes = answer(&told);
        assert_eq!(bytes.len(), ANSWER);
        let at = |offset: usize| bytes[offset];
        assert_eq!((at(offset_of!(Answer, trips)), at(offset_of!(Answer, token))), (6, 7));
        assert_eq!((at(offset_of!(Answer, locked_until)), at(offset_of!(Answer, now))), (8, 10));
    }
}
