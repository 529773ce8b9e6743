//! ConfigMaps: one for each component.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Component, PlanError, Region, Seen, config};

pub(super) fn config_map(
    region: &Region<'_>,
    component: Component,
    seen: &Seen,
) -> Result<ConfigMap, PlanError> {
    let text = config::config(region, component, seen).text()?;
    Ok(ConfigMap {
        metadata: region.meta(component, region.name_of(component)),
        data: Some(BTreeMap::from([(config::CONFIG_FILE.to_owned(), text)])),
        ..ConfigMap::default()
    })
}
