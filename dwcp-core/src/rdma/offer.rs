//! How two ends agree: the client's HELLO offers, the server's answers, and one byte of the client decides.
//!
//! Making a queue pair registers memory and may resolve addresses: it is done on a thread that may block.

use std::{io, net::IpAddr};

use dwcp_sys::rdma::{ConnectionData, Gid, Port, Prepared, RdmaError, RdmaStream};
use tokio::net::TcpStream;

use super::{RdmaSocket, TrustZone, count_fallback};
use crate::{
    handshake::{self, HandshakeError},
    security::LinkSocket,
};

/// The client's decisions.
const STAYS: u8 = 0;
const GOES_OVER: u8 = 1;

/// Why a link does not go over to RDMA.
#[derive(Debug, thiserror::Error)]
enum Stays {
    /// There is no RDMA here, or not with this peer.
    #[error(transparent)]
    Unavailable(#[from] RdmaError),
    /// The peer's TCP connection comes out of a trusted wire, and its queue pair is elsewhere.
    #[error("the peer's queue pair is at {gid}, which no trust zone contains")]
    NotTrusted { gid: Gid },
}

impl Stays {
    /// The label of `dwcp_rdma_fallbacks_total`.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::NotTrusted { .. } => "not_trusted",
        }
    }
}

/// What the client offers in its HELLO.
#[derive(Debug)]
pub(crate) struct Offer(Prepared);

/// What the server has answered to an offer. Its queue pair is ready.
#[derive(Debug)]
pub(crate) struct Answer {
    stream: RdmaStream,
    data: Vec<u8>,
}

impl Offer {
    /// For a link that speaks from this socket; `None` if there is no RDMA here.
    pub(crate) async fn make(tcp: &TcpStream) -> Option<Self> {
        let local = tcp.local_addr().ok()?.ip();
        blocking(move || Ok(prepare(local)?)).await.map(Self)
    }

    /// What the HELLO carries.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.0.connection_data().encode().to_vec()
    }

    /// Goes over to RDMA if the server's answer allows it, and tells it so. An error is the socket's.
    pub(crate) async fn decide(
        self,
        socket: &mut LinkSocket,
        theirs: Vec<u8>,
        zones: &[TrustZone],
    ) -> io::Result<()> {
        if theirs.is_empty() {
            count_fallback("refused");
            return Ok(()); // the server waits for nothing
        }
        let (prepared, zones, at) = (self.0, zones.to_vec(), socket.tcp().peer_addr()?.ip());
        let stream = blocking(move || {
            let peer = ConnectionData::decode(&theirs)?;
            check_gid(&zones, at, peer.gid(), own_gids)?;
            Ok(prepared.connect(&peer)?)
        })
        .await;
        let rdma = stream.and_then(|stream| match RdmaSocket::new(stream) {
            Ok(rdma) => Some(rdma),
            Err(error) => {
                report(&error, "unavailable");
                None
            }
        });
        let decision = if rdma.is_some() { GOES_OVER } else { STAYS };
        handshake::write_all(socket, &[decision]).await?;
        if let Some(rdma) = rdma {
            socket.go_over(rdma);
        }
        Ok(())
    }
}

impl Answer {
    pub(crate) fn data(&self) -> Vec<u8> {
        self.data.clone()
    }
}

/// The server's answer to a client's offer; `None`: the link stays with TCP.
pub(crate) async fn answer(tcp: &TcpStream, theirs: &[u8], zones: &[TrustZone]) -> Option<Answer> {
    let (local, at) = (tcp.local_addr().ok()?.ip(), tcp.peer_addr().ok()?.ip());
    let (theirs, zones) = (theirs.to_vec(), zones.to_vec());
    blocking(move || {
        let peer = ConnectionData::decode(&theirs)?;
        check_gid(&zones, at, peer.gid(), own_gids)?;
        let prepared = prepare(local)?;
        let data = prepared.connection_data().encode().to_vec();
        Ok(Answer { stream: prepared.connect(&peer)?, data })
    })
    .await
}

/// The server's end of an agreement: the client says which way it goes.
pub(crate) async fn conclude(socket: &mut LinkSocket, answer: Option<Answer>) -> Result<(), HandshakeError> {
    let Some(Answer { stream, .. }) = answer else { return Ok(()) };
    let mut decision = [STAYS];
    handshake::read_exact(socket, &mut decision).await?;
    if decision == [GOES_OVER] {
        socket.go_over(RdmaSocket::new(stream)?);
    } else {
        count_fallback("refused");
    }
    Ok(())
}

/// Registers memory at the port with this address; for two ends on one machine at any.
fn prepare(local: IpAddr) -> Result<Prepared, RdmaError> {
    let port = Port::find((!local.is_loopback()).then_some(local))?;
    let mut psn = [0; 4];
    // Without randomness packets of a former queue pair are the likelier to be taken for new ones, and fail a checksum.
    let _ = getrandom::fill(&mut psn);
    Prepared::new(&port, u32::from_le_bytes(psn))
}

/// Frames go to the GID, whatever address the HELLO came from: a peer that is let in by its address must not have them sent
/// out of the zone. All GIDs of RoCE v2 are IP addresses, and one that is not of a zone is refused, whatever else it stands
/// for (InfiniBand's `fe80::` and what is left of RoCE v1 among it). A peer on this machine, `at` loopback, has one of the
/// machine's own GIDs.
fn check_gid(
    zones: &[TrustZone],
    at: IpAddr,
    gid: Gid,
    own: impl FnOnce() -> Result<Vec<Gid>, RdmaError>,
) -> Result<(), Stays> {
    let is_trusted = zones.iter().any(|zone| zone.contains(gid.ip()));
    if is_trusted || (at.to_canonical().is_loopback() && own()?.contains(&gid)) {
        return Ok(());
    }
    Err(Stays::NotTrusted { gid })
}

fn own_gids() -> Result<Vec<Gid>, RdmaError> {
    Ok(Port::all()?.into_iter().map(|port| port.gid).collect())
}

async fn blocking<T: Send + 'static>(make: impl FnOnce() -> Result<T, Stays> + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(make).await {
        Ok(made) => made.inspect_err(|stays| report(stays, stays.reason())).ok(),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None, // the runtime ends
        },
    }
}

fn report(error: &impl std::fmt::Display, reason: &'static str) {
    tracing::warn!(%error, "no RDMA on this link: it stays with TCP");
    count_fallback(reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        match text.parse().unwrap() {
            IpAddr::V4(ip) => Gid(ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => Gid(ip.octets()),
        }
    }

    // DWCP-4.7
    #[test]
    fn a_queue_pair_outside_of_the_zones_is_refused_whatever_address_its_peer_has() {
        let zones: Vec<TrustZone> = ["10.1.0.0/16", "fd00:1::/32"].map(|zone| zone.parse().unwrap()).into();
        for (at, theirs, is_trusted) in [
            ("10.1.0.2", "10.1.0.2", true),
            // Another of its ports, in the zone as well.
            ("10.1.0.2", "10.1.9.9", true),
            ("10.1.0.2", "fd00:1::2", true),
            ("10.1.0.2", "10.2.0.2", false),
            ("10.1.0.2", "192.0.2.1", false),
            ("10.1.0.2", "fd00:2::2", false),
            // Of no IP network: InfiniBand's prefix, multicast, and what is mapped nowhere.
            ("10.1.0.2", "fe80::2:c903:1:2", false),
            ("10.1.0.2", "ff0e::1", false),
            ("10.1.0.2", "::10.1.0.2", false),
            // An own address is no reason to go there for somebody else.
            ("10.1.0.2", "192.0.2.7", false),
            ("127.0.0.1", "192.0.2.7", true),
            ("::ffff:127.0.0.1", "192.0.2.7", true),
            ("127.0.0.1", "192.0.2.8", false),
        ] {
            let own = || Ok(vec![gid("192.0.2.7")]);
            let checked = check_gid(&zones, at.parse().unwrap(), gid(theirs), own);
            assert_eq!(checked.is_ok(), is_trusted, "{at} {theirs}");
            if let Err(stays) = checked {
                assert_eq!(stays.reason(), "not_trusted");
                assert!(stays.to_string().contains(&gid(theirs).to_string()), "{stays}");
            }
        }
    }

    #[test]
    fn without_zones_nothing_is_trusted() {
        let checked = check_gid(&[], "10.1.0.2".parse().unwrap(), gid("10.1.0.2"), || Ok(Vec::new()));
        assert!(matches!(checked, Err(Stays::NotTrusted { .. })));
    }
}
