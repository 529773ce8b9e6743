//! The HorizontalPodAutoscaler of the API: slowly down, quickly up.

use k8s_openapi::{
    api::autoscaling::v2::{
        CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
        HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec,
        MetricTarget, ObjectMetricSource, PodsMetricSource, ResourceMetricSource,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Component, Region};

/// Of what is asked for, in per cent.
const CPU_PERCENT: i32 = 70;
const MEMORY_PERCENT: i32 = 80;
/// For each replica, which tells its own.
const OWN: [(&str, &str); 2] = [("http_requests_per_second", "1000"), ("active_connections", "500")];
/// For each replica, of what all tell alike: the length of the one queue.
const SHARED: (&str, &str) = ("queue_depth", "100");
/// How long the lowest, or the highest, recommendation counts. A window before steps up would have the first new pod come no
/// sooner than it ends (`deploy/autoscaling/signals.yaml`).
const UP_WINDOW_SECONDS: i32 = 0;
const DOWN_WINDOW_SECONDS: i32 = 300;
/// Of the replicas that there are, in per cent, and in what time.
const UP_PERCENT: i32 = 50;
const UP_PERIOD_SECONDS: i32 = 60;
const DOWN_PERCENT: i32 = 10;
const DOWN_PERIOD_SECONDS: i32 = 300;

pub(super) fn autoscaler(region: &Region<'_>) -> Option<HorizontalPodAutoscaler> {
    let api = &region.object.spec.api;
    let name = region.name_of(Component::Api);
    let custom = api.custom_metrics.then(|| {
        let shared = of_service(&name, SHARED.0, SHARED.1);
        OWN.map(|(name, value)| pods(name, value)).into_iter().chain([shared])
    });
    let metrics = [resource("cpu", CPU_PERCENT), resource("memory", MEMORY_PERCENT)];
    api.autoscaling.then(|| HorizontalPodAutoscaler {
        metadata: region.meta(Component::Api, name.clone()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name,
            },
            min_replicas: Some(i32::from(api.min)),
            max_replicas: i32::from(api.max),
            metrics: Some(metrics.into_iter().chain(custom.into_iter().flatten()).collect()),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(rules(UP_WINDOW_SECONDS, UP_PERCENT, UP_PERIOD_SECONDS)),
                scale_down: Some(rules(DOWN_WINDOW_SECONDS, DOWN_PERCENT, DOWN_PERIOD_SECONDS)),
            }),
        }),
        ..HorizontalPodAutoscaler::default()
    })
}

fn resource(name: &str, percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: name.to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn pods(name: &str, value: &str) -> MetricSpec {
    MetricSpec {
        type_: "Pods".to_owned(),
        pods: Some(PodsMetricSource {
            metric: MetricIdentifier { name: name.to_owned(), selector: None },
            target: average(value),
        }),
        ..MetricSpec::default()
    }
}

/// A metric of the API's Service, shared by the replicas.
fn of_service(service: &str, name: &str, value: &str) -> MetricSpec {
    MetricSpec {
        type_: "Object".to_owned(),
        object: Some(ObjectMetricSource {
            described_object: CrossVersionObjectReference {
                api_version: Some("v1".to_owned()),
                kind: "Service".to_owned(),
                name: service.to_owned(),
            },
            metric: MetricIdentifier { name: name.to_owned(), selector: None },
            target: average(value),
        }),
        ..MetricSpec::default()
    }
}

fn average(value: &str) -> MetricTarget {
    MetricTarget {
        type_: "AverageValue".to_owned(),
        average_value: Some(Quantity(value.to_owned())),
        ..MetricTarget::default()
    }
}

fn rules(window_seconds: i32, percent: i32, period_seconds: i32) -> HPAScalingRules {
    HPAScalingRules {
        stabilization_window_seconds: Some(window_seconds),
        policies: Some(vec![HPAScalingPolicy {
            type_: "Percent".to_owned(),
            value: percent,
            period_seconds,
        }]),
        ..HPAScalingRules::default()
    }
}
