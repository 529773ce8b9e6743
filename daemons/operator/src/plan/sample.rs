//! Specs for tests: the smallest, one of production, and some with what few have.

use serde_json::json;

use crate::api::{DWCPFederation, FederatedStatus, NovaCronCluster, NovaCronRegion};

/// One member, without TLS.
pub fn dev() -> (NovaCronRegion, NovaCronCluster) {
    of(
        "dev",
        json!({
            "version": "0.1.0",
            "regions": [{ "name": "here", "voters": 1, "api": { "min": 1, "max": 1, "autoscaling": false } }],
            "security": { "tls": { "mode": "Plaintext" } },
            "storage": { "className": "", "size": "1Gi", "claims": "Delete" },
            "agent": { "enabled": false },
            "networking": { "networkPolicies": false },
        }),
    )
}

/// Seven members, with everything.
pub fn production() -> (NovaCronRegion, NovaCronCluster) {
    of(
        "nova",
        json!({
            "version": "1.2.0",
            "regions": [{
                "name": "eu-west",
                "voters": 7,
                "api": { "min": 20, "max": 100, "customMetrics": true },
                "nodeSelector": { "topology.kubernetes.io/region": "eu-west" },
            }],
            "images": { "registry": "registry.example/novacron", "pullSecrets": ["registry"] },
            "dwcp": { "amst": { "pacingBytesPerSecond": 1_000_000_000 }, "hde": { "level": 3 } },
            "agent": { "setMtu": true, "xdpInterfaces": ["eth0"] },
            "storage": { "backup": { "bucket": {
                "url": "https://s3.eu-central-1.amazonaws.com/novacron-backup", "region": "eu-central-1",
                "secretName": "novacron-backup",
            } } },
            "monitoring": { "labels": { "release": "prometheus" } },
        }),
    )
}

/// Three members that begin with a backup of another cluster.
pub fn restored() -> (NovaCronRegion, NovaCronCluster) {
    of(
        "again",
        json!({
            "version": "0.1.0",
            "regions": [{ "name": "here", "voters": 3 }],
            "agent": { "enabled": false },
            "networking": { "networkPolicies": false },
            "storage": { "restore": {
                "bucket": { "url": "https://s3.example/novacron", "secretName": "novacron-backup" },
                "from": "novacron.nova",
            } },
        }),
    )
}

/// Three members that replicate with another region.
pub fn replicated() -> (NovaCronRegion, NovaCronCluster) {
    of(
        "nova",
        json!({
            "version": "0.1.0",
            "regions": [{ "name": "eu", "voters": 3 }],
            "replication": {
                "regions": [
                    { "name": "eu", "number": 1, "addresses": ["192.0.2.1:30001", "eu.example:30002"], "location": "50.1:8.7" },
                    { "name": "us", "number": 2, "addresses": ["198.51.100.1:9091"], "parent": "eu", "cost": 5, "location": "38.9:-77.4" },
                ],
                "topology": "hierarchical", "hub": "eu", "strategy": "geo", "trust": "other authorities\n",
            },
        }),
    )
}

/// Three clusters of 20, 15 and 10 replicas, of which the last one is out.
pub fn federation() -> (DWCPFederation, Vec<FederatedStatus>) {
    let spec = json!({
        "clusters": [
            {
                "name": "us", "number": 1, "kubeconfigSecret": "us", "namespace": "novacron", "weight": 3, "replicas": 20,
                "expose": { "hosts": ["192.0.2.1"] },
            },
            {
                "name": "eu", "number": 2, "kubeconfigSecret": "eu", "namespace": "novacron", "weight": 2, "replicas": 15,
                "voters": 3, "nodeSelector": { "topology.kubernetes.io/region": "eu" },
            },
            {
                "name": "ap", "number": 3, "kubeconfigSecret": "ap", "namespace": "novacron", "replicas": 10,
                "expose": { "kind": "NodePort", "hosts": ["203.0.113.1", "203.0.113.2"] },
            },
        ],
        "template": { "version": "0.1.0", "voters": 1, "agent": { "enabled": false } },
        "dns": { "name": "api.example.com", "namespace": "novacron" },
    });
    let mut federation = DWCPFederation::new("all", serde_json::from_value(spec).expect("a spec"));
    federation.metadata.uid = Some("00000000-0000-0000-0000-000000000003".to_owned());
    let known = json!([
        {
            "name": "us", "kubeconfigSecret": "us", "namespace": "novacron", "reachable": true,
            "regions": ["192.0.2.1:9091"], "endpoints": ["192.0.2.1:8080"], "trust": "us\n",
            "conditions": [serving(true)],
        },
        {
            "name": "eu", "kubeconfigSecret": "eu", "namespace": "novacron", "reachable": true,
            "regions": ["198.51.100.1:9091"], "endpoints": ["198.51.100.2:8080", "eu.example:8080"], "trust": "eu\n",
            "conditions": [serving(true)],
        },
        {
            "name": "ap", "kubeconfigSecret": "ap", "namespace": "novacron", "reachable": false,
            "regions": ["203.0.113.1:30001"], "endpoints": ["203.0.113.1:30002", "203.0.113.2:30002"], "trust": "ap\n",
            "conditions": [serving(false)],
        },
    ]);
    (federation, serde_json::from_value(known).expect("a status"))
}

fn serving(is: bool) -> serde_json::Value {
    json!({
        "type": "Serving", "status": if is { "True" } else { "False" }, "reason": "AsSpecified", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn of(name: &str, spec: serde_json::Value) -> (NovaCronRegion, NovaCronCluster) {
    let mut cluster = NovaCronCluster::new(name, serde_json::from_value(spec).expect("a spec"));
    cluster.metadata.namespace = Some("novacron".to_owned());
    cluster.metadata.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
    let mut region = crate::reconcile::region_of(&cluster, &cluster.spec.regions[0], None);
    region.metadata.uid = Some("00000000-0000-0000-0000-000000000002".to_owned());
    (region, cluster)
}
