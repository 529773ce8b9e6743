//! WireGuard in user space: a TUN device, a UDP socket, and the thread between them.
//!
//! Owns: the device, the socket and the thread, which end with the value. Who belongs to whom is `tunnels`' subject.

mod io;
mod member;
mod tunnels;

use std::{
    io::Error as IoError,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::{ALIAS, Config, Error, Peer, PeerStatus, PrivateKey};
use crate::netlink::Netlink;
use io::{Socket, Tun};
use tunnels::Tunnels;

/// How often timers are looked at. The protocol's are seconds.
const TICK: Duration = Duration::from_millis(200);

/// What to do about what most often is missing.
pub(super) fn advice(call: &str, source: &IoError) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) if call.contains("/dev/net/tun") => {
            " (the kernel needs CONFIG_TUN, module tun, and a container the device /dev/net/tun)"
        }
        Some(Errno::PERM | Errno::ACCESS) if call.contains("/dev/net/tun") => {
            refused(crate::probe::has_net_admin() != Some(false))
        }
        Some(Errno::ADDRINUSE) => " (another WireGuard has the port: stop it, or take another port)",
        _ => "",
    }
}

/// Why the device is refused: who may change the network is kept from it by something else.
fn refused(has_net_admin: bool) -> &'static str {
    match has_net_admin {
        false => " (it needs CAP_NET_ADMIN)",
        true => {
            " (CAP_NET_ADMIN is there: the mode of the file forbids it, or the rules of the container for devices, \
             which have to allow 10:200)"
        }
    }
}

/// An interface by this process.
pub(super) struct User {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    tunnels: Mutex<Tunnels>,
    socket: Socket,
    tun: Tun,
    stop: AtomicBool,
    wake: OwnedFd,
    /// Why the thread has ended by itself.
    failed: Mutex<Option<(&'static str, IoError)>>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

impl User {
    pub(super) fn open(netlink: &mut Netlink, config: &Config, key: &PrivateKey) -> Result<Self, Error> {
        match netlink.link(&config.interface)? {
            // The kernel's, of an earlier start, that is to give way.
            Some(link) if link.alias.as_deref() == Some(ALIAS) => netlink.remove_link(&link)?,
            Some(_) => return Err(Error::Foreign { interface: config.interface.clone() }),
            None => {}
        }
        let failed = |call| move |source| Error::UserSpace { call, source };
        let tun = Tun::open(&config.interface).map_err(failed("open /dev/net/tun"))?;
        let socket = Socket::bind(config.port).map_err(failed("bind the UDP port of WireGuard"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::UserSpace { call: "eventfd", source: errno.into() })?;
        if let Some(link) = netlink.link(&config.interface)? {
            netlink.set_alias(&link, ALIAS)?;
        }
        let shared = Arc::new(Shared {
            tunnels: Mutex::new(Tunnels::new(key)),
            socket,
            tun,
            stop: AtomicBool::new(false),
            wake,
            failed: Mutex::new(None),
        });
        shared.with(|tunnels, sink| tunnels.set_peers(&config.peers, Instant::now(), sink));
        let runner = shared.clone();
        let thread = std::thread::Builder::new()
            .name("wireguard".to_owned())
            .spawn(move || runner.run())
            .map_err(failed("spawn a thread"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn set_peers(&mut self, peers: &[Peer]) {
        self.shared.with(|tunnels, sink| tunnels.set_peers(peers, Instant::now(), sink));
    }

    pub(super) fn set_key(&mut self, key: &PrivateKey) {
        self.shared.with(|tunnels, sink| tunnels.set_key(key, Instant::now(), sink));
    }

    pub(super) fn status(&self) -> Vec<PeerStatus> {
        self.shared.tunnels().status(Instant::now())
    }

    /// Fails if the thread has ended.
    pub(super) fn check(&self) -> Result<(), Error> {
        let failed = self.shared.failed.lock().expect("nobody panics with it").take();
        if let Some((call, source)) = failed {
            return Err(Error::UserSpace { call, source });
        }
        match &self.thread {
            Some(thread) if thread.is_finished() => {
                let source = IoError::other("it has ended");
                Err(Error::UserSpace { call: "the thread of WireGuard", source })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Only a full counter refuses, and then it wakes too.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!(?panic, "the thread of WireGuard has panicked");
        }
    }
}

impl Shared {
    fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        // A panic in it ends the thread and is reported; what it left is not gone on with, only told of.
        self.tunnels.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs `work`, and sends what comes of it.
    fn with(&self, work: impl FnOnce(&mut Tunnels, &mut io::Outbox<'_>)) {
        let mut outbox = io::Outbox::new(&self.socket, &self.tun);
        work(&mut self.tunnels(), &mut outbox);
        outbox.flush();
    }

    fn run(&self) {
        if let Err(failed) = self.serve() {
            tracing::error!(call = failed.0, error = %failed.1, "WireGuard in user space has ended");
            *self.failed.lock().expect("nobody panics with it") = Some(failed);
        }
    }

    fn serve(&self) -> Result<(), (&'static str, IoError)> {
        let mut inbox = io::Inbox::new();
        let mut outbox = io::Outbox::new(&self.socket, &self.tun);
        let mut due = Instant::now();
        let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        while !self.stop.load(Ordering::Acquire) {
            let mut files = [
                PollFd::new(&self.tun, PollFlags::IN),
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&self.wake, PollFlags::IN),
            ];
            match poll(&mut files, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(("poll", errno.into())),
            }
            let ready = files.each_ref().map(|file| !file.revents().is_empty());
            let now = Instant::now();
            if ready[0] {
                inbox.read(&self.tun).map_err(|error| ("read the TUN device", error))?;
                let mut tunnels = self.tunnels();
                inbox.packets().for_each(|packet| tunnels.handle_packet(packet, now, &mut outbox));
            }
            if ready[1] {
                inbox.receive(&self.socket).map_err(|error| ("receive from the UDP socket", error))?;
                let mut tunnels = self.tunnels();
                inbox
                    .datagrams()
                    .for_each(|(from, datagram)| tunnels.handle_datagram(from, datagram, now, &mut outbox));
            }
            if now >= due {
                self.tunnels().tick(now, &mut outbox);
                due = now + TICK;
            }
            outbox.flush();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_grant_what_is_there() {
        let denied = IoError::from(Errno::ACCESS);
        assert!(refused(true).contains("10:200"));
        assert!(refused(false).contains("needs CAP_NET_ADMIN"));
        let has = crate::probe::has_net_admin() != Some(false);
        assert_eq!(advice("open /dev/net/tun", &denied), refused(has));
        assert_eq!(advice("bind the UDP port of WireGuard", &denied), "");
    }
}
