//! Two network namespaces joined by a veth pair, and a BPF file system of the test's own. The kernel removes all of it when
//! the test ends, however it does.
#![allow(dead_code, reason = "each test uses some")]

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use dwcp_ebpf::{Config, Error, Guard};
use dwcp_lab::namespace::Namespace;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};

/// The guarded interface, in the namespace that tests run in; the other end is `far` in the namespace of the same name.
pub(crate) const NEAR: &str = "near";
pub(crate) const ADDRESS: &str = "192.0.2.2";
pub(crate) const ADDRESS6: &str = "2001:db8::2";

/// A veth takes a program only if it has as many queues to receive as its peer has to send.
const QUEUES: &str = "numrxqueues 1 numtxqueues 1";

#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) near: &'a Namespace,
    pub(crate) far: Namespace,
    pub(crate) root: PathBuf,
}

/// Runs a test on a thread in the near namespace, or says why it cannot run here.
pub(crate) fn with_place(test: impl FnOnce(&Place<'_>) + Send) {
    // Names of interfaces are shorter: this touches nothing.
    if let Err(why) = Guard::attach("there-is-no-such-interface", &Config::default())
        && !matches!(why, Error::NoInterface { .. })
    {
        println!("SKIP: {why}");
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: namespaces need root");
        return;
    }
    let (near, far) = (Namespace::create().expect("a namespace"), Namespace::create().expect("a namespace"));
    join(&near, &far);
    let folder = tempfile::tempdir().expect("a folder");
    near.enter(|| {
        mount_bpf(folder.path());
        test(&Place { near: &near, far, root: folder.path().join("novacron-dwcp") });
    });
}

/// Makes the veth pair, and gives both ends addresses.
pub(crate) fn join(near: &Namespace, far: &Namespace) {
    let other = far.path();
    near.ip(&[
        &format!("link add {NEAR} {QUEUES} type veth peer name far {QUEUES} netns {}", other.display()),
        &format!("addr add {ADDRESS}/24 dev {NEAR}"),
        &format!("addr add {ADDRESS6}/64 dev {NEAR} nodad"),
        &format!("link set {NEAR} up"),
    ])
    .expect("the near end");
    far.ip(&["addr add 192.0.2.1/24 dev far", "addr add 2001:db8::1/64 dev far nodad", "link set far up"])
        .expect("the far end");
}

/// Only this thread, and those that it starts, see the file system.
fn mount_bpf(folder: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private");
    mount(Some("bpf"), folder, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a BPF file system");
}

/// Has this thread see an empty folder in place of one.
pub(crate) fn hide(folder: &Path) {
    mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("an empty folder");
}

impl Place<'_> {
    pub(crate) fn config(&self) -> Config {
        let addresses = [ADDRESS, ADDRESS6].map(|address| address.parse().expect("an address")).to_vec();
        Config { root: self.root.clone(), addresses, limit: None, ..Config::default() }
    }

    pub(crate) fn attach(&self, config: &Config) -> Guard {
        Guard::attach(NEAR, config).expect("a guard")
    }

    /// A socket on the far side.
    pub(crate) fn sender(&self, address: &str) -> UdpSocket {
        let bound = self.far.enter(|| UdpSocket::bind((address, 0)));
        bound.expect("a socket on the far side")
    }
}

/// A socket on the near side, that waits for a while.
pub(crate) fn receiver(address: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).expect("a socket");
    // A datagram that comes out of XDP may count as a whole page.
    setsockopt(&socket, RcvBufForce, &(4 << 20)).expect("root may");
    // What goes through XDP in native mode is delivered by a thread of the kernel, which waits for its turn.
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    socket
}

/// Everything that arrives until nothing does for a while.
pub(crate) fn drain(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
}

pub(crate) fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}
