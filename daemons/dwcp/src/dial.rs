//! Looks for a peer at one address, for as long as it should be there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dwcp_core::{Connection, Priority};
use novacron_control::{Target, schema::Greeting};

use crate::{
    hub::Hub,
    peers::{Admission, Dialer},
    standing,
};

/// Rests between attempts: the first, and the longest.
const REST_MIN: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted so long has worked: the next rest is the first again.
const WORKED: Duration = Duration::from_secs(10);
/// This agent is there itself, or a namesake, which takes a person to change.
const REST_AT_OURSELVES: Duration = Duration::from_secs(60);
/// For the peer to say who it is.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a region's name, as the settings take them.
const REGION_BYTES_MAX: usize = 255;
/// Keys of WireGuard: the current one and the next; and their bytes in Base64.
const PUBLIC_KEYS_MAX: usize = 2;
const PUBLIC_KEY_BYTES_MAX: usize = 44;

/// How an attempt ended.
enum Ended {
    /// There is, or was, a connection to this peer, this one or another.
    Peer(String),
    Ourselves,
    Failed(String),
}

/// Looks until it is aborted.
pub(crate) async fn look(hub: Arc<Hub>, target: Target) {
    let mut rest = REST_MIN;
    loop {
        let began = tokio::time::Instant::now();
        match attempt(&hub, &target).await {
            // For as long as it is connected otherwise, there is nothing to do here.
            Ended::Peer(node_id) => hub.until_disconnected(&node_id).await,
            Ended::Ourselves => {
                tokio::time::sleep(REST_AT_OURSELVES).await;
                continue;
            }
            Ended::Failed(why) => {
                tracing::debug!(%target, why, "no peer");
                hub.not_found(&target, why);
            }
        }
        if began.elapsed() >= WORKED {
            rest = REST_MIN;
        }
        tokio::time::sleep(rest.mul_f64(0.5 + fraction() / 2.0)).await;
        rest = (rest * 2).min(REST_MAX);
    }
}

async fn attempt(hub: &Arc<Hub>, target: &Target) -> Ended {
    let connection = match novacron_control::connect(&hub.endpoint, target).await {
        Ok(connection) => connection,
        Err(why) => return Ended::Failed(why),
    };
    let greeting = match greet(hub, &connection).await {
        Ok(greeting) => greeting,
        Err(why) => return Ended::Failed(why),
    };
    let admission = hub.admit(&connection, Dialer::Us, &greeting);
    hub.found(target, &greeting, matches!(admission, Admission::Ourselves | Admission::Namesake));
    match admission {
        Admission::Kept { number, .. } => {
            let node_id = greeting.node_id.clone();
            // On its own: this task may be told to look no longer, and the connection still has its course.
            let hub = hub.clone();
            tokio::spawn(async move { standing::keep(&hub, &connection, greeting, number).await });
            Ended::Peer(node_id)
        }
        Admission::Duplicate => {
            connection.close(0, "there is another connection");
            Ended::Peer(greeting.node_id)
        }
        Admission::Ourselves => Ended::Ourselves,
        Admission::Namesake => {
            tracing::error!(%target, node_id = greeting.node_id, "another agent has this one's name");
            Ended::Ourselves
        }
        Admission::Impostor => Ended::Failed(impostor(&greeting)),
        Admission::Full => Ended::Failed("this agent has as many peers as it can have".to_owned()),
    }
}

/// Says who this is, and asks who that is.
async fn greet(hub: &Hub, connection: &Connection) -> Result<Greeting, String> {
    let own = hub.greeting.borrow().clone();
    let own = serde_json::to_vec(&own).map_err(|error| error.to_string())?;
    let answer = connection
        .messages()
        .request(Priority::Control, Bytes::from(own), GREETING_TIMEOUT)
        .await
        .map_err(|error| format!("{}: asking who is there: {error}", connection.peer().addr))?;
    checked(hub, connection, &answer)
}

pub(crate) fn impostor(greeting: &Greeting) -> String {
    format!("{:?} is connected, with a certificate of other names", greeting.node_id)
}

/// What a peer says of itself, if it can be that.
pub(crate) fn checked(hub: &Hub, connection: &Connection, said: &[u8]) -> Result<Greeting, String> {
    let peer = connection.peer();
    hub.identities.check(&peer.node_id, &peer.names)?;
    let greeting: Greeting = serde_json::from_slice(said)
        .map_err(|error| format!("{}: what it says of itself is no greeting: {error}", peer.addr))?;
    if greeting.node_id != peer.node_id {
        return Err(format!("{} calls itself both {:?} and {:?}", peer.addr, peer.node_id, greeting.node_id));
    }
    fits(&greeting)?;
    Ok(greeting)
}

/// Whether it is as short as what an agent says: it is kept, also in a file.
pub(crate) fn fits(greeting: &Greeting) -> Result<(), String> {
    if greeting.region.as_ref().is_some_and(|region| region.len() > REGION_BYTES_MAX) {
        return Err(format!("{:?} has a region of more than {REGION_BYTES_MAX} bytes", greeting.node_id));
    }
    let keys = greeting.tunnels.wireguard.iter().flat_map(|end| &end.public_keys);
    if keys.clone().count() > PUBLIC_KEYS_MAX || keys.clone().any(|key| key.len() > PUBLIC_KEY_BYTES_MAX) {
        return Err(format!(
            "{:?} has more than {PUBLIC_KEYS_MAX} keys, or one of more than {PUBLIC_KEY_BYTES_MAX} bytes",
            greeting.node_id
        ));
    }
    Ok(())
}

/// Something from 0 to 1, so that agents that were cut off together do not come back together.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness, they do.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
