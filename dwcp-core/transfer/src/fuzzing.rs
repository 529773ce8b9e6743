//! What a fuzz target needs of parsers that are private. Not part of the API: no promise is made about it.
//!
//! Each function gives what was decoded in its encoded form: parsers that are strict give back the bytes they took.

use bytes::Bytes;

use crate::{
    DecodeError,
    control::{Message, PREAMBLE_BYTES, StreamKind},
    record::{HEADER_BYTES, Header},
};

/// A control message, without its length in front. `Ok` of a batch does not mean that the batch is one.
pub fn control(bytes: &[u8]) -> Result<Bytes, DecodeError> {
    let message = Message::decode(Bytes::copy_from_slice(bytes))?;
    Ok(message.encode().slice(size_of::<u32>()..))
}

/// The batch in a control message, if it is one.
pub fn batch(bytes: &[u8]) -> Option<Bytes> {
    match Message::decode(Bytes::copy_from_slice(bytes)) {
        Ok(Message::Batch(batch)) => Some(batch),
        _ => None,
    }
}

/// Header and extents of a record; what follows them is its data.
pub fn record(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (head, list) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(DecodeError::Truncated)?;
    let header = Header::decode(head)?;
    let mut extents = Vec::new();
    header.decode_extents(list, &mut extents)?;
    let mut out = Vec::new();
    header.encode(&extents, &mut out);
    Ok(out)
}

/// The first bytes of a stream.
pub fn preamble(bytes: [u8; PREAMBLE_BYTES]) -> Result<Bytes, DecodeError> {
    StreamKind::decode(bytes).map(StreamKind::preamble)
}
