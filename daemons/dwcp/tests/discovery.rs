//! Agents that find each other: by the store, and by a headless service (root: a file of hosts of its own).

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use consensus_proto::etcdserverpb::{DeleteRangeRequest, RangeRequest, kv_client::KvClient};
use novacron_control::schema::Node;
use support::{Agent, wait_until};
use tonic::transport::Endpoint;

/// A member of the store, alone; killed when dropped.
struct Store {
    process: Child,
    url: String,
}

impl Store {
    /// `None`: the program is not there.
    fn start(folder: &Path) -> Option<Self> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_novacron-dwcp")).with_file_name("novacron-consensus");
        if !program.is_file() {
            println!("SKIP: no {} (cargo build --workspace --bins makes it)", program.display());
            return None;
        }
        let free = ports::free(2);
        let [url, peers] = [free[0], free[1]].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(program);
        command.args(["--name=m", "--metrics-listen=off"]).arg("--data-dir").arg(folder.join("m"));
        command.args([
            format!("--listen-client-urls={url}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-cluster=m={peers}"),
        ]);
        let process = command.stdin(Stdio::null()).spawn().expect("it starts");
        Some(Self { process, url })
    }

    fn client(&self) -> KvClient<tonic::transport::Channel> {
        KvClient::new(Endpoint::from_shared(self.url.clone()).expect("a URL").connect_lazy())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(folder: &Path, name: &str, at: &str, port: u16, more: &[(&str, &str)]) -> Agent {
    start_with(folder, name, at, port, more, |_| {})
}

fn start_with(
    folder: &Path,
    name: &str,
    at: &str,
    port: u16,
    more: &[(&str, &str)],
    prepare: impl FnOnce(&mut Command),
) -> Agent {
    let places = [port, port + 1].map(|port| format!("{at}:{port}"));
    let settings = [&[("listen", places[0].as_str()), ("datagrams.listen", &places[1])], more].concat();
    Agent::start_with(folder, name, &settings, prepare)
}

/// Peers that are connected, and those that are not and should be.
fn peers(agent: &Agent) -> (usize, usize) {
    let node: Node = agent.get("/v1/node");
    (node.peers_connected, node.peers_missing)
}

#[test]
fn an_entry_that_somebody_deleted_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(store) = Store::start(folder.path()) else { return };
    let port = ports::free(4)[0];
    let by_store = [("discovery.store", store.url.as_str())];
    let a = start(folder.path(), "a", "127.0.0.1", port, &by_store);
    let b = start(folder.path(), "b", "127.0.0.1", port + 2, &by_store);
    wait_until("they find each other", || peers(&a).0 == 1 && peers(&b).0 == 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let key = || "/novacron/nodes/b".into();
    let deleted = runtime.block_on(async {
        let request = DeleteRangeRequest { key: key(), ..DeleteRangeRequest::default() };
        store.client().delete_range(request).await.expect("deleted").into_inner().deleted
    });
    assert_eq!(deleted, 1);
    wait_until("it is there again", || {
        let request = RangeRequest { key: key(), ..RangeRequest::default() };
        let read = runtime.block_on(async { store.client().range(request).await });
        read.expect("read").into_inner().kvs.len() == 1
    });
    wait_until("and they are connected", || peers(&a).0 == 1 && peers(&b).0 == 1);
}

/// Runs a program for which `$0` is `/etc/hosts`.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

fn with_hosts(hosts: &Path, program: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", WITH_HOSTS]).arg(hosts);
    command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    command
}

#[test]
fn every_address_of_a_headless_service_is_a_peer_for_as_long_as_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    // In place: it is mounted.
    let tell = |last: &[u8]| {
        let lines: Vec<_> = last.iter().map(|last| format!("127.0.1.{last} agents.test\n")).collect();
        fs::write(&hosts, lines.concat()).expect("written");
    };
    tell(&[1, 2, 3]);
    let tried = with_hosts(&hosts, Command::new("getent").args(["hosts", "agents.test"])).output();
    if !tried.as_ref().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("127.0.1.")) {
        println!("SKIP: no mount namespace of its own: {tried:?}");
        return;
    }
    let port = ports::free(2)[0];
    let _others =
        [("b", "127.0.1.2"), ("c", "127.0.1.3")].map(|(name, at)| start(folder.path(), name, at, port, &[]));
    let service = format!("agents.test:{port}");
    let headless = [("discovery.headless", service.as_str())];
    // It is one of the service itself, and no peer of its own.
    let a = start_with(folder.path(), "a", "127.0.1.1", port, &headless, |command| {
        *command = with_hosts(&hosts, command);
    });
    wait_until("the two others are connected", || peers(&a) == (2, 0));
    // A service that is not told of may be ill itself, and its agents are not.
    tell(&[]);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(peers(&a), (2, 0));
    tell(&[1, 3]);
    wait_until("one is no peer any more", || peers(&a) == (1, 0));
    tell(&[1, 2, 3]);
    wait_until("and then it is again", || peers(&a) == (2, 0));
}
