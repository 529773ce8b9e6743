//! What no cheaper way describes: the residue of a part, in one piece, compressed with runs of the baseline as zstd's prefix
//! (DELTA-4).

use std::ops::Range;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, compress_bound, get_error_name};

use crate::{
    Baseline, DeltaError,
    limits::{PREFIX_BYTES_MAX, PREFIX_RUNS_MAX, WINDOW_BITS_MAX},
    varint,
};

mod coding {
    pub(super) const RAW: u8 = 0;
    pub(super) const ZSTD: u8 = 1;
}

/// From this length on a prefix is searched by zstd's long distance matcher, too: the tables of a level are for shorter inputs,
/// and would have forgotten where it begins.
const PREFIX_LONG_MIN: usize = 128 << 10;
/// It knows one of so many positions of the prefix, as a power of two.
const LONG_RATE_BITS: u32 = 5;

/// Runs of a baseline, ascending and apart, at most [`PREFIX_BYTES_MAX`] together.
pub(crate) type Runs = Vec<Range<u64>>;

/// Reads them, one behind the other.
pub(crate) fn read_prefix(
    runs: &[Range<u64>],
    baseline: &(impl Baseline + ?Sized),
    prefix: &mut Vec<u8>,
) -> Result<(), DeltaError> {
    let total: u64 = runs.iter().map(|run| run.end - run.start).sum();
    prefix.resize(total as usize, 0);
    let mut at = 0;
    for run in runs {
        let len = (run.end - run.start) as usize;
        baseline.read_at(run.start, &mut prefix[at..at + len])?;
        at += len;
    }
    Ok(())
}

/// Appends a residue: compressed if that is shorter.
pub(crate) fn put(residue: &[u8], runs: &[Range<u64>], prefix: &[u8], level: i32, out: &mut Vec<u8>) {
    varint::put(residue.len() as u64, out);
    if residue.is_empty() {
        return;
    }
    match compress(residue, prefix, level) {
        Some(coded) if coded.len() < residue.len() => {
            out.push(coding::ZSTD);
            varint::put(runs.len() as u64, out);
            let mut end = 0;
            for run in runs {
                varint::put(run.start - end, out);
                varint::put(run.end - run.start, out);
                end = run.end;
            }
            varint::put(coded.len() as u64, out);
            out.extend_from_slice(&coded);
        }
        _ => {
            out.push(coding::RAW);
            out.extend_from_slice(residue);
        }
    }
}

fn compress(residue: &[u8], prefix: &[u8], level: i32) -> Option<Vec<u8>> {
    let mut context = CCtx::create();
    let mut set = |parameter| context.set_parameter(parameter).ok();
    set(CParameter::CompressionLevel(level))?;
    // A hash of the whole content follows anyway.
    set(CParameter::ChecksumFlag(false))?;
    set(CParameter::ContentSizeFlag(true))?;
    if !prefix.is_empty() {
        let bits = (prefix.len() + residue.len()).next_power_of_two().ilog2();
        set(CParameter::WindowLog(bits.clamp(10, WINDOW_BITS_MAX)))?;
        if prefix.len() >= PREFIX_LONG_MIN {
            set(CParameter::EnableLongDistanceMatching(true))?;
            set(CParameter::LdmHashRateLog(LONG_RATE_BITS))?;
        }
        context.ref_prefix(prefix).ok()?;
    }
    let mut coded = Vec::with_capacity(compress_bound(residue.len()));
    context.compress2(&mut coded, residue).ok()?;
    Some(coded)
}

/// Takes a residue off the front, at most `max` bytes of it.
pub(crate) fn take(
    rest: &mut &[u8],
    baseline: &(impl Baseline + ?Sized),
    max: usize,
    prefix: &mut Vec<u8>,
    residue: &mut Vec<u8>,
) -> Result<(), DeltaError> {
    residue.clear();
    let len = varint::take_count(rest, max, "length of the residue")?;
    if len == 0 {
        return Ok(());
    }
    match varint::take_bytes(rest, 1)? {
        [coding::RAW] => residue.extend_from_slice(varint::take_bytes(rest, len)?),
        [coding::ZSTD] => {
            let runs = take_runs(rest, baseline.len())?;
            let coded = varint::take_count(rest, rest.len(), "length of the coded residue")?;
            let coded = varint::take_bytes(rest, coded)?;
            read_prefix(&runs, baseline, prefix)?;
            decompress(coded, prefix, len, residue)?;
        }
        _ => return Err(DeltaError::Invalid("coding of the residue")),
    }
    Ok(())
}

fn take_runs(rest: &mut &[u8], baseline_len: u64) -> Result<Runs, DeltaError> {
    let invalid = DeltaError::Invalid("runs of the prefix");
    let count = varint::take_count(rest, PREFIX_RUNS_MAX, "number of runs")?;
    let (mut runs, mut end, mut total) = (Vec::with_capacity(count), 0u64, 0);
    for _ in 0..count {
        let start = end.checked_add(varint::take(rest)?).ok_or(invalid)?;
        let len = varint::take_count(rest, PREFIX_BYTES_MAX - total, "length of the prefix")?;
        end = start.checked_add(len as u64).filter(|&end| end <= baseline_len).ok_or(invalid)?;
        total += len;
        runs.push(start..end);
    }
    Ok(runs)
}

fn decompress(coded: &[u8], prefix: &[u8], len: usize, residue: &mut Vec<u8>) -> Result<(), DeltaError> {
    let mut context = DCtx::create();
    let failed = |code| DeltaError::Zstd(get_error_name(code));
    context.set_parameter(DParameter::WindowLogMax(WINDOW_BITS_MAX)).map_err(failed)?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(failed)?;
    }
    residue.resize(len, 0);
    let filled = context.decompress(&mut residue[..], coded).map_err(failed)?;
    if filled == len { Ok(()) } else { Err(DeltaError::Invalid("length of the residue")) }
}
