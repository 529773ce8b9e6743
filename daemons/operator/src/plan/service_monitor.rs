//! ServiceMonitors of the Prometheus operator, where the API server knows the kind.

use kube::{
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;

use super::{Component, Region};

/// The kind.
pub(crate) fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", "ServiceMonitor"))
}

pub(super) fn monitor(region: &Region<'_>, component: Component) -> DynamicObject {
    let monitoring = &region.cluster.monitoring;
    let name = region.name_of(component);
    let mut object = DynamicObject::new(&name, &kind());
    object.metadata = region.meta(component, name);
    object.metadata.labels.get_or_insert_default().extend(monitoring.labels.clone());
    let label =
        |from: &str, to: &str| json!({ "action": "replace", "sourceLabels": [from], "targetLabel": to });
    object.data = json!({ "spec": {
        // Alerts and panels (deploy/monitoring) go by these labels.
        "jobLabel": "app.kubernetes.io/component",
        "selector": { "matchLabels": region.selector(component) },
        "endpoints": [{
            "port": "metrics",
            "path": "/metrics",
            "interval": format!("{}s", monitoring.interval_seconds),
            "relabelings": [
                label("__meta_kubernetes_service_label_app_kubernetes_io_instance", "release"),
                label("__meta_kubernetes_pod_node_name", "node"),
            ],
        }],
    }});
    object
}
