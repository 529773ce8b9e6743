//! How replicas of the API are divided, and who has those of a cluster that is out.

/// Replicas in one cluster at most, as in the schema.
pub const REPLICAS_MAX: u16 = 100;

/// A cluster's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// So many, whatever the others have.
    pub replicas: Option<u16>,
    /// Beside the others'.
    pub weight: u16,
    /// It gets no traffic any more.
    pub out: bool,
}

/// Divides by weight: what is left of whole parts goes to those that lack the most of theirs, the first ones first. Without any
/// weight, all have the same.
pub fn divide(total: u32, weights: &[u16]) -> Vec<u32> {
    let even = weights.iter().all(|weight| *weight == 0);
    let weights: Vec<u64> = weights.iter().map(|weight| if even { 1 } else { u64::from(*weight) }).collect();
    let sum = weights.iter().sum::<u64>().max(1);
    let exact = weights.iter().map(|weight| u64::from(total) * weight);
    let mut parts: Vec<(u32, u64)> = exact.map(|part| ((part / sum) as u32, part % sum)).collect();
    let mut left = total - parts.iter().map(|part| part.0).sum::<u32>().min(total);
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(parts[*at].1), *at));
    for at in order.into_iter().filter(|at| weights[*at] > 0) {
        let one = left.min(1);
        parts[at].0 += one;
        left -= one;
    }
    parts.into_iter().map(|part| part.0).collect()
}

/// How many replicas each cluster has: those of clusters that are out are with the others as well, and theirs wait for them.
pub fn replicas(total: Option<u16>, least: u16, parts: &[Part]) -> Vec<u16> {
    let own = own(total, least, parts);
    let lost = own.iter().zip(parts).filter(|(_, part)| part.out).map(|(own, _)| *own).sum();
    let in_place: Vec<usize> = (0..parts.len()).filter(|at| !parts[*at].out).collect();
    let weights: Vec<u16> = in_place.iter().map(|at| parts[*at].weight).collect();
    let mut all = own;
    for (at, more) in in_place.into_iter().zip(divide(lost, &weights)) {
        all[at] += more;
    }
    all.into_iter().map(|count| count.clamp(1, REPLICAS_MAX.into()) as u16).collect()
}

fn own(total: Option<u16>, least: u16, parts: &[Part]) -> Vec<u32> {
    let fixed: u32 = parts.iter().filter_map(|part| part.replicas).map(u32::from).sum();
    let rest: Vec<usize> = (0..parts.len()).filter(|at| parts[*at].replicas.is_none()).collect();
    let weights: Vec<u16> = rest.iter().map(|at| parts[*at].weight).collect();
    let divided = match total {
        Some(total) => divide(u32::from(total).saturating_sub(fixed), &weights),
        None => vec![u32::from(least); rest.len()],
    };
    let mut own: Vec<u32> = parts.iter().map(|part| part.replicas.map_or(0, u32::from)).collect();
    for (at, count) in rest.into_iter().zip(divided) {
        own[at] = count;
    }
    own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(replicas: Option<u16>, weight: u16) -> Part {
        Part { replicas, weight, out: false }
    }

    #[test]
    fn as_many_as_were_asked_for() {
        let fixed = [part(Some(20), 3), part(Some(15), 2), part(Some(10), 1)];
        let weighed = [part(None, 3), part(None, 2), part(None, 1)];
        let out = |mut parts: [Part; 3], at: usize| {
            parts[at].out = true;
            parts
        };
        for (total, parts, expected) in [
            (None, fixed, [20, 15, 10]),
            (Some(45), fixed, [20, 15, 10]),
            (Some(45), weighed, [23, 15, 7]),
            (Some(46), weighed, [23, 15, 8]),
            (None, weighed, [3, 3, 3]),
            (Some(45), [part(Some(20), 3), part(None, 2), part(None, 1)], [20, 17, 8]),
            (Some(2), weighed, [1, 1, 1]),
            // Two parts of three of twenty are 13.3.
            (None, out(fixed, 0), [20, 28, 17]),
            (None, out(fixed, 2), [26, 19, 10]),
            (Some(9), [part(None, 0), part(None, 0), part(None, 0)], [3, 3, 3]),
            (Some(9), [part(None, 1), part(None, 0), part(None, 0)], [9, 1, 1]),
        ] {
            assert_eq!(replicas(total, 3, &parts), expected, "{total:?} {parts:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(total in 0_u32..2000, weights in proptest::collection::vec(0_u16..=100, 1..16)) {
            let parts = divide(total, &weights);
            prop_assert_eq!(parts.iter().sum::<u32>(), total);
            let sum: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights).filter(|_| sum > 0) {
                let exact = f64::from(total) * f64::from(*weight) / f64::from(sum);
                prop_assert!((f64::from(*part) - exact).abs() < 1.0, "{} of {}", part, exact);
            }
        }

        /// Whoever is out, there are as many in other places as there were, unless these are full.
        #[test]
        fn others_have_what_is_out(
            all in proptest::collection::vec((1_u16..=40, 0_u16..=100, any::<bool>()), 1..16),
        ) {
            let parts: Vec<_> =
                all.iter().map(|(count, weight, out)| Part { replicas: Some(*count), weight: *weight, out: *out }).collect();
            let now = replicas(None, 1, &parts);
            let serving: Vec<_> = (0..parts.len()).filter(|at| !parts[*at].out).collect();
            let there: u32 = serving.iter().map(|at| u32::from(now[*at])).sum();
            let wanted: u32 = parts.iter().map(|part| u32::from(part.replicas.unwrap())).sum();
            let is_full = serving.iter().any(|at| now[*at] == REPLICAS_MAX);
            prop_assert!(serving.is_empty() || is_full || there == wanted, "{} of {}", there, wanted);
        }
    }
}
