//! PodDisruptionBudgets: what a drained node may take away at a time.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Component, Region};

/// Of the API's replicas, which may go at a time, rounded up: four fifths stay. Said as what must stay, it would be rounded up as
/// well, to three of three.
const API_AWAY: &str = "20%";
/// Members of the store, which may go at a time.
const MEMBERS_AWAY: i32 = 1;

pub(super) fn budgets(region: &Region<'_>) -> [PodDisruptionBudget; 2] {
    let budget = |component, spec: PodDisruptionBudgetSpec| PodDisruptionBudget {
        metadata: region.meta(component, region.name_of(component)),
        spec: Some(PodDisruptionBudgetSpec { selector: Some(region.label_selector(component)), ..spec }),
        ..PodDisruptionBudget::default()
    };
    let members = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(MEMBERS_AWAY)),
        ..PodDisruptionBudgetSpec::default()
    };
    let api = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::String(API_AWAY.to_owned())),
        // A replica that never becomes ready must not keep its node from being drained.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    [budget(Component::Consensus, members), budget(Component::Api, api)]
}
