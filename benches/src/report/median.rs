//! Many rounds, one value.

/// The median of the rounds' ratios: a machine that is slower for some rounds is so for both. Where a round failed there
/// are no pairs, and it is the ratio of the medians.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    if ours.len() != theirs.len() {
        return Some(median(ours)? / median(theirs)?);
    }
    let ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    median(&ratios)
}

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2.0 })
}

/// Smallest and largest value.
pub fn min_max(values: &[f64]) -> (f64, f64) {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (min, max)
}

#[cfg(test)]
mod tests {
    use super::{median, ratio};

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine got slower by half in the last rounds.
        assert_eq!(ratio(&[90.0, 90.0, 45.0], &[100.0, 50.0, 50.0]), Some(0.9));
        assert_eq!(ratio(&[90.0, 90.0], &[100.0, 50.0, 50.0]), Some(1.8));
        assert_eq!(ratio(&[], &[]), None);
    }
}
