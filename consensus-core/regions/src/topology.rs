//! Which regions speak with each other, and in which order they are preferred: pure functions of what is configured and measured.

use std::collections::{BTreeMap, BTreeSet};

use crate::vector::RegionId;

/// Who speaks with whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Everybody with everybody. Each region tells what it has changed itself; what others have changed it only tells to those
    /// who turn out not to have heard of it.
    #[default]
    Mesh,
    /// Everybody with one, who passes everything on.
    HubSpoke {
        /// The one.
        hub: RegionId,
    },
    /// Everybody with its parent and its children, and passes everything on.
    Hierarchical {
        /// Each region's parent. The root has none.
        parents: BTreeMap<RegionId, RegionId>,
    },
}

impl Topology {
    /// Whether there is one way between any two regions, so that what comes from one neighbour has to be passed on.
    pub fn is_tree(&self) -> bool {
        !matches!(self, Self::Mesh)
    }

    /// With whom a region speaks. Of a tree that names nobody for it, nobody.
    pub fn neighbors(&self, region: RegionId, members: &BTreeSet<RegionId>) -> BTreeSet<RegionId> {
        let speaks = |other: &RegionId| match self {
            Self::Mesh => true,
            Self::HubSpoke { hub } => region == *hub || other == hub,
            Self::Hierarchical { parents } => {
                parents.get(&region) == Some(other) || parents.get(other) == Some(&region)
            }
        };
        members.iter().filter(|other| **other != region && speaks(other)).copied().collect()
    }
}

/// What a route is chosen by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// The shortest measured round trip.
    #[default]
    Latency,
    /// What is configured.
    Cost,
    /// The distance on the globe.
    Geography,
}

/// A place on the globe, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Location {
    pub latitude: f64,
    pub longitude: f64,
}

/// What is known of the way to a region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Measured round trip.
    pub rtt_ms: Option<u64>,
    /// What traffic costs, in whatever unit.
    pub cost: Option<u64>,
    /// In kilometres.
    pub distance_km: Option<u64>,
}

/// Regions, the best way first. What nothing is known of comes last, what is equal by number.
pub fn ranked(links: &BTreeMap<RegionId, Link>, preference: Preference) -> Vec<RegionId> {
    let weight = |link: &Link| match preference {
        Preference::Latency => link.rtt_ms,
        Preference::Cost => link.cost,
        Preference::Geography => link.distance_km,
    };
    let mut ranked: Vec<_> =
        links.iter().map(|(region, link)| (weight(link).unwrap_or(u64::MAX), *region)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, region)| region).collect()
}

/// To whom changes are sent in this round: the best ones, and one of the others in turn, so that nobody is left out.
pub fn targets(ranked: &[RegionId], fanout: usize, round: u64) -> Vec<RegionId> {
    if ranked.len() <= fanout || fanout == 0 {
        return ranked[..ranked.len().min(fanout)].to_vec();
    }
    let (best, others) = ranked.split_at(fanout - 1);
    let in_turn = others[(round % others.len() as u64) as usize];
    best.iter().copied().chain([in_turn]).collect()
}

/// The distance along a great circle in kilometres, by the haversine formula, on a globe of radius 6371 km.
pub fn distance_km(a: Location, b: Location) -> u64 {
    let (north, east) = ((b.latitude - a.latitude).to_radians(), (b.longitude - a.longitude).to_radians());
    let cosines = a.latitude.to_radians().cos() * b.latitude.to_radians().cos();
    let chord = (north / 2.0).sin().powi(2) + cosines * (east / 2.0).sin().powi(2);
    (2.0 * 6371.0 * chord.clamp(0.0, 1.0).sqrt().asin()).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u32]) -> Vec<RegionId> {
        numbers.iter().copied().map(RegionId).collect()
    }

    #[test]
    fn neighbors_by_topology() {
        let members: BTreeSet<_> = ids(&[1, 2, 3, 4]).into_iter().collect();
        let parents = [(2, 1), (3, 1), (4, 3)].map(|(child, parent)| (RegionId(child), RegionId(parent)));
        let hub = Topology::HubSpoke { hub: RegionId(2) };
        let tree = Topology::Hierarchical { parents: parents.into() };
        let table: [(&Topology, u32, &[u32]); 9] = [
            (&Topology::Mesh, 1, &[2, 3, 4]),
            (&Topology::Mesh, 9, &[1, 2, 3, 4]),
            (&hub, 2, &[1, 3, 4]),
            (&hub, 1, &[2]),
            (&hub, 9, &[2]),
            (&tree, 1, &[2, 3]),
            (&tree, 3, &[1, 4]),
            (&tree, 4, &[3]),
            (&tree, 9, &[]),
        ];
        for (topology, region, expected) in table {
            let found: Vec<_> = topology.neighbors(RegionId(region), &members).into_iter().collect();
            assert_eq!(found, ids(expected), "{topology:?} of {region}");
        }
    }

    #[test]
    fn routes_by_latency_cost_and_geography() {
        let link = |rtt_ms, cost, distance_km| Link { rtt_ms, cost, distance_km };
        let links = BTreeMap::from([
            (RegionId(1), link(Some(80), Some(5), Some(9_000))),
            (RegionId(2), link(Some(20), Some(7), None)),
            (RegionId(3), link(None, Some(5), Some(300))),
            (RegionId(4), link(Some(20), None, Some(300))),
        ]);
        for (preference, expected) in [
            (Preference::Latency, [2, 4, 1, 3]),
            (Preference::Cost, [1, 3, 2, 4]),
            (Preference::Geography, [3, 4, 1, 2]),
        ] {
            assert_eq!(ranked(&links, preference), ids(&expected), "{preference:?}");
        }
        assert_eq!(ranked(&BTreeMap::new(), Preference::Cost), []);
    }

    #[test]
    fn the_best_ones_and_the_others_in_turn() {
        let table: [(&[u32], usize, u64, &[u32]); 7] = [
            (&[], 3, 0, &[]),
            (&[5, 6], 3, 9, &[5, 6]),
            (&[5, 6, 7], 3, 1, &[5, 6, 7]),
            (&[5, 6, 7, 8, 9], 3, 0, &[5, 6, 7]),
            (&[5, 6, 7, 8, 9], 3, 1, &[5, 6, 8]),
            (&[5, 6, 7, 8, 9], 3, 5, &[5, 6, 9]),
            (&[5, 6, 7], 0, 0, &[]),
        ];
        for (ranked, fanout, round, expected) in table {
            assert_eq!(targets(&ids(ranked), fanout, round), ids(expected), "{ranked:?} {fanout} {round}");
        }
    }

    #[test]
    fn distances() {
        let place = |latitude, longitude| Location { latitude, longitude };
        let (frankfurt, virginia, sydney) = (place(50.1, 8.7), place(38.9, -77.4), place(-33.9, 151.2));
        assert_eq!(distance_km(frankfurt, frankfurt), 0);
        // Of the geodesic, within half a percent: 6,545 and 16,494.
        assert!(
            distance_km(frankfurt, virginia).abs_diff(6_545) < 33,
            "{}",
            distance_km(frankfurt, virginia)
        );
        assert!(distance_km(sydney, frankfurt).abs_diff(16_494) < 83, "{}", distance_km(sydney, frankfurt));
    }
}
