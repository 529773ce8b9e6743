//! Which clusters get traffic.

use jiff::{SignedDuration, Timestamp};

use crate::api::Failover;

/// What is known of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its API server answers.
    pub reachable: bool,
    /// Its store has a quorum, and its API has replicas.
    pub well: bool,
    /// Since when it is, or is not.
    pub since: Timestamp,
    /// It gets traffic; `None`: it never did.
    pub serving: Option<bool>,
}

/// Who gets traffic from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Each cluster; `None`: it is not there yet.
    pub serving: Vec<Option<bool>>,
    /// Fewer than half of the clusters answer, so that nothing was changed.
    pub cut_off: bool,
}

/// Decides. A cluster is out after it has not been well for a while, and back after it has been for another while; in between it stays
/// as it is. At least one stays in.
pub fn decide(all: &[Seen], policy: &Failover, now: Timestamp) -> Decision {
    let is_over = |since: Timestamp, seconds: u32| {
        let until = since.checked_add(SignedDuration::from_secs(seconds.into()));
        until.is_ok_and(|until| now >= until)
    };
    let mut serving: Vec<_> = all.iter().map(|seen| seen.serving).collect();
    if 2 * all.iter().filter(|seen| seen.reachable).count() < all.len() {
        return Decision { serving, cut_off: true };
    }
    for (seen, serves) in all.iter().zip(&mut serving) {
        let comes_back = || is_over(seen.since, policy.return_after_seconds);
        if seen.well && seen.serving.is_none_or(|serves| !serves && comes_back()) {
            *serves = Some(true);
        }
    }
    let others_serve = all.iter().zip(&serving).any(|(seen, serves)| seen.well && *serves == Some(true));
    for (seen, serves) in all.iter().zip(&mut serving).filter(|_| others_serve) {
        if !seen.well && *serves == Some(true) && is_over(seen.since, policy.after_seconds) {
            *serves = Some(false);
        }
    }
    Decision { serving, cut_off: false }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Failover = Failover { after_seconds: 30, return_after_seconds: 60 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn seen(reachable: bool, well: bool, since: i64, serving: Option<bool>) -> Seen {
        Seen { reachable, well, since: at(since), serving }
    }

    #[test]
    fn a_cluster_goes_after_a_while_and_comes_back_after_another() {
        let here = seen(true, true, 0, Some(true));
        for (other, now, expected) in [
            (seen(true, false, 0, None), 1000, None),
            (seen(true, true, 0, None), 0, Some(true)),
            (seen(false, false, 100, Some(true)), 129, Some(true)),
            (seen(false, false, 100, Some(true)), 130, Some(false)),
            (seen(true, false, 100, Some(true)), 130, Some(false)),
            (seen(true, true, 200, Some(false)), 259, Some(false)),
            (seen(true, true, 200, Some(false)), 260, Some(true)),
            (seen(false, false, 200, Some(false)), 9999, Some(false)),
        ] {
            let decision = decide(&[here, other], &POLICY, at(now));
            assert_eq!(decision.serving, [Some(true), expected], "{other:?} {now}");
            assert!(!decision.cut_off);
        }
    }

    #[test]
    fn who_cannot_reach_half_of_them_moves_nothing() {
        let (well, gone) = (seen(true, true, 0, Some(true)), seen(false, false, 0, Some(true)));
        for (all, moves) in
            [(vec![well, gone], true), (vec![well, gone, gone], false), (vec![well, well, gone, gone], true)]
        {
            let decision = decide(&all, &POLICY, at(1000));
            assert_eq!(decision.cut_off, !moves, "{all:?}");
            assert_eq!(decision.serving.contains(&Some(false)), moves, "{all:?}");
        }
    }

    #[test]
    fn the_last_one_stays() {
        let sick = seen(true, false, 0, Some(true));
        assert_eq!(decide(&[sick, sick], &POLICY, at(1000)).serving, [Some(true); 2]);
    }

    proptest! {
        /// Clusters come and go as they like, and are looked at now and then.
        #[test]
        fn whatever_happens(
            looks in proptest::collection::vec((1_i64..40, proptest::collection::vec((any::<bool>(), any::<bool>()), 3)), 1..60),
        ) {
            let mut now = 1000;
            let mut all = vec![seen(true, true, now, None); 3];
            for (pause, states) in looks {
                now += pause;
                for (one, (reachable, well)) in all.iter_mut().zip(states) {
                    let well = reachable && well;
                    one.since = if one.well == well { one.since } else { at(now) };
                    (one.reachable, one.well) = (reachable, well);
                }
                let decision = decide(&all, &POLICY, at(now));
                let served = all.iter().any(|one| one.serving == Some(true));
                prop_assert!(!served || decision.serving.contains(&Some(true)), "nobody serves");
                for (one, after) in all.iter_mut().zip(decision.serving) {
                    let long = now - one.since.as_second();
                    match (one.serving, after) {
                        (Some(true), Some(false)) => prop_assert!(!one.well && long >= 30 && !decision.cut_off),
                        (Some(false), Some(true)) => prop_assert!(one.well && long >= 60 && !decision.cut_off),
                        (None, Some(true)) => prop_assert!(one.well),
                        (before, after) => prop_assert_eq!(before, after),
                    }
                    one.serving = after;
                }
            }
        }
    }
}
