//! Against OpenSSL's own client and server: nothing of ours or of rustls at the other end.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use dwcp_core::security::LinkSocket;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::pki::{Authority, VALID, listen};

const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when the test ends, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `openssl TOOL` with a certificate of `ca`, demanding one from the peer; `None` if there is none here.
fn openssl(tool: &str, folder: &TempDir, ca: &Authority, arguments: &[&str]) -> Option<Process> {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIP: no openssl command here");
        return None;
    }
    let node = ca.issue(&["node.example"], VALID);
    for (name, text) in [("cert", &node.cert), ("key", &node.key), ("ca", &ca.pem)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut command = Command::new("openssl");
    command.current_dir(folder.path()).args([tool, "-cert", "cert", "-key", "key", "-CAfile", "ca"]);
    command.args(["-tls1_3", "-alpn", "dwcp/1", "-verify_return_error"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Some(Process(command.spawn().unwrap()))
}

/// Lines that wait to be looked at; more let the process wait.
const LINES_MAX: usize = 1024;

/// What the process prints, line by line.
fn lines(process: &mut Process) -> mpsc::Receiver<String> {
    let stdout = BufReader::new(process.0.stdout.take().unwrap());
    let (sender, receiver) = mpsc::sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in stdout.lines() {
            let Ok(()) = sender.send(line.unwrap()) else { return };
        }
    });
    receiver
}

fn expect_line(lines: &mpsc::Receiver<String>, expected: &str) {
    while lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {expected:?} from openssl")) != expected
    {
    }
}

/// Reads until `text` has come.
async fn expect(link: &LinkSocket, text: &str) {
    let mut bytes = vec![0; text.len()];
    let mut filled = 0;
    while filled < bytes.len() {
        tokio::time::timeout(PATIENCE, link.readable()).await.expect("nothing to read").unwrap();
        match link.try_read(&mut [IoSliceMut::new(&mut bytes[filled..])]) {
            Ok(0) => panic!("ended after {filled} bytes"),
            Ok(got) => filled += got,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

async fn send(link: &LinkSocket, text: &str) {
    link.writable().await.unwrap();
    assert_eq!(link.try_write(&[IoSlice::new(text.as_bytes())]).unwrap(), text.len());
    assert!(!link.has_unflushed());
}

#[tokio::test]
async fn openssl_server_with_tickets_and_key_updates() {
    let (folder, ca) = (TempDir::new().unwrap(), Authority::new());
    let Some(mut server) = openssl("s_server", &folder, &ca, &["-accept", "127.0.0.1:0", "-Verify", "2"])
    else {
        return;
    };
    let lines = lines(&mut server);
    let address = lines.iter().find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
    let mut commands = server.0.stdin.take().unwrap();
    let config = ca.config(&["client.example"], &["node.example"]);
    let tcp = TcpStream::connect(address).await.unwrap();
    let (link, names) = LinkSocket::connect_tls(tcp, "node.example", &config).await.unwrap();
    assert_eq!(names, ["node.example"]);

    send(&link, "to openssl\n").await;
    expect_line(&lines, "to openssl");
    // s_server: `k` renews its key, `K` asks for ours as well.
    for command in ["k", "K", "K"] {
        commands.write_all(format!("before {command}\n").as_bytes()).unwrap();
        expect(&link, &format!("before {command}\n")).await;
        commands.write_all(format!("{command}\n").as_bytes()).unwrap();
        // s_server takes a command only at the start of what it reads: wait until it has read this one.
        while rustix::io::ioctl_fionread(&commands).unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        commands.write_all(format!("after {command}\n").as_bytes()).unwrap();
        expect(&link, &format!("after {command}\n")).await;
        send(&link, &format!("answer to {command}\n")).await;
        expect_line(&lines, &format!("answer to {command}"));
    }
}

#[tokio::test]
async fn openssl_client_sends_a_megabyte_and_gets_an_answer() {
    let (folder, ca) = (TempDir::new().unwrap(), Authority::new());
    let listener = listen().await;
    let address = listener.local_addr().unwrap().to_string();
    let arguments = ["-connect", &address, "-servername", "node.example", "-quiet"];
    let Some(mut client) = openssl("s_client", &folder, &ca, &arguments) else {
        return;
    };
    let text: String = (0..150_000).map(|i| format!("{i} ")).collect();
    let mut stdin = client.0.stdin.take().unwrap();
    let sender = std::thread::spawn({
        let text = text.clone();
        move || {
            stdin.write_all(text.as_bytes()).unwrap();
            stdin
        }
    });
    let config = ca.config(&["node.example"], &[]);
    let (tcp, _) = listener.accept().await.unwrap();
    let (link, names) = LinkSocket::accept_tls(tcp, &config).await.unwrap();
    assert_eq!(names, ["node.example"]);
    expect(&link, &text).await;
    let _stdin = sender.join().unwrap();
    send(&link, "thank you").await;
    link.shutdown_write().unwrap();
    let mut answer = [0; 9];
    client.0.stdout.take().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"thank you");
}
