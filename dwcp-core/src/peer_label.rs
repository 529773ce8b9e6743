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

impl PeerInfo {
    /// The labels `peer` and `region` of the metrics of this peer's connections, for other metrics of it: its own for as long
    /// as it has a connection, and some minutes longer.
    pub fn labels(&self) -> [(&'static str, String); 2] {
        let names = names(self);
        let is_own = LABELS.lock().unwrap_or_else(PoisonError::into_inner).0.contains_key(&names);
        pairs(if is_own { names } else { others() })
    }
}

fn names(peer: &PeerInfo) -> Names {
    let name = peer.names.first().unwrap_or(&peer.node_id);
    (name.clone(), peer.region.clone().unwrap_or_default())
}

fn others() -> Names {
    (OTHER.to_owned(), String::new())
}

fn pairs((peer, region): Names) -> [(&'static str, String); 2] {
    [("peer", peer), ("region", region)]
}

/// The labels of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct PeerLabel {
    names: Names,
    is_own: bool,
}

impl PeerLabel {
    pub(crate) fn of(peer: &PeerInfo) -> Self {
        let names = names(peer);
        if LABELS.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), &names) {
            return Self { names, is_own: true };
        }
        tracing::warn!(limit = PEERS_LABELLED_MAX, "too many peers: this one is \"{OTHER}\" in metrics");
        Self { names: others(), is_own: false }
    }

    /// As the `metrics` facade takes them.
    pub(crate) fn pairs(&self) -> [(&'static str, String); 2] {
        pairs(self.names.clone())
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

    fn node(number: usize) -> Names {
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
        let values = |pairs: [(&str, String); 2]| pairs.map(|(_, value)| value);
        let nobody = peer(&["nobody.example"]);
        assert_eq!(values(nobody.labels()), [OTHER, ""], "it has no connection");
        for (names, expected) in [
            (&["first.example", "second.example"][..], ["first.example", "north"]),
            (&[], ["says-so", "north"]),
        ] {
            let label = PeerLabel::of(&peer(names));
            assert_eq!(values(label.pairs()), expected);
            assert_eq!(peer(names).labels(), label.pairs());
        }
    }

    #[test]
    fn labels_are_bounded_and_free_again_some_time_after_the_last_connection() {
        let mut labels = Labels::default();
        let start = Instant::now();
        assert!((0..PEERS_LABELLED_MAX).all(|number| labels.take(start, &node(number))));
        assert!(!labels.take(start, &node(PEERS_LABELLED_MAX)));
        assert!(labels.take(start, &node(0)), "one that is known has no bound");
        // A peer that comes and goes under ever new names wins nothing.
        let soon = start + LABEL_KEPT / 2;
        labels.give_back(soon, &node(0));
        labels.give_back(soon, &node(1));
        assert!(!labels.take(soon + LABEL_KEPT - Duration::from_secs(1), &node(500)));
        assert!(labels.take(soon + LABEL_KEPT, &node(500)), "node-1 has none any more");
        assert!(!labels.take(soon + LABEL_KEPT, &node(501)), "node-0 has another");
        assert_eq!(labels.0.len(), PEERS_LABELLED_MAX);
    }
}
