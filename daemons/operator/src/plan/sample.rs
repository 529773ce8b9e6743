//! Specs for tests: the smallest, and one of production.

use serde_json::json;

use crate::api::{NovaCronCluster, NovaCronRegion};

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

fn of(name: &str, spec: serde_json::Value) -> (NovaCronRegion, NovaCronCluster) {
    let mut cluster = NovaCronCluster::new(name, serde_json::from_value(spec).expect("a spec"));
    cluster.metadata.namespace = Some("novacron".to_owned());
    cluster.metadata.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
    let mut region = crate::reconcile::region_of(&cluster, &cluster.spec.regions[0], None);
    region.metadata.uid = Some("00000000-0000-0000-0000-000000000002".to_owned());
    (region, cluster)
}
