//! The path MTU between two network namespaces, with a third one between them whose wires carry less (root).

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, sync::mpsc, thread, time::Duration};

use dwcp_core::{Connection, Endpoint, EndpointConfig, datagram_socket::UdpDatagrams};
use dwcp_lab::namespace::Namespace;
use tokio::time::sleep;

/// Of the ends' interfaces.
const INTERFACE_MTU: u32 = 1500;
const WIRE_MTU: u32 = 1450;
const SHRUNK_MTU: u32 = 1350;
/// Of 1200 bytes with headers of IPv4 and UDP.
const BASE_MTU: u32 = 1228;
/// The search may end so much below what is carried.
const STEP: u32 = 16;

fn config(name: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.allow_plaintext = true;
    config.datagrams.probe_interval = Duration::from_millis(50);
    config
}

async fn mtu_becomes(connection: &Connection, wanted: RangeInclusive<u32>) {
    let waiting = async {
        while !connection.path().is_some_and(|path| wanted.contains(&path.mtu)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let result = tokio::time::timeout(Duration::from_secs(100), waiting).await;
    assert!(result.is_ok(), "not in {wanted:?}: {:?}", connection.path());
}

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(task)
}

/// Two ends, and a router whose way to the right end carries less.
fn network() -> anyhow::Result<[Namespace; 3]> {
    let [left, router, right] = [Namespace::create()?, Namespace::create()?, Namespace::create()?];
    for (end, name, net) in [(&left, "left", 1), (&right, "right", 2)] {
        let path = router.path();
        end.ip(&[
            &format!("link add wire mtu {INTERFACE_MTU} type veth peer name {name} netns {}", path.display()),
            &format!("addr add 10.77.{net}.2/24 dev wire"),
            "link set wire up",
        ])?;
        router.ip(&[&format!("addr add 10.77.{net}.1/24 dev {name}"), &format!("link set {name} up")])?;
        end.ip(&[&format!("route add default via 10.77.{net}.1")])?;
    }
    router.ip(&[&format!("link set right mtu {WIRE_MTU}")])?;
    router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    Ok([left, router, right])
}

// DATAGRAM-3.1, DATAGRAM-7.4, DATAGRAM-7.5
#[test]
fn what_the_wire_carries_is_found_and_followed() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces need root");
        return;
    }
    let [left, router, right] = match network() {
        Ok(network) => network,
        Err(error) => {
            println!("SKIP: no network of namespaces here: {error:#}");
            return;
        }
    };
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            right.enter(move || {
                run(async move {
                    let mut config = config("server");
                    let addr: SocketAddr = "10.77.2.2:0".parse().unwrap();
                    config.datagrams.listen = Some(addr);
                    let endpoint = Endpoint::listen(addr, config).await.unwrap();
                    tell.send(endpoint.local_addr().unwrap()).unwrap();
                    endpoint.accept().await.unwrap().closed().await;
                });
            });
        });
        let addr = told.recv().unwrap();
        left.enter(|| {
            run(async {
                let endpoint = Endpoint::client(config("client")).unwrap();
                let socket = UdpDatagrams::bind("10.77.1.2:0".parse().unwrap()).unwrap();
                endpoint.add_datagram_socket(Arc::new(socket)).unwrap();
                let connection = endpoint.connect(addr, "server").await.unwrap();
                mtu_becomes(&connection, WIRE_MTU - STEP..=WIRE_MTU).await;
                router.ip(&[&format!("link set right mtu {SHRUNK_MTU}")]).unwrap();
                mtu_becomes(&connection, BASE_MTU..=SHRUNK_MTU).await;
                mtu_becomes(&connection, SHRUNK_MTU - STEP..=SHRUNK_MTU).await;
                assert_eq!(connection.path().unwrap().loss_ratio, 0.0);
                connection.close(0, "");
                connection.closed().await;
            });
        });
        server.join().unwrap();
    });
}
