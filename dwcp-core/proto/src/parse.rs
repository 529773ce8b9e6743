//! Finds the frames in a buffer, without allocating or copying per frame.
//!
//! Owns the arithmetic of cutting; the driver owns the buffers.

use std::ops::Range;

use crate::{
    error::ProtocolError,
    frame::{Decoded, FrameHeader, HEADER_LEN},
};

/// A complete frame inside a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its header, checked.
    pub header: FrameHeader,
    /// Where its payload lies in the buffer.
    pub payload: Range<usize>,
}

/// Where parsing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Bytes of the buffer that belong to complete (or skipped) frames.
    pub consumed: usize,
    /// Why it stopped there.
    pub rest: Rest,
}

/// What follows the consumed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Less than a header.
    Header,
    /// A header whose payload is not complete; the header is *not* part of the consumed bytes.
    Payload(FrameHeader),
    /// An optional frame of unknown type, of which this many payload bytes are still to come and to be skipped;
    /// what is here of it is consumed.
    Skip(usize),
}

/// Appends every complete frame in `buffer` to `frames`. Payload checksums are not verified here.
pub fn parse(buffer: &[u8], payload_max: u32, frames: &mut Vec<Located>) -> Result<Parsed, ProtocolError> {
    let mut consumed = 0;
    loop {
        let Some(head) = buffer[consumed..].first_chunk::<HEADER_LEN>() else {
            return Ok(Parsed { consumed, rest: Rest::Header });
        };
        let start = consumed + HEADER_LEN;
        match FrameHeader::decode(head, payload_max)? {
            Decoded::Frame(header) => {
                let end = start + header.wire_len as usize;
                if end > buffer.len() {
                    return Ok(Parsed { consumed, rest: Rest::Payload(header) });
                }
                frames.push(Located { header, payload: start..end });
                consumed = end;
            }
            Decoded::Skip(len) => {
                let end = start + len as usize;
                if end > buffer.len() {
                    return Ok(Parsed { consumed: buffer.len(), rest: Rest::Skip(end - buffer.len()) });
                }
                consumed = end;
            }
        }
    }
}
