//! ServiceAccounts: one for each component. None of the daemons asks the API server for anything, so there are no roles for them.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Component, Region};

pub(super) fn account(region: &Region<'_>, component: Component) -> ServiceAccount {
    ServiceAccount {
        metadata: region.meta(component, region.name_of(component)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
