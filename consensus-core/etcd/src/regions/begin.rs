//! How a store becomes a region: an entry of its log says so, once, as the settings of the member that leads have it.

use std::time::Duration;

use consensus_proto::internal::{RegionBeginRequest, RegionFounder, internal_request::Request as Internal};
use consensus_store::Caller;

use super::{Regions, Told};
use crate::server::Server;

/// Between two attempts.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Before something is said again that does not pass by itself.
pub(super) const COMPLAIN: Duration = Duration::from_secs(30);

/// Whether the store is the region that the settings name. If not, some time has passed.
pub(super) async fn begin(server: &Server, regions: &Regions) -> bool {
    let config = &regions.config;
    let is_same = server.shared.reader.with_region(|prefix, local| {
        local.replica.region() == config.region() && *prefix == config.prefix[..]
    });
    match is_same {
        Some(true) => return true,
        Some(false) => {
            tracing::error!(
                region = config.network.region,
                "this store is another region, or has another prefix, than the settings say: nothing is replicated"
            );
            tokio::time::sleep(COMPLAIN).await;
            return false;
        }
        None => {}
    }
    let founders = config.founders.iter().map(|(region, name)| RegionFounder {
        region: *region,
        info: Told { name: name.clone(), urls: Vec::new() }.write(),
    });
    let request = RegionBeginRequest {
        region: config.network.region,
        prefix: config.prefix.clone(),
        founders: if config.joins { Vec::new() } else { founders.collect() },
    };
    match server.commit(&Caller::Member, Internal::RegionBegin(request)).await {
        Ok(Ok(_)) => {
            tracing::info!(
                region = config.network.region,
                joins = config.joins,
                "this store is a region now"
            );
            true
        }
        Ok(Err(error)) => {
            tracing::error!(region = config.network.region, %error, "this store does not become a region");
            tokio::time::sleep(COMPLAIN).await;
            false
        }
        Err(error) => {
            tracing::debug!(%error, "not a region yet");
            tokio::time::sleep(RETRY).await;
            false
        }
    }
}
