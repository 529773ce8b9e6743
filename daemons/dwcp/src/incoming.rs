//! Connections that others make: of agents, which greet first, of transfers, which open a stream first, and of those who
//! control this agent, who ask whether they may.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dwcp_core::{Connection, IncomingMessage, RecvStream, SendStream};
use tokio::task::JoinSet;

use crate::{
    agent::Inner,
    dial::{checked, impostor},
    hub::Hub,
    peers::{Admission, Dialer},
    remote, standing,
};

/// Connections at a time, of all kinds; more wait in the endpoint.
const CONNECTIONS_MAX: usize = 8192;
/// For whoever connects to show what it is.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection begins with.
enum First {
    Message(IncomingMessage),
    Stream((SendStream, RecvStream)),
}

/// Accepts until the endpoint takes on no more.
pub(crate) async fn accept(agent: Arc<Inner>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = agent.hub.endpoint.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Some(connection) => {
                    connections.spawn(take(agent.clone(), connection));
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // What was taken on goes on; the endpoint ends it.
    while connections.join_next().await.is_some() {}
}

async fn take(agent: Arc<Inner>, connection: Connection) {
    let messages = connection.messages();
    let first = async {
        tokio::select! {
            message = messages.recv() => message.ok().map(First::Message),
            stream = connection.accept_stream() => stream.ok().map(First::Stream),
        }
    };
    match tokio::time::timeout(FIRST_TIMEOUT, first).await {
        Ok(Some(First::Message(message))) if remote::is_asked_for(&message.payload) => {
            remote::serve(agent, &connection, message).await;
        }
        Ok(Some(First::Message(message))) => {
            if let Err(why) = greeted(&agent.hub, &connection, message).await {
                tracing::warn!(peer = %connection.peer().addr, why, "refused");
                connection.close(0, &why);
            }
        }
        Ok(Some(First::Stream(stream))) => {
            let peer = connection.peer();
            match agent.hub.identities.check(&peer.node_id, &peer.names) {
                Ok(()) => agent.transfers.receive(connection, stream).await,
                Err(why) => {
                    tracing::warn!(peer = %peer.addr, why, "refused");
                    connection.close(0, &why);
                }
            }
        }
        Ok(None) => {}
        Err(_) => connection.close(0, "no greeting, transfer or call"),
    }
}

/// An agent says who it is, and asks who this is.
async fn greeted(hub: &Arc<Hub>, connection: &Connection, message: IncomingMessage) -> Result<(), String> {
    let greeting = checked(hub, connection, &message.payload)?;
    let responder = message.responder.ok_or("a greeting is a request")?;
    let own = hub.greeting.borrow().clone();
    let own = serde_json::to_vec(&own).map_err(|error| error.to_string())?;
    let _ = responder.respond(Bytes::from(own));
    loop {
        match hub.admit(connection, Dialer::Them, &greeting) {
            Admission::Kept { number, .. } => {
                standing::keep(hub, connection, greeting, number).await;
                return Ok(());
            }
            // The other end knows, too, and closes it; or it keeps this one, and the one that is kept here is about to end.
            Admission::Duplicate => tokio::select! {
                _ = connection.closed() => return Ok(()),
                () = hub.until_disconnected(&greeting.node_id) => {}
            },
            Admission::Ourselves => {
                connection.closed().await;
                return Ok(());
            }
            Admission::Namesake => return Err(format!("{:?} is this agent's name, too", greeting.node_id)),
            Admission::Impostor => return Err(impostor(&greeting)),
            Admission::Full => return Err("this agent has as many peers as it can have".to_owned()),
        }
    }
}
