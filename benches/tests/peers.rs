//! Every peer does every job, between two processes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use dwcp_benches::workload::Report;

const PEERS: &str = env!("CARGO_BIN_EXE_dwcp-peers");

/// Killed when the test ends, however it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

fn serve(arguments: &[&str]) -> (Server, String) {
    let mut child = Command::new(PEERS).args(arguments).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("an address");
    (Server(child), line.trim().to_owned())
}

#[test]
fn every_peer_does_every_job() {
    for kind in ["tcp", "framed", "tls", "quinn", "tonic"] {
        let (_server, addr) = serve(&[&format!("{kind}-server")]);
        for mode in ["bulk", "rtt", "messages"] {
            let mut client = Command::new(PEERS);
            client.args([&format!("{kind}-client"), &*addr, "--json", "--time", "0.5", "--mode", mode]);
            let output = client.output().expect("the client runs");
            assert!(output.status.success(), "{client:?}: {}", String::from_utf8_lossy(&output.stderr));
            let report: Report = serde_json::from_slice(&output.stdout).expect("JSON");
            let figure = match mode {
                "bulk" => report.bits_per_second,
                "rtt" => report.p50_us.filter(|p50| Some(*p50) <= report.p99_us),
                _ => report.messages_per_second,
            };
            assert!(figure.is_some_and(|figure| figure > 0.0), "{kind} {mode}: {report:?}");
        }
    }
}

#[test]
fn a_tree_goes_by_tar() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, into) = (folder.path().join("from"), folder.path().join("into"));
    std::fs::create_dir_all(from.join("a/b")).expect("a folder");
    std::fs::write(from.join("a/b/file"), vec![7; 1 << 20]).expect("a file");
    let (_server, addr) = serve(&["tar-server", "--into", into.to_str().expect("UTF-8")]);
    let sent = Command::new(PEERS).arg("tar-client").arg(addr).arg(&from).status().expect("the client runs");
    assert!(sent.success());
    assert_eq!(std::fs::read(into.join("a/b/file")).expect("the file"), vec![7; 1 << 20]);
}
