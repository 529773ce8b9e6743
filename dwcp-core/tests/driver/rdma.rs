//! Links over RDMA: what they carry arrives, whatever happens to the device. Where there is none, TCP does.
//!
//! `make test-rdma` runs this, and the rest of the suite with `DWCP_TEST_RDMA_ZONE`, in a machine with Soft-RoCE.

use std::{net::SocketAddr, process::Command, time::Duration};

use dwcp_core::{Connection, Endpoint, EndpointConfig};
use dwcp_sys::rdma::Port;

use crate::{
    links::{DEADLINE, Traffic},
    metrics::Recorded,
    support::{assert_works, config, connect, listen},
};

const STREAM_LEN: usize = 24 << 20;
const MESSAGES: u64 = 500;

fn trusting(name: &str) -> EndpointConfig {
    let mut config = config(name, 2);
    config.transport.rdma_zones = vec!["127.0.0.0/8".parse().unwrap()];
    config.transport.resume_timeout = DEADLINE;
    config
}

fn without_zones(name: &str) -> EndpointConfig {
    let mut config = config(name, 2);
    config.transport.rdma_zones.clear();
    config
}

async fn trusting_pair() -> (Connection, Connection) {
    let (server, addr) = listen(trusting("server")).await;
    connect(&server, addr, trusting("client")).await
}

fn has_device() -> bool {
    let found = Port::find(None);
    if let Err(error) = &found {
        println!("SKIP: {error}");
    }
    found.is_ok()
}

fn kinds(connection: &Connection) -> Vec<&'static str> {
    connection.stats().links.iter().map(|link| link.transport).collect()
}

/// Until the sampled links of a side are as wanted.
async fn until(connection: &Connection, what: &str, wanted: impl Fn(&[&str]) -> bool) {
    let waiting = async {
        while !wanted(&kinds(connection)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(in_time.is_ok(), "{what}: {:?}", kinds(connection));
}

fn is_rdma_alone(kinds: &[&str]) -> bool {
    kinds == ["rdma"]
}

fn is_tcp(kinds: &[&str]) -> bool {
    !kinds.is_empty() && kinds.iter().all(|&kind| kind == "tcp")
}

// DWCP-4.7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_over_rdma_where_both_sides_trust_the_wire() {
    if !has_device() {
        return;
    }
    let (a, b) = trusting_pair().await;
    let traffic = Traffic::start(&a, &b, STREAM_LEN, MESSAGES);
    traffic.received(1).await;
    until(&a, "client", is_rdma_alone).await;
    until(&b, "server", is_rdma_alone).await;
    traffic.finish().await;
    assert!(is_rdma_alone(&kinds(&a)), "{:?}", kinds(&a));
    assert_eq!(a.stats().resumes, 0);
    // What a link has carried is of the last sample.
    let sampled = async {
        while a.stats().links.iter().all(|link| link.wire_bytes_sent < STREAM_LEN as u64) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, sampled).await;
    assert!(in_time.is_ok(), "something else has carried it: {:?}", a.stats());
    a.drain().await.unwrap();
}

/// One side alone does not decide, and where there is no device nothing is lost by asking.
// DWCP-4.7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_one_side_does_not_trust_is_not_used() {
    for (server, client) in
        [(trusting("server"), without_zones("client")), (without_zones("server"), trusting("client"))]
    {
        let (server, addr) = listen(server).await;
        let (a, b) = connect(&server, addr, client).await;
        assert_works(&a, &b).await;
        until(&a, "client", is_tcp).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_device_a_trusted_peer_is_reached_over_tcp() {
    if Port::find(None).is_ok() {
        println!("SKIP: there is a device here");
        return;
    }
    let (a, b) = trusting_pair().await;
    assert_works(&a, &b).await;
    until(&a, "client", is_tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_queue_pair_loses_nothing_and_rdma_comes_back() {
    if !has_device() {
        return;
    }
    let (a, b) = trusting_pair().await;
    for (breaking, round) in [(&a, 0), (&b, 1)] {
        until(&a, "before", is_rdma_alone).await;
        let traffic = Traffic::start(&a, &b, STREAM_LEN, MESSAGES);
        traffic.received(STREAM_LEN as u64 / 4).await;
        assert_eq!(breaking.break_rdma(), 1, "round {round}");
        until(&a, "after", is_tcp).await;
        traffic.finish().await;
        assert!(a.stats().resumes > round, "the link was lost");
    }
    until(&a, "at the end", is_rdma_alone).await;
}

/// On one thread, whose recorder it is.
#[tokio::test]
async fn a_link_that_is_lost_is_counted() {
    if !has_device() {
        return;
    }
    let recorded = Recorded::default();
    let _recorder = ::metrics::set_default_local_recorder(&recorded);
    let (a, _b) = trusting_pair().await;
    until(&a, "before", is_rdma_alone).await;
    let lost = || recorded.value("dwcp_rdma_fallbacks_total{reason=\"lost\"}").unwrap_or_default();
    assert_eq!(lost(), 0.0);
    assert_eq!(a.break_rdma(), 1);
    until(&a, "after", is_tcp).await;
    assert!(lost() >= 1.0, "{}", lost());
}

/// Needs to be root, as it is in the virtual machine.
fn set_device(state: &str) {
    let done = Command::new("ip").args(["link", "set", "v0", state]).status().unwrap();
    assert!(done.success(), "ip link set v0 {state}: {done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_goes_down_loses_nothing_and_is_used_again_when_it_is_up() {
    if !has_device() {
        return;
    }
    if !std::path::Path::new("/sys/class/net/v0").exists() {
        println!("SKIP: not in the virtual machine of tests/vm, whose port may go down");
        return;
    }
    let (a, b) = trusting_pair().await;
    until(&a, "before", is_rdma_alone).await;
    let traffic = Traffic::start(&a, &b, STREAM_LEN, MESSAGES);
    traffic.received(STREAM_LEN as u64 / 4).await;
    set_device("down");
    until(&a, "while it is down", is_tcp).await;
    traffic.finish().await;
    assert_works(&a, &b).await;
    set_device("up");
    until(&a, "when it is up again", is_rdma_alone).await;
    assert_works(&a, &b).await;
}

/// Whether this is the virtual machine of tests/vm, whose devices may go; says so if not.
fn may_remove() -> bool {
    let may = std::path::Path::new("/sys/class/net/v0").exists();
    if !may {
        println!("SKIP: not in the virtual machine of tests/vm, whose device may go");
    }
    may
}

fn done(command: &str) {
    let (program, arguments) = command.split_once(' ').unwrap();
    let done = Command::new(program).args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "{command}: {done}");
}

/// The card is pulled: its network interface goes, and the device with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interface_that_is_removed_with_its_device_loses_nothing_and_one_that_comes_is_used() {
    if !has_device() || !may_remove() {
        return;
    }
    let (a, b) = trusting_pair().await;
    until(&a, "before", is_rdma_alone).await;
    let traffic = Traffic::start(&a, &b, STREAM_LEN, MESSAGES);
    traffic.received(STREAM_LEN as u64 / 4).await;
    done("ip link del v0");
    until(&a, "without a device", is_tcp).await;
    until(&b, "without a device", is_tcp).await;
    traffic.finish().await;
    assert_works(&a, &b).await;
    // As tests/vm/run.sh makes them.
    done("ip link add v0 type veth peer name v1");
    done("ip addr add 10.9.0.1/24 dev v0");
    done("ip link set v0 mtu 9000 up");
    done("ip link set v1 mtu 9000 up");
    done("rdma link add rxe0 type rxe netdev v0");
    until(&a, "with a new one", is_rdma_alone).await;
    assert_works(&a, &b).await;
}

/// Whoever removes the device alone waits until nobody has it open, where its driver cannot take it away (Soft-RoCE cannot):
/// what goes over it meanwhile arrives, and who comes meanwhile has TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_removed_under_a_transfer_loses_nothing() {
    if !has_device() || !may_remove() {
        return;
    }
    let (a, b) = trusting_pair().await;
    until(&a, "before", is_rdma_alone).await;
    let traffic = Traffic::start(&a, &b, STREAM_LEN, MESSAGES);
    traffic.received(STREAM_LEN as u64 / 4).await;
    let removing = Command::new("rdma").args(["link", "del", "rxe0"]).spawn().unwrap();
    traffic.finish().await;
    assert_works(&a, &b).await;
    a.drain().await.unwrap();
    drop((a, b));
    let removed = tokio::task::spawn_blocking(move || removing.wait_with_output()).await.unwrap().unwrap();
    assert!(removed.status.success(), "rdma link del: {removed:?}");
    assert!(Port::find(None).is_err(), "it is gone");
    let (a, b) = trusting_pair().await;
    assert_works(&a, &b).await;
    until(&a, "without a device", is_tcp).await;
    done("rdma link add rxe0 type rxe netdev v0");
    let (a, _b) = trusting_pair().await;
    until(&a, "with a new one", is_rdma_alone).await;
}

/// A process that dies takes its TCP connection with it: that is noticed long before the queue pair gives up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_is_noticed_at_once() {
    if !has_device() {
        return;
    }
    let (server, addr): (Endpoint, SocketAddr) = listen(trusting("server")).await;
    let mut client = trusting("client");
    client.transport.resume_timeout = Duration::from_millis(200);
    // On a runtime of its own, which ends without a word.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let connecting = runtime.spawn(async move {
        let client = Endpoint::client(client).unwrap();
        client.connect(addr, "localhost").await.unwrap()
    });
    let b = server.accept().await.unwrap();
    let a = connecting.await.unwrap();
    until(&b, "server", is_rdma_alone).await;
    let reach = b.watch_reach();
    runtime.shutdown_background();
    drop(a);
    let gone = async {
        while *reach.borrow() == dwcp_core::Reach::Linked && !kinds(&b).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("the loss is noticed");
}
