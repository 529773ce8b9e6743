//! ConfigMaps: one for each component.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Component, PlanError, Region, Seen, config, jobs};

pub(super) fn config_map(
    region: &Region<'_>,
    component: Component,
    seen: &Seen,
) -> Result<ConfigMap, PlanError> {
    let text = config::config(region, component, seen).text()?;
    let mut data = BTreeMap::from([(config::CONFIG_FILE.to_owned(), text)]);
    if component == Component::Consensus {
        data.extend(jobs::restore_file(region, seen).map(|text| (jobs::RESTORE_FILE.to_owned(), text)));
    }
    Ok(ConfigMap {
        metadata: region.meta(component, region.name_of(component)),
        data: Some(data),
        ..ConfigMap::default()
    })
}
