//! Whether a connection reaches its peer, and if not, how that came: a process that has died resets its links, a network that is
//! cut is silent. A connection outlives both for a while; this is for those who want to know at once.
//!
//! Not here: why a connection has ended ([`ConnectionError`](crate::ConnectionError)).

use std::io::ErrorKind;

/// How a connection reaches its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Over a link at least.
    Linked,
    /// Not: the last link ended with a reset or an end of file. The client makes another.
    Reset,
    /// As before, and since then the client has failed to make a link.
    Refused,
    /// Not: nothing came over the last link, or nothing can be sent. The client makes another.
    Silent,
    /// The peer has closed the connection.
    ClosedByPeer,
    /// The connection has ended otherwise.
    Ended,
}

impl Reach {
    /// What a socket's error says: that the other end is gone, or only that nothing gets there.
    pub(crate) fn after(error: ErrorKind) -> Self {
        match error {
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Self::Reset,
            _ => Self::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{Connection, Endpoint, EndpointConfig, StreamsConfig};

    fn config(name: &str) -> EndpointConfig {
        let mut config = EndpointConfig::new(name);
        config.transport.streams = StreamsConfig { min: 1, max: 1, initial: 1 };
        config
    }

    async fn listen() -> (Endpoint, SocketAddr) {
        let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config("server")).await.unwrap();
        let addr = server.local_addr().unwrap();
        (server, addr)
    }

    async fn connect(addr: SocketAddr, server: &Endpoint) -> (Connection, Connection) {
        let client = Endpoint::client(config("client")).unwrap();
        let (connected, accepted) = tokio::join!(client.connect(addr, "server"), server.accept());
        (connected.unwrap(), accepted.unwrap())
    }

    async fn becomes(connection: &Connection, wanted: Reach) {
        let mut reach = connection.watch_reach();
        let waiting = reach.wait_for(|reach| *reach == wanted);
        let found = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(found.is_ok_and(|found| found.is_ok()), "it never is {wanted:?}");
    }

    #[tokio::test]
    async fn a_link_that_is_cut_is_a_reset_until_another_is_made() {
        let (server, addr) = listen().await;
        let (a, b) = connect(addr, &server).await;
        becomes(&a, Reach::Linked).await;
        let links = b.shared().lock().links.clone();
        links.iter().for_each(|link| b.shared().link_cut(link));
        // There is one thread: nobody has made another link yet.
        assert_eq!(*b.watch_reach().borrow(), Reach::Reset);
        becomes(&b, Reach::Linked).await;
        becomes(&a, Reach::Linked).await;
        a.close(0, "");
        becomes(&a, Reach::Ended).await;
        becomes(&b, Reach::ClosedByPeer).await;
    }

    /// What is between the two ends as a process does: its sockets, and whoever listens.
    #[tokio::test]
    async fn a_peer_that_has_died_refuses_links() {
        let (server, addr) = listen().await;
        let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = between.local_addr().unwrap();
        let forwarding = tokio::spawn(async move {
            let (mut near, _) = between.accept().await.unwrap();
            let mut far = TcpStream::connect(addr).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        let (a, b) = connect(front, &server).await;
        becomes(&a, Reach::Linked).await;
        forwarding.abort();
        becomes(&b, Reach::Reset).await;
        becomes(&a, Reach::Refused).await;
    }

    #[test]
    fn a_network_that_fails_is_not_a_peer_that_is_gone() {
        assert_eq!(Reach::after(ErrorKind::ConnectionReset), Reach::Reset);
        for kind in [ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable] {
            assert_eq!(Reach::after(kind), Reach::Silent);
        }
    }
}
