//! The time that a member proposes with. One whose clock is wrong would set its region's clock ahead, and others would not listen until
//! time has caught up: so it goes by what most members say.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use consensus_proto::internal::{ClockAnswer, ClockRequest, PeerRequest, peer_request};
use prost::Message as _;

use crate::{identity::since_1970, server::Server};

/// Between two comparisons with all other members.
const COMPARE: Duration = Duration::from_secs(10);
/// The first one; until then nobody knows better.
const COMPARE_FIRST: Duration = Duration::from_secs(1);
/// For the answer of one. A longer way says too little.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// Clocks that differ by less are as good as each other.
const DIFFERENCE_MIN_MS: i64 = 1000;

/// How far a member's clock is from that of most.
#[derive(Debug, Default)]
pub(crate) struct MemberClock {
    /// What is added to it, in milliseconds.
    correction_ms: AtomicI64,
}

fn own_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

impl MemberClock {
    /// Milliseconds since 1970, as most members have it.
    pub(crate) fn wall_ms(&self) -> u64 {
        own_ms().saturating_add_signed(self.correction_ms.load(Relaxed))
    }
}

/// What to add to one's own clock, by how far those of the other members are ahead of it, as far as they have answered. `None`: too
/// few have. Of two in the middle it is the earlier one: a clock that is behind does less harm.
fn correction_ms(mut ahead_ms: Vec<i64>, members: usize) -> Option<i64> {
    ahead_ms.push(0);
    if ahead_ms.len() <= members / 2 {
        return None;
    }
    ahead_ms.sort_unstable();
    let median = ahead_ms[(ahead_ms.len() - 1) / 2];
    Some(if median.abs() > DIFFERENCE_MIN_MS { median } else { 0 })
}

/// The answer to a member that compares.
pub(crate) fn answer() -> Bytes {
    ClockAnswer { wall_ms: own_ms() }.encode_to_vec().into()
}

/// Compares with the other members for as long as the server runs.
pub(crate) async fn compare(server: Server) {
    let mut pause = COMPARE_FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = server.closing() => return,
        }
        pause = COMPARE;
        let membership = server.shared.node.membership();
        let own = server.shared.node.id();
        let mut ahead_ms = Vec::new();
        for member in membership.members.keys().filter(|member| **member != own) {
            ahead_ms.extend(ask(&server, *member).await);
        }
        let Some(correction) = correction_ms(ahead_ms, membership.members.len()) else { continue };
        let before = server.shared.clock.correction_ms.swap(correction, Relaxed);
        if correction != 0 && before == 0 {
            tracing::error!(
                correction_ms = correction,
                "this member's clock is not that of most members, whose time it goes by for changes under the prefix"
            );
        }
        ::metrics::gauge!("consensus_replication_clock_correction_seconds").set(correction as f64 / 1000.0);
    }
}

/// How far another member's clock is ahead, if half of the way is taken for each direction.
async fn ask(server: &Server, member: u64) -> Option<i64> {
    let question =
        PeerRequest { request: Some(peer_request::Request::Clock(ClockRequest {})) }.encode_to_vec();
    let (began, began_ms) = (std::time::Instant::now(), own_ms());
    let answer = server.shared.node.ask(member, &question, ANSWERED_WITHIN).await?;
    let theirs = ClockAnswer::decode(answer).ok()?.wall_ms;
    let middle_ms = began_ms + began.elapsed().as_millis() as u64 / 2;
    i64::try_from(i128::from(theirs) - i128::from(middle_ms)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_members_are_right() {
        for (ahead_ms, members, expected) in [
            (&[][..], 1, Some(0)),
            // Alone, one does not know.
            (&[], 3, None),
            (&[], 2, None),
            (&[900, -900], 3, Some(0)),
            // The others agree that this one is an hour ahead, or behind.
            (&[-3_600_000, -3_600_010], 3, Some(-3_600_000)),
            (&[3_600_000, 3_600_010], 3, Some(3_600_000)),
            // One of the others is wrong.
            (&[3_600_000, 5], 3, Some(0)),
            (&[3_600_000], 3, Some(0)),
            // Of two that differ the earlier one counts.
            (&[3_600_000], 2, Some(0)),
            (&[-3_600_000], 2, Some(-3_600_000)),
        ] {
            assert_eq!(correction_ms(ahead_ms.to_vec(), members), expected, "{ahead_ms:?} of {members}");
        }
    }
}
