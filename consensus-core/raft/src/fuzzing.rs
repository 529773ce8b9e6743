//! What a fuzz target needs of decoders that are private. Not part of the API: no promise is made about it.
//!
//! Each function gives what was decoded in its encoded form.

use bytes::Bytes;

use crate::{MemberChange, codec::DecodeError, conf_change};

/// A membership change as raft-rs is told of it.
pub fn conf_change(bytes: &[u8]) -> Result<Bytes, DecodeError> {
    conf_change::decode(bytes).map(|change| conf_change::encode(&change))
}

/// A membership change as the host is told of it.
pub fn member_change(bytes: Bytes) -> Result<Bytes, DecodeError> {
    MemberChange::decode(bytes).map(|(request, change)| change.encode(request))
}
