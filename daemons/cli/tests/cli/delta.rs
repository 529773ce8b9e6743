//! The real command: second versions, the store of what was transferred, and forwarded sockets.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{
        fs::FileExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::support::*;

const MIB: u64 = 1 << 20;

/// `novacron store` of this folder.
fn store(what: &str, folder: &Path) -> (Option<i32>, String) {
    let output = novacron().args(["store", what, "--delta-store"]).arg(folder).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn of_a_second_version_only_what_differs_travels_and_the_store_can_be_tidied() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (from, into, kept) = (path("image"), path("into"), path("kept"));
    let mut image = noise(20 * MIB, 0);
    fs::write(&from, &image).unwrap();
    let flag = OsStr::new("--delta-store");
    let overwrite = OsStr::new("--overwrite");
    let receiver = Server::recv(&[OsStr::new("--into"), into.as_os_str(), flag, kept.as_os_str(), overwrite]);
    let to = OsStr::new(&receiver.address);
    let first = report(&send(&[from.as_os_str(), to]), 0);
    assert_eq!(first["bytes_moved"], 20 * MIB);
    image[5_000_000..5_000_100].copy_from_slice(&noise(100, 1));
    fs::write(&from, &image).unwrap();
    let second = report(&send(&[from.as_os_str(), to]), 0);
    assert!(second["bytes_moved"].as_u64().unwrap() < 100_000, "{second}");
    assert!(fs::read(into.join("image")).unwrap() == image);

    wait_until("both are kept", || store("ls", &kept).1.matches("image").count() == 2);
    assert_eq!(
        store("verify", &kept),
        (Some(0), "2 intact, 0 damaged and removed, 0 records removed\n".into())
    );
    let content = fs::read_dir(kept.join("contents")).unwrap().next().unwrap().unwrap().path();
    fs::File::options().write(true).open(content).unwrap().write_all_at(b"damage", 77).unwrap();
    assert_eq!(
        store("verify", &kept),
        (Some(1), "1 intact, 1 damaged and removed, 1 records removed\n".into())
    );
    assert_eq!(store("gc", &kept).0, Some(0));
    assert_eq!(store("ls", &path("no such folder")).0, Some(2));
}

#[test]
fn sockets_are_forwarded_with_their_halves_and_nothing_else_can_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let target = UnixListener::bind(path("b.sock")).unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let allowed = format!("unix:{}", path("b.sock"));
    let far = Server::start(novacron().args(["forward", "--serve", "127.0.0.1:0", "--permit", &allowed]));
    let mut near = novacron();
    near.args(["forward", "--listen", &format!("unix:{}", path("a.sock"))]);
    near.args(["--to", &format!("{}:{allowed}", far.address), "--listen", "tcp:127.0.0.1:0"]);
    near.args(["--to", &format!("{}:tcp:{}", far.address, other.local_addr().unwrap())]);
    let mut near = Process::spawn(&mut near);
    let mut said = near.errors_reader();
    // In whichever order.
    let lines = [after(&mut said, "forwarding "), after(&mut said, "forwarding ")];
    pass_on(said);
    let tcp = lines.iter().find_map(|line| line.strip_prefix("tcp:")).unwrap();

    let asking = std::thread::spawn({
        let socket = path("a.sock");
        move || {
            let mut socket = UnixStream::connect(socket).unwrap();
            socket.write_all(&noise(5 * MIB, 1)).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).unwrap();
            answer
        }
    });
    let (mut socket, _) = target.accept().unwrap();
    let mut asked = Vec::new();
    socket.read_to_end(&mut asked).unwrap();
    assert!(asked == noise(5 * MIB, 1));
    socket.write_all(b"all of it").unwrap();
    drop(socket);
    assert_eq!(asking.join().unwrap(), b"all of it");

    let refused = TcpStream::connect(tcp).unwrap().read(&mut [0]);
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
