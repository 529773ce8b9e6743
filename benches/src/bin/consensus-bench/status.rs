//! Connections to members, and what members say of themselves.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use consensus_proto::etcdserverpb::{
    RangeRequest, StatusRequest, StatusResponse, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tonic::{Request, transport::Channel};

use crate::cluster::Cluster;

/// For members to agree.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// One question.
const ANSWER: Duration = Duration::from_secs(1);

/// A connection that is made when it is needed, and again when it is lost.
pub(crate) fn channel(endpoint: &str) -> Result<Channel> {
    Ok(Channel::from_shared(endpoint.to_owned())?.tcp_nodelay(true).connect_lazy())
}

/// Connections that are there, spread evenly over the members.
pub(crate) async fn connect(endpoints: &[String], count: usize) -> Result<Vec<Channel>> {
    let mut connections = Vec::new();
    for endpoint in endpoints.iter().cycle().take(count) {
        let channel = Channel::from_shared(endpoint.clone())?.tcp_nodelay(true).connect().await;
        connections.push(channel.with_context(|| endpoint.clone())?);
    }
    Ok(connections)
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

pub(crate) async fn status(endpoint: &str) -> Result<StatusResponse> {
    let mut client = MaintenanceClient::new(channel(endpoint)?);
    Ok(client.status(limited(StatusRequest::default())).await?.into_inner())
}

/// The leader that all members agree upon, once each of them answers a linearizable read.
pub(crate) async fn settled(cluster: &mut Cluster) -> Result<usize> {
    let until = Instant::now() + PATIENCE;
    loop {
        match agreed(&cluster.endpoints()).await {
            Ok(leader) => return Ok(leader),
            Err(error) if Instant::now() > until => {
                return Err(error.context(format!("the members do not agree after {PATIENCE:?}")));
            }
            Err(_) => {
                cluster.check()?;
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

async fn agreed(endpoints: &[String]) -> Result<usize> {
    let mut leader = None;
    let mut named = Vec::new();
    for (n, endpoint) in endpoints.iter().enumerate() {
        let status = status(endpoint).await?;
        named.push(status.leader);
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            leader = Some(n);
        }
        let read = RangeRequest { key: "settled".into(), ..Default::default() };
        KvClient::new(channel(endpoint)?).range(limited(read)).await?;
    }
    ensure!(named.windows(2).all(|pair| pair[0] == pair[1]), "members name several leaders: {named:?}");
    leader.context("no member says that it leads")
}
