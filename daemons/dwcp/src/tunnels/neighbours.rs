//! Peers that may have tunnels: those that are connected, and those that were not long ago, also over a restart. With them is
//! kept which interfaces this agent has made: the settings may not name them any more.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use dwcp_node::state;
use serde::{Deserialize, Serialize};

use super::plan::Neighbour;

/// A peer that was not connected for so long has no tunnel any more.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Peers that are remembered.
const NEIGHBOURS_MAX: usize = 2048;

/// The interfaces of this agent, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) wireguard: Option<String>,
    pub(super) vxlan: Option<String>,
}

/// What is in the file. Whose address is older comes first.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    made: Made,
    neighbours: Vec<Neighbour>,
}

/// A peer, when it was connected at last, and which one it was to say this address inside.
struct Known {
    neighbour: Neighbour,
    seen: Instant,
    turn: u64,
}

/// Peers that may have tunnels, connected or not, in a file, too.
#[derive(Default)]
pub(super) struct Neighbours {
    made: Made,
    known: BTreeMap<String, Known>,
    /// Those that there were.
    turns: u64,
    /// None: they are not kept.
    file: Option<std::path::PathBuf>,
}

impl Neighbours {
    /// Those of the file. Without them tunnels begin when peers are connected.
    pub(super) fn read(file: &Path) -> Self {
        let content = state::read(file).map_err(|error| error.to_string());
        let listed = content.and_then(|content| match content {
            Some(content) => serde_json::from_slice::<Content>(&content).map_err(|error| error.to_string()),
            None => Ok(Content::default()),
        });
        let Content { made, neighbours } = listed.unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), error, "tunnels that there were are not known");
            Content::default()
        });
        let now = Instant::now();
        let turns = neighbours.len() as u64;
        let known = neighbours.into_iter().zip(0..);
        let known =
            known.map(|(neighbour, turn)| (neighbour.node_id.clone(), Known { neighbour, seen: now, turn }));
        Self { made, known: known.collect(), turns, file: Some(file.to_owned()) }
    }

    pub(super) fn made(&self) -> &Made {
        &self.made
    }

    /// Before they are made, and when they are no more.
    pub(super) fn set_made(&mut self, made: Made) {
        if self.made != made {
            self.made = made;
            self.write();
        }
    }

    /// In the order in which they came to the addresses inside that they say: who has one first keeps it.
    pub(super) fn list(&self) -> Vec<Neighbour> {
        let mut known: Vec<_> = self.known.values().collect();
        known.sort_by_key(|known| known.turn);
        known.into_iter().map(|known| known.neighbour.clone()).collect()
    }

    /// These are connected now.
    pub(super) fn seen(&mut self, connected: Vec<Neighbour>, now: Instant) {
        let mut changed = false;
        for neighbour in connected {
            let is_new = !self.known.contains_key(&neighbour.node_id);
            if is_new && self.known.len() >= NEIGHBOURS_MAX {
                continue;
            }
            let inside = |of: &Neighbour| of.ends.wireguard.as_ref().map(|end| end.address);
            let before = self.known.remove(&neighbour.node_id);
            changed |= before.as_ref().is_none_or(|before| before.neighbour != neighbour);
            let turn = match before {
                Some(before) if inside(&before.neighbour) == inside(&neighbour) => before.turn,
                _ => {
                    self.turns += 1;
                    self.turns
                }
            };
            self.known.insert(neighbour.node_id.clone(), Known { neighbour, seen: now, turn });
        }
        let count = self.known.len();
        self.known.retain(|_, known| now.duration_since(known.seen) < FORGET_AFTER);
        if changed || self.known.len() < count {
            self.write();
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.known.clear();
        self.write();
    }

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let content = Content { made: self.made.clone(), neighbours: self.list() };
        let content = serde_json::to_vec(&content).unwrap_or_default();
        if let Err(error) = state::write(file, &content) {
            tracing::warn!(%error, "the next start will not know these tunnels");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use novacron_control::schema;

    use super::*;

    fn neighbour(name: &str) -> Neighbour {
        Neighbour {
            node_id: name.to_owned(),
            region: None,
            address: IpAddr::from([192, 0, 2, 1]),
            ends: schema::TunnelEnds::default(),
        }
    }

    #[test]
    fn who_is_away_is_remembered_for_a_while_and_over_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tunnels.json");
        let begin = Instant::now();
        let mut neighbours = Neighbours::read(&file);
        neighbours.seen(vec![neighbour("b"), neighbour("c")], begin);
        neighbours.seen(vec![neighbour("c")], begin + FORGET_AFTER / 2);
        assert_eq!(Neighbours::read(&file).list(), [neighbour("b"), neighbour("c")]);
        neighbours.seen(vec![], begin + FORGET_AFTER);
        assert_eq!(Neighbours::read(&file).list(), [neighbour("c")]);
        // Who comes later, or to another's address, is after who has it, whatever the names are; also over a restart.
        let at = |name: &str, last: u8| {
            let wireguard = schema::WireGuardEnd {
                public_keys: Vec::new(),
                address: IpAddr::from([10, 99, 0, last]),
                port: 51820,
                endpoint: None,
            };
            Neighbour {
                ends: schema::TunnelEnds { wireguard: Some(wireguard), vxlan: None },
                ..neighbour(name)
            }
        };
        neighbours.seen(vec![at("b", 2), at("a", 1)], begin + FORGET_AFTER);
        neighbours.seen(vec![at("a", 2)], begin + FORGET_AFTER);
        let order =
            |neighbours: &Neighbours| neighbours.list().into_iter().map(|of| of.node_id).collect::<Vec<_>>();
        assert_eq!(order(&neighbours), ["c", "b", "a"]);
        assert_eq!(order(&Neighbours::read(&file)), ["c", "b", "a"]);
        std::fs::write(&file, "nonsense").expect("written");
        assert_eq!(Neighbours::read(&file).list(), [], "it goes on without");
    }
}
