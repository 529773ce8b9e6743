//! Certificates that are replaced under a live connection.

use std::{sync::Arc, time::Duration};

use dwcp_core::Endpoint;

use crate::{
    hostile::Authority,
    links::{DEADLINE, links_up},
    proxy::{Cut, Proxy},
    support::{assert_works, listen, pattern, read_all},
};

/// Both sides get certificates of another authority and trust that one only: a link that joins from then on has shown
/// the new one. All links are killed meanwhile, one after the other and then all at once, under traffic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_rejoin_with_the_new_certificate_and_no_data_is_lost() {
    const LINKS: u16 = 3;
    const LEN: usize = 96 << 20;
    let [old, new] = ["old", "new"].map(Authority::new);
    let settings = |name: &str| {
        let mut config = old.node(name, &old);
        config.transport.streams.initial = LINKS;
        config.transport.connection_window_bytes = 2 << 20;
        config.transport.resume_timeout = DEADLINE;
        config
    };
    let (server, addr) = listen(settings("localhost")).await;
    let proxy = Proxy::start(addr).await;
    let client = Endpoint::client(settings("client")).unwrap();
    let (a, b) = tokio::join!(client.connect(proxy.addr, "localhost"), server.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    links_up(&a, LINKS.into()).await;

    let data = pattern(LEN);
    let (sent, sender) = (data.clone(), a.clone());
    let writing = tokio::spawn(async move {
        let (mut send, _recv) = sender.open_stream().await.unwrap();
        send.write_bytes(sent).await.unwrap();
        send.finish().unwrap();
        send.acknowledged().await.unwrap();
    });
    let receiver = b.clone();
    let reading = tokio::spawn(async move {
        let (_send, mut recv) = receiver.accept_stream().await.unwrap();
        read_all(&mut recv).await.unwrap()
    });
    let received = async |len: usize| {
        while b.stats().bytes_received < len as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    received(LEN / 8).await;

    // Between the two reloads nobody gets in, and the links that are up do not care.
    server.reload_tls(new.node("localhost", &new).tls.unwrap());
    let stranger = Endpoint::client(settings("client")).unwrap().connect(addr, "localhost").await;
    assert!(stranger.is_err(), "the old certificate is no longer trusted");
    received(LEN / 4).await;
    client.reload_tls(new.node("client", &new).tls.unwrap());

    for round in 1..=u64::from(LINKS) {
        let before = proxy.accepted();
        assert!(proxy.cut_one(0, Cut::Reset));
        while proxy.accepted() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        received(LEN / 4 + round as usize * LEN / 16).await;
    }
    proxy.cut_all(Cut::Reset);
    writing.await.unwrap();
    assert!(reading.await.unwrap() == data);
    links_up(&a, LINKS.into()).await;
    assert!(a.stats().resumes >= u64::from(LINKS));
    assert_eq!(
        (&a.peer().names[..], &b.peer().names[..]),
        (&["localhost".into()][..], &["client".into()][..])
    );
    assert_works(&a, &b).await;

    // Whoever comes now needs the new one, too.
    let late = Endpoint::client(new.node("late", &new)).unwrap();
    let (c, d) = tokio::join!(late.connect(addr, "localhost"), server.accept());
    assert_works(&c.unwrap(), &d.unwrap()).await;
}

/// A certificate for other names is another peer's: its links do not join, and the connection lives by those it has.
#[tokio::test]
async fn a_new_certificate_for_other_names_joins_nothing() {
    let authority = Authority::new("ours");
    let settings = |name: &str| {
        let mut config = authority.node(name, &authority);
        config.transport.streams.initial = 2;
        config
    };
    let (server, addr) = listen(settings("localhost")).await;
    let proxy = Proxy::start(addr).await;
    let client = Endpoint::client(settings("client")).unwrap();
    let (a, b) = tokio::join!(client.connect(proxy.addr, "localhost"), server.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    links_up(&a, 2).await;
    let other: Arc<_> = authority.node("someone-else", &authority).tls.unwrap();
    client.reload_tls(other);
    let before = proxy.accepted();
    assert!(proxy.cut_one(0, Cut::Reset));
    while proxy.accepted() < before + 3 {
        tokio::time::sleep(Duration::from_millis(1)).await; // the client tries in vain
    }
    let links = |connection: &dwcp_core::Connection| connection.stats().links.len();
    while links(&a) != 1 || links(&b) != 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_works(&a, &b).await;
}
