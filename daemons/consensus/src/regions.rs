//! From settings to one of several regions: who they are, where they are, and how they are reached.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use consensus_core::RegionNetworkConfig;
use consensus_etcd::{RegionsConfig, authority};
use consensus_regions::{
    Config, RegionId,
    topology::{Link, Location, Preference, Topology, distance_km},
};
use dwcp_core::security::TlsFiles;
use novacron_settings::Sources;

use crate::settings::{ClusterState, Replication, RoutePreference, Settings, TopologyKind};

/// Numbers and names of regions.
struct Names(BTreeMap<u32, String>);

impl Names {
    fn number(&self, name: &str) -> Result<u32> {
        let found = self.0.iter().find(|(_, known)| *known == name);
        found
            .map(|(number, _)| *number)
            .with_context(|| format!("{name}: replication.regions has no such region"))
    }
}

/// `None`: the store is alone. Its TLS is loaded later.
pub(crate) fn regions(sources: &Sources<Settings>) -> Result<Option<RegionsConfig>> {
    let settings = &sources.values;
    let replication = &settings.replication;
    if replication.regions.is_empty() {
        return Ok(None);
    }
    let at = |key: &str| format!("{}: {key}", sources.origin(key));
    let names = names(&replication.regions).with_context(|| at("replication.regions"))?;
    let own = names.number(&settings.region).with_context(|| at("region"))?;
    let has_tls = tls(replication).with_context(|| at("replication.tls.cert"))?.is_some();
    let listen = replication.listen;
    ensure!(
        has_tls || listen.ip().is_loopback() || settings.allow_plaintext,
        "{}: without TLS, whoever reaches {listen} can write everything under the prefix: the replication.tls settings set TLS, \
         --allow-plaintext allows it",
        at("replication.listen")
    );
    let network = RegionNetworkConfig {
        region: own,
        name: settings.region.clone(),
        listen,
        tls: None,
        allow_plaintext: settings.allow_plaintext,
    };
    let mut config = RegionsConfig::new(network, names.0.clone());
    config.prefix = replication.prefix.clone().into_bytes().into();
    config.joins = replication.initial_state == ClusterState::Existing;
    config.peers = peers(replication, &names, own, has_tls).with_context(|| at("replication.peers"))?;
    config.replicator = Config {
        interval_ms: replication.interval.as_millis() as u64,
        anti_entropy_interval_ms: replication.anti_entropy_interval.as_millis() as u64,
        fanout: replication.fanout,
        skew_max_ms: replication.skew_max.as_millis() as u64,
        topology: topology(replication, &names).with_context(|| at("replication.topology"))?,
        preference: match replication.prefer {
            RoutePreference::Latency => Preference::Latency,
            RoutePreference::Cost => Preference::Cost,
            RoutePreference::Geography => Preference::Geography,
        },
        links: links(replication, &names, own).with_context(|| at("replication.prefer"))?,
        seeds: Vec::new(),
    };
    Ok(Some(config))
}

/// Files for the connections between regions, if there are any.
pub(crate) fn tls(replication: &Replication) -> Result<Option<TlsFiles>> {
    let tls = &replication.tls;
    let given = [&tls.cert, &tls.key, &tls.ca].map(|path| !path.as_os_str().is_empty());
    ensure!(
        given == [true; 3] || given == [false; 3],
        "replication.tls: cert, key and ca come together: regions check each other"
    );
    let files = TlsFiles { cert: tls.cert.clone(), key: tls.key.clone(), ca: tls.ca.clone(), allow: None };
    Ok(given[0].then_some(files))
}

fn pairs(list: &[String]) -> impl Iterator<Item = Result<(&str, &str)>> {
    list.iter().map(|item| item.split_once('=').with_context(|| format!("{item}: no `=`")))
}

fn value<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<T> {
    text.parse().with_context(|| format!("{text}: not a number"))
}

fn names(list: &[String]) -> Result<Names> {
    let mut names = BTreeMap::new();
    for pair in pairs(list) {
        let (number, name) = pair?;
        let number: u32 = value(number)?;
        ensure!(number > 0, "numbers of regions begin with 1");
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        ensure!(is_name, "{name:?}: a name is not empty, and has no spaces");
        ensure!(names.values().all(|known| known != name), "{name} has two numbers");
        ensure!(names.insert(number, name.to_owned()).is_none(), "{number} has two names");
    }
    Ok(Names(names))
}

fn peers(
    replication: &Replication,
    names: &Names,
    own: u32,
    has_tls: bool,
) -> Result<BTreeMap<u32, Vec<String>>> {
    let scheme = if has_tls { "https" } else { "http" };
    let mut peers: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for pair in pairs(&replication.peers) {
        let (name, url) = pair?;
        authority(url)?;
        ensure!(
            url.split_once("://").is_some_and(|(found, _)| found == scheme),
            "{url}: regions talk {scheme} here: TLS between them is set by the replication.tls settings"
        );
        let number = names.number(name)?;
        // One list can serve all regions.
        if number != own {
            peers.entry(number).or_default().push(url.to_owned());
        }
    }
    Ok(peers)
}

fn topology(replication: &Replication, names: &Names) -> Result<Topology> {
    Ok(match replication.topology {
        TopologyKind::Mesh => Topology::Mesh,
        TopologyKind::HubSpoke => {
            ensure!(!replication.hub.is_empty(), "hub-spoke needs replication.hub");
            Topology::HubSpoke { hub: RegionId(names.number(&replication.hub)?) }
        }
        TopologyKind::Hierarchical => {
            let mut parents = BTreeMap::new();
            for pair in pairs(&replication.parents) {
                let (child, parent) = pair?;
                let (child, parent) = (names.number(child)?, names.number(parent)?);
                ensure!(child != parent, "{child} is its own parent");
                parents.insert(RegionId(child), RegionId(parent));
            }
            ensure!(!parents.is_empty(), "hierarchical needs replication.parents");
            check_tree(&parents)?;
            Topology::Hierarchical { parents }
        }
    })
}

/// From every region its parents lead to the root.
fn check_tree(parents: &BTreeMap<RegionId, RegionId>) -> Result<()> {
    for first in parents.keys() {
        let mut at = *first;
        for _ in 0..=parents.len() {
            match parents.get(&at) {
                Some(parent) => at = *parent,
                None => break,
            }
        }
        if parents.contains_key(&at) {
            bail!("replication.parents: region {first} is above itself");
        }
    }
    let roots = parents.values().filter(|parent| !parents.contains_key(parent));
    let mut roots: Vec<_> = roots.collect();
    roots.dedup();
    roots.sort_unstable();
    roots.dedup();
    ensure!(roots.len() == 1, "replication.parents: one region has no parent, not {}", roots.len());
    Ok(())
}

fn links(replication: &Replication, names: &Names, own: u32) -> Result<BTreeMap<RegionId, Link>> {
    let mut links: BTreeMap<RegionId, Link> = BTreeMap::new();
    for pair in pairs(&replication.costs) {
        let (name, cost) = pair.context("replication.costs")?;
        links.entry(RegionId(names.number(name)?)).or_default().cost = Some(value(cost)?);
    }
    let mut places = BTreeMap::new();
    for pair in pairs(&replication.locations) {
        let (name, place) = pair.context("replication.locations")?;
        places.insert(names.number(name)?, location(place).context("replication.locations")?);
    }
    if let Some(here) = places.get(&own) {
        for (number, there) in places.iter().filter(|(number, _)| **number != own) {
            links.entry(RegionId(*number)).or_default().distance_km = Some(distance_km(*here, *there));
        }
    }
    Ok(links)
}

fn location(text: &str) -> Result<Location> {
    let (latitude, longitude) =
        text.split_once(':').with_context(|| format!("{text}: not LATITUDE:LONGITUDE"))?;
    let place = Location { latitude: value(latitude)?, longitude: value(longitude)? };
    let exists = (-90.0..=90.0).contains(&place.latitude) && (-180.0..=180.0).contains(&place.longitude);
    ensure!(exists, "{text}: not a place on the globe");
    Ok(place)
}

/// Reads the files, so that a mistake shows before anything is opened.
pub(crate) fn load_tls(config: &mut RegionsConfig, files: &TlsFiles) -> Result<()> {
    config.network.tls = Some(Arc::new(files.load().context("TLS between regions")?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::KEYS;

    fn with(settings: &[(&str, &str)]) -> Result<Option<RegionsConfig>> {
        let mut sources = Sources::new(KEYS, Settings::default());
        for (key, value) in settings {
            sources.flag("--x", key, value).unwrap();
        }
        regions(&sources)
    }

    #[test]
    fn a_store_is_alone_unless_somebody_says_otherwise() {
        assert!(with(&[]).unwrap().is_none());
        assert!(with(&[("region", "eu"), ("replication.interval", "1s")]).unwrap().is_none());
    }

    #[test]
    fn names_lead_to_numbers() {
        let config = with(&[
            ("region", "us"),
            ("replication.regions", "1=eu,2=us,7=ap"),
            ("replication.peers", "eu=http://127.0.0.1:1,eu=http://127.0.0.1:2,us=http://127.0.0.1:3"),
            ("replication.topology", "hierarchical"),
            ("replication.parents", "us=eu,ap=us"),
            ("replication.costs", "eu=5"),
            ("replication.locations", "us=38.9:-77.4,eu=50.1:8.7"),
            ("replication.prefer", "geography"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(config.region(), RegionId(2));
        assert_eq!(config.peers.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(config.peers[&1].len(), 2);
        let link = config.replicator.links[&RegionId(1)];
        assert_eq!(link.cost, Some(5));
        assert!((6_500..6_600).contains(&link.distance_km.unwrap()));
        assert_eq!(config.replicator.preference, Preference::Geography);
        let Topology::Hierarchical { parents } = config.replicator.topology else { panic!("a tree") };
        assert_eq!(parents[&RegionId(7)], RegionId(2));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let base = [("region", "eu"), ("replication.regions", "1=eu,2=us,3=ap")];
        for (key, value, says) in [
            ("region", "mars", "no such region"),
            ("replication.regions", "1=eu,1=us", "two names"),
            ("replication.regions", "1=eu,2=eu", "two numbers"),
            ("replication.regions", "0=eu", "begin with 1"),
            ("replication.regions", "eu", "no `=`"),
            ("replication.peers", "mars=http://127.0.0.1:1", "no such region"),
            ("replication.peers", "us=https://127.0.0.1:1", "regions talk http"),
            ("replication.listen", "192.0.2.1:9091", "--allow-plaintext"),
            ("replication.topology", "hub-spoke", "replication.hub"),
            ("replication.topology", "hierarchical", "replication.parents"),
            ("replication.tls.cert", "a", "come together"),
            ("replication.locations", "us=91:0", "globe"),
            ("replication.costs", "us=x", "not a number"),
        ] {
            let settings: Vec<_> = base.into_iter().chain([(key, value)]).collect();
            let error = format!("{:#}", with(&settings).err().unwrap_or_else(|| panic!("{key}: {value}")));
            assert!(error.contains(says), "{key}: {value}: {error}");
        }
        for (parents, says) in [
            ("eu=us,us=eu", "above itself"),
            ("us=eu,eu=eu", "its own parent"),
            ("us=eu,mars=eu", "no such region"),
        ] {
            let tree = [("replication.topology", "hierarchical"), ("replication.parents", parents)];
            let settings: Vec<_> = base.into_iter().chain(tree).collect();
            let error = format!("{:#}", with(&settings).err().unwrap_or_else(|| panic!("{parents}")));
            assert!(error.contains(says), "{parents}: {error}");
        }
    }
}
