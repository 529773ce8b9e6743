//! What the operator may do: exactly what it does.

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::FIELD_MANAGER;
use crate::api::GROUP;

/// What is made, kept and taken away.
const APPLIED: [&str; 6] = ["create", "delete", "get", "list", "patch", "watch"];

/// (group, resources, verbs)
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("", &["configmaps", "serviceaccounts", "services"], &APPLIED),
    ("", &["persistentvolumeclaims"], &["delete", "get", "list", "watch"]),
    // Of an upgrade, and of a pod whose member was replaced.
    ("", &["pods"], &["delete", "get", "list", "watch"]),
    ("", &["pods/status"], &["patch"]),
    // Certificates; those of others are read by their names alone.
    ("", &["secrets"], &["create", "get", "update"]),
    ("apps", &["daemonsets", "deployments", "statefulsets"], &APPLIED),
    ("autoscaling", &["horizontalpodautoscalers"], &APPLIED),
    ("batch", &["cronjobs", "jobs"], &APPLIED),
    ("coordination.k8s.io", &["leases"], &["create", "get", "update"]),
    ("events.k8s.io", &["events"], &["create", "patch"]),
    ("externaldns.k8s.io", &["dnsendpoints"], &["create", "delete", "list", "patch"]),
    ("monitoring.coreos.com", &["servicemonitors"], &APPLIED),
    ("networking.k8s.io", &["networkpolicies"], &APPLIED),
    ("policy", &["poddisruptionbudgets"], &APPLIED),
    (GROUP, &["novacronclusters", "dwcpfederations"], &["get", "list", "patch", "watch"]),
    (GROUP, &["novacronregions"], &APPLIED),
    (GROUP, &["novacronclusters/status", "novacronregions/status", "dwcpfederations/status"], &["patch"]),
    // Without these, an object whose owner is one of ours is refused where owners are checked.
    (
        GROUP,
        &["novacronclusters/finalizers", "novacronregions/finalizers", "dwcpfederations/finalizers"],
        &["update"],
    ),
];

/// What a federation does in each of its clusters, by the kubeconfig that it has for it.
const FEDERATED: &[(&str, &[&str], &[&str])] = &[
    ("", &["services"], &["create", "delete", "get", "list", "patch"]),
    ("apps", &["deployments"], &["get"]),
    ("discovery.k8s.io", &["endpointslices"], &["create", "delete", "list", "patch"]),
    (GROUP, &["novacronclusters"], &["create", "delete", "get", "list", "patch"]),
];

/// The operator's role.
pub fn role() -> ClusterRole {
    of(FIELD_MANAGER, RULES)
}

/// The role of a federation's account in each of its clusters.
pub fn federated_role() -> ClusterRole {
    of("novacron-federation", FEDERATED)
}

fn of(name: &str, rules: &[(&str, &[&str], &[&str])]) -> ClusterRole {
    let owned = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
    let rule = |(group, resources, verbs): &(&str, &[&str], &[&str])| PolicyRule {
        api_groups: Some(vec![(*group).to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    };
    ClusterRole {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        rules: Some(rules.iter().map(rule).collect()),
        ..ClusterRole::default()
    }
}

/// Whether the role has it; for tests of what the operator does.
pub fn may(verb: &str, group: &str, resource: &str) -> bool {
    has(RULES, verb, group, resource)
}

/// Whether a federation's role has it.
pub fn may_federated(verb: &str, group: &str, resource: &str) -> bool {
    has(FEDERATED, verb, group, resource)
}

fn has(rules: &[(&str, &[&str], &[&str])], verb: &str, group: &str, resource: &str) -> bool {
    rules
        .iter()
        .any(|(of, resources, verbs)| *of == group && resources.contains(&resource) && verbs.contains(&verb))
}
