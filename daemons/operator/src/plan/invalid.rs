//! What the API server's schema refuses as well, for objects that were there before it, and what it cannot know.

use crate::api::{ClusterSpec, RegionSpec};

/// Members with a vote at most.
const VOTERS_MAX: u16 = 11;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A field has what it cannot have.
    #[error("{field}: {value}: expected {expected}")]
    Invalid {
        /// Its path.
        field: &'static str,
        /// What it has.
        value: String,
        /// What it may have.
        expected: &'static str,
    },
    /// The object is in no namespace.
    #[error("the region is in no namespace")]
    NoNamespace,
    /// An object that is no JSON.
    #[error("an object that is no JSON: {source}")]
    NoJson {
        /// Why.
        source: serde_json::Error,
    },
    /// A settings file that is no YAML.
    #[error("a settings file that is no YAML: {source}")]
    NoYaml {
        /// Why.
        source: serde_saphyr::ser::Error,
    },
}

pub(super) fn check(region: &RegionSpec, cluster: &ClusterSpec) -> Result<(), PlanError> {
    let invalid = |field, value: String, expected| Err(PlanError::Invalid { field, value, expected });
    let voters = region.voters;
    if voters.is_multiple_of(2) || voters > VOTERS_MAX {
        return invalid("voters", voters.to_string(), "an odd number of 1 to 11");
    }
    let api = &region.api;
    if api.min < 1 || api.min > api.max {
        return invalid("api.min", api.min.to_string(), "1 to api.max");
    }
    if let Some(replication) = &cluster.replication
        && !replication.regions.iter().any(|other| other.name == region.region)
    {
        return invalid("replication.regions", region.region.clone(), "all regions of the cluster, by name");
    }
    let amst = &cluster.dwcp.amst;
    if amst.min_streams < 1 || amst.min_streams > amst.max_streams {
        return invalid("dwcp.amst.minStreams", amst.min_streams.to_string(), "1 to maxStreams");
    }
    if !(amst.min_streams..=amst.max_streams).contains(&amst.initial_streams) {
        let value = amst.initial_streams.to_string();
        return invalid("dwcp.amst.initialStreams", value, "minStreams to maxStreams");
    }
    Ok(())
}
