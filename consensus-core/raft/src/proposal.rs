//! Requests that share an entry.
//!
//! A log entry costs the same whatever it holds, so the host puts all requests that wait into one. Each carries the member
//! that took it from a client and a number of that member's, by which the answer finds its way back.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    codec::{DecodeError, Reader, put_prefixed},
    limits::{ENTRY_BATCH_BYTES, ENTRY_REQUESTS_MAX},
};

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The member that took it.
    pub origin: u64,
    /// That member's number for it.
    pub id: u64,
    /// What the state machine is asked to do.
    pub payload: Bytes,
}

/// Bytes of a request beside its payload.
const OVERHEAD: usize = 20;

/// The data of an entry with as many of the first of `requests` as share one, and how many they are.
pub(crate) fn encode_some<'a>(requests: impl IntoIterator<Item = &'a Request>) -> (Bytes, usize) {
    let mut out = BytesMut::with_capacity(4096);
    out.put_u32_le(0);
    let mut count = 0_u32;
    for request in requests {
        let len = OVERHEAD + request.payload.len();
        if count > 0 && (out.len() + len > ENTRY_BATCH_BYTES || count as usize == ENTRY_REQUESTS_MAX) {
            break;
        }
        out.put_u64_le(request.origin);
        out.put_u64_le(request.id);
        put_prefixed(&mut out, &request.payload);
        count += 1;
    }
    out[..4].copy_from_slice(&count.to_le_bytes());
    (out.freeze(), count as usize)
}

/// The requests in an entry's data.
pub fn decode(data: Bytes) -> Result<Vec<Request>, DecodeError> {
    let mut reader = Reader::new(data, "requests of an entry");
    let count = reader.count(OVERHEAD, ENTRY_REQUESTS_MAX)?;
    let requests: Result<Vec<_>, _> = (0..count)
        .map(|_| Ok(Request { origin: reader.u64()?, id: reader.u64()?, payload: reader.prefixed()? }))
        .collect();
    reader.end()?;
    requests
}
