//! The labels `peer` and `region` of metrics: who a peer is, in bounded number.
//!
//! With TLS a peer is called what its certificate says first, without it what it calls itself. Its region is what it says
//! in either case. Whoever comes when all labels are taken is counted as [`OTHER`]: peers that invent names must not make
//! series without end.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::PeerInfo;

/// Peers (pairs of name and region) that have labels of their own at a time, in a process.
const PEERS_LABELLED_MAX: usize = 256;
/// How long a label stays taken when its last connection is gone: recorders keep its series for a while, too.
const LABEL_KEPT: Duration = Duration::from_secs(600);
/// The `peer` of all others; their region is empty.
const OTHER: &str = "other";

/// Recorders are global; so is this.
static LABELS: LazyLock<Mutex<Labels>> = LazyLock::new(Mutex::default);

type Names = (String, String);

#[derive(Debug, Default)]
struct Labels(HashMap<Names, Use>);

#[derive(Debug)]
struct Use {
    connections: usize,
    /// When a connection last came or went.
    at: Instant,
}

impl Labels {
    /// Takes a label for one more connection. `false`: there are too many.
    fn take(&mut self, now: Instant, names: &Names) -> bool {
        if let Some(used) = self.0.get_mut(names) {
            used.connections += 1;
            used.at = now;
            return true;
        }
        if self.0.len() >= PEERS_LABELLED_MAX {
            self.0.retain(|_, used| used.connections > 0 || now - used.at < LABEL_KEPT);
        }
        if self.0.len() >= PEERS_LABELLED_MAX {
            return false;
        }
        self.0.insert(names.clone(), Use { connections: 1, at: now });
        true
    }

    fn give_back(&mut self, now: Instant, names: &Names) {
        if let Some(used) = self.0.get_mut(names) {
            used.connections -= 1;
            used.at = now;
        }
    }
}

/// The labels of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct PeerLabel {
    names: Names,
    is_own: bool,
}

impl PeerLabel {
    pub(crate) fn of(peer: &PeerInfo) -> Self {
        let name = peer.names.first().unwrap_or(&peer.node_id);
        let names = (name.clone(), peer.region.clone().unwrap_or_default());
        if LABELS.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), &names) {
            return Self { names, is_own: true };
        }
        tracing::warn!(limit = PEERS_LABELLED_MAX, "too many peers: this one is \"{OTHER}\" in metrics");
        Self { names: (OTHER.to_owned(), String::new()), is_own: false }
    }

    /// As the `metrics` facade takes them.
    pub(crate) fn pairs(&self) -> [(&'static str, String); 2] {
        let (peer, region) = self.names.clone();
        [("peer", peer), ("region", region)]
    }
}

impl Drop for PeerLabel {
    fn drop(&mut self) {
        if self.is_own {
            LABELS.lock().unwrap_or_else(PoisonError::into_inner).give_back(Instant::now(), &self.names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(number: usize) -> Names {
        (format!("node-{number}"), String::new())
    }

    #[test]
    fn a_peer_is_called_by_its_certificate_and_else_by_itself() {
        let peer = |names: &[&str]| PeerInfo {
            node_id: "says-so".into(),
            region: Some("north".into()),
            names: names.iter().map(ToString::to_string).collect(),
            addr: "127.0.0.1:1".parse().unwrap(),
        };
        let pairs = |names| PeerLabel::of(&peer(names)).pairs().map(|(_, value)| value);
        assert_eq!(pairs(&["first.example", "second.example"]), ["first.example", "north"]);
        assert_eq!(pairs(&[]), ["says-so", "north"]);
    }

    #[test]
    fn labels_are_bounded_and_free_again_some_time_after_the_last_connection() {
        let mut labels = Labels::default();
        let start = Instant::now();
        assert!((0..PEERS_LABELLED_MAX).all(|number| labels.take(start, &names(number))));
        assert!(!labels.take(start, &names(PEERS_LABELLED_MAX)));
        assert!(labels.take(start, &names(0)), "one that is known has no bound");
        // A peer that comes and goes under ever new names wins nothing.
        let soon = start + LABEL_KEPT / 2;
        labels.give_back(soon, &names(0));
        labels.give_back(soon, &names(1));
        assert!(!labels.take(soon + LABEL_KEPT - Duration::from_secs(1), &names(500)));
        assert!(labels.take(soon + LABEL_KEPT, &names(500)), "node-1 has none any more");
        assert!(!labels.take(soon + LABEL_KEPT, &names(501)), "node-0 has another");
        assert_eq!(labels.0.len(), PEERS_LABELLED_MAX);
    }
}
