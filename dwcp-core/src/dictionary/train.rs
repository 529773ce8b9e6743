//! Makes a dictionary of samples, and says what it is worth.

use zstd::{bulk::Compressor, zstd_safe::train_from_buffer};

use super::{DICTIONARY_LEVEL, Dictionary, DictionaryError};

/// Bytes of a sample that are looked at: as much as a payload may have that a dictionary is used for.
pub const SAMPLE_BYTES_MAX: usize = crate::compress::DICTIONARY_RAW_MAX;
/// Bytes of all samples together; more make it slower, not better.
pub const TRAINING_BYTES_MAX: usize = 64 << 20;
/// One sample in this many is held out.
const HELD_OUT_EVERY: usize = 5;
/// Fewer samples than this tell nothing.
const SAMPLES_MIN: usize = 20;
/// One part in this many of the held-out samples' compressed bytes must be saved.
const GAIN_MIN: usize = 20;

/// A dictionary that gains.
#[derive(Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The dictionary.
    pub dictionary: Dictionary,
    /// Bytes of the samples that were held out.
    pub held_out_bytes: usize,
    /// What they have, each compressed alone.
    pub held_out_plain: usize,
    /// What they have, each compressed with the dictionary.
    pub held_out_with: usize,
}

/// No dictionary was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There is too little to learn from.
    #[error(
        "{count} samples are too few, {SAMPLES_MIN} are the least: give more, or cut long ones into the records they are made of"
    )]
    TooFew {
        /// How many samples there were.
        count: usize,
    },
    /// zstd makes nothing of them.
    #[error("zstd makes no dictionary of these samples: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// It would not be worth it.
    #[error(
        "a dictionary gains nothing: samples that it was not made from have {plain} bytes without it and {with} with it"
    )]
    NoGain {
        /// Bytes of held-out samples, compressed alone.
        plain: usize,
        /// And with the dictionary.
        with: usize,
    },
    /// What came out is no dictionary.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
}

/// A dictionary of at most `bytes_max` bytes for payloads like these samples, each cut at [`SAMPLE_BYTES_MAX`], all at
/// [`TRAINING_BYTES_MAX`]. Takes processor time: about a second for 10 MiB.
pub fn train<S: AsRef<[u8]>>(samples: &[S], bytes_max: usize) -> Result<Trained, TrainError> {
    let mut all = 0;
    let samples: Vec<&[u8]> = samples
        .iter()
        .map(|sample| sample.as_ref())
        .filter(|sample| !sample.is_empty())
        .map(|sample| &sample[..sample.len().min(SAMPLE_BYTES_MAX)])
        .take_while(|sample| {
            all += sample.len();
            all <= TRAINING_BYTES_MAX
        })
        .collect();
    if samples.len() < SAMPLES_MIN {
        return Err(TrainError::TooFew { count: samples.len() });
    }
    let is_held_out = |at: usize| at % HELD_OUT_EVERY == HELD_OUT_EVERY - 1;
    let (mut joined, mut lengths, mut held_out) = (Vec::new(), Vec::new(), Vec::new());
    for (at, sample) in samples.into_iter().enumerate() {
        if is_held_out(at) {
            held_out.push(sample);
        } else {
            joined.extend_from_slice(sample);
            lengths.push(sample.len());
        }
    }
    let mut bytes = Vec::with_capacity(bytes_max);
    train_from_buffer(&mut bytes, &joined, &lengths)
        .map_err(|code| TrainError::Refused { reason: zstd::zstd_safe::get_error_name(code).to_owned() })?;
    let dictionary = Dictionary::new(bytes)?;
    let (plain, with) =
        measure(&dictionary, &held_out).map_err(|error| TrainError::Refused { reason: error.to_string() })?;
    if with + plain / GAIN_MIN > plain {
        return Err(TrainError::NoGain { plain, with });
    }
    let held_out_bytes = held_out.iter().map(|sample| sample.len()).sum();
    Ok(Trained { dictionary, held_out_bytes, held_out_plain: plain, held_out_with: with })
}

/// Bytes of samples, each compressed alone and with a dictionary. None is longer than it is uncompressed.
fn measure(dictionary: &Dictionary, samples: &[&[u8]]) -> std::io::Result<(usize, usize)> {
    let mut compressor = Compressor::new(DICTIONARY_LEVEL)?;
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(SAMPLE_BYTES_MAX));
    let (mut plain, mut with) = (0, 0);
    for sample in samples {
        out.clear();
        plain += compressor.compress_to_buffer(sample, &mut out)?.min(sample.len());
        out.clear();
        let len = compressor
            .context_mut()
            .compress_using_cdict(&mut out, sample, dictionary.encoder())
            .map_err(|code| std::io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
        with += len.min(sample.len());
    }
    Ok((plain, with))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_data::SampleData;

    fn records(seed: u64, count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|n| {
                let place = (seed * 7919 + n as u64 * 104_729) % 9973;
                format!("{{\"time\":\"2026-11-29T02:{:02}:{:02}Z\",\"level\":\"info\",\"target\":\"novacron::transfer\",\"message\":\"a piece was verified\",\"piece\":{place},\"peer\":\"node-{}\"}}", n % 60, place % 60, place % 31).into_bytes()
            })
            .collect()
    }

    #[test]
    fn records_gain_and_say_how_much() {
        let trained = train(&records(1, 2000), 16 << 10).unwrap();
        assert!(trained.held_out_with * 3 < trained.held_out_plain, "{trained:?}");
        assert!(trained.dictionary.bytes().len() <= 16 << 10);
        let again = Dictionary::new(trained.dictionary.bytes()).unwrap();
        assert_eq!((again.hash(), again.id()), (trained.dictionary.hash(), trained.dictionary.id()));
    }

    #[test]
    fn what_has_nothing_in_common_gets_none() {
        let noise: Vec<_> = (0..200).map(|seed| SampleData::Random.generate(seed, 1000)).collect();
        match train(&noise, 16 << 10) {
            Err(TrainError::NoGain { plain, with }) => assert!(with + plain / GAIN_MIN > plain),
            Err(TrainError::Refused { .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn too_few_samples_are_said_to_be() {
        assert_eq!(train(&records(1, 5), 16 << 10).unwrap_err(), TrainError::TooFew { count: 5 });
        let empty = vec![Vec::new(); 100];
        assert_eq!(train(&empty, 16 << 10).unwrap_err(), TrainError::TooFew { count: 0 });
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        assert_eq!(Dictionary::new(*b"text").unwrap_err(), DictionaryError::Format);
        let long = vec![0; super::super::DICTIONARY_BYTES_MAX + 1];
        assert_eq!(Dictionary::new(long).unwrap_err(), DictionaryError::TooLong { len: (1 << 20) + 1 });
        let trained = train(&records(1, 500), 8 << 10).unwrap();
        for cut in [7, 8, 9, 50, 100] {
            // Cut or damaged: refused, or a dictionary with another hash.
            let cut = Dictionary::new(&trained.dictionary.bytes()[..cut]);
            assert!(cut.is_err(), "{cut:?}");
        }
    }
}
