//! Makes a part of a content from its delta and the baseline (DELTA-2). Bytes of a peer: nothing here panics, and nothing is
//! allocated but a prefix and a residue within their bounds.

use crate::{
    Baseline, BaselineName, DeltaError,
    format::{BASELINE_NAME_BYTES, FORMAT, Op},
    residue, varint, xor,
};

/// Decodes deltas, one after the other; keeps its buffers.
#[derive(Default)]
pub struct Decoder {
    prefix: Vec<u8>,
    residue: Vec<u8>,
}

impl Decoder {
    /// Which baseline a delta was made with.
    pub fn baseline_of(delta: &[u8]) -> Result<BaselineName, DeltaError> {
        Self::head(delta).map(|(name, _)| name)
    }

    fn head(delta: &[u8]) -> Result<(BaselineName, &[u8]), DeltaError> {
        let (&format, rest) = delta.split_first().ok_or(DeltaError::Truncated)?;
        if format != FORMAT {
            return Err(DeltaError::Invalid("format"));
        }
        let (name, rest) = rest.split_first_chunk::<BASELINE_NAME_BYTES>().ok_or(DeltaError::Truncated)?;
        Ok((BaselineName::decode(name), rest))
    }

    /// Fills `part`, which begins at `offset` of its content. Whatever it returns, the content of `part` is what the delta
    /// says, not what the sender has: that is told by a hash.
    pub fn decode(
        &mut self,
        delta: &[u8],
        name: &BaselineName,
        baseline: &(impl Baseline + ?Sized),
        offset: u64,
        part: &mut [u8],
    ) -> Result<(), DeltaError> {
        let (made_with, mut rest) = Self::head(delta)?;
        if made_with != *name {
            return Err(DeltaError::OtherBaseline);
        }
        residue::take(&mut rest, baseline, part.len(), &mut self.prefix, &mut self.residue)?;
        let (mut residue, mut at) = (&self.residue[..], 0);
        while at < part.len() {
            let op = Op::take(&mut rest, part.len() - at)?;
            let here = offset.checked_add(at as u64).ok_or(DeltaError::Invalid("offset"))?;
            at += run(op, baseline, here, &mut residue, &mut part[at..])?;
        }
        match (rest, residue) {
            ([], []) => Ok(()),
            ([], _) => Err(DeltaError::Invalid("length of the residue")),
            _ => Err(DeltaError::Invalid("bytes behind the end")),
        }
    }
}

/// Fills the beginning of `out`; returns how much.
fn run(
    op: Op<'_>,
    baseline: &(impl Baseline + ?Sized),
    here: u64,
    residue: &mut &[u8],
    out: &mut [u8],
) -> Result<usize, DeltaError> {
    let copy = |from: u64, out: &mut [u8]| {
        let end = from.checked_add(out.len() as u64).filter(|&end| end <= baseline.len());
        end.ok_or(DeltaError::Invalid("place in the baseline"))?;
        baseline.read_at(from, out).map_err(DeltaError::from)
    };
    Ok(match op {
        Op::Zeros(len) => {
            out[..len].fill(0);
            len
        }
        Op::Same(len) => {
            copy(here, &mut out[..len])?;
            len
        }
        Op::Copy { from, len } => {
            copy(from, &mut out[..len])?;
            len
        }
        Op::Xor { len, difference } => {
            copy(here, &mut out[..len])?;
            xor::decode(difference, &mut out[..len])?;
            len
        }
        Op::Residue(len) => {
            out[..len].copy_from_slice(varint::take_bytes(residue, len)?);
            len
        }
    })
}
