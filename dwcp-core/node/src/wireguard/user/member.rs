//! A peer, its sessions under its keys and ours, and which of them is sent through.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult, rate_limiter::RateLimiter},
    x25519,
};

use super::super::{Peer, PrivateKey, PublicKey};
use super::tunnels::Sink;

/// Handshakes a second that are answered without proof that the sender is where it says (the paper, section 5.4.7).
const HANDSHAKES_PER_SECOND: u64 = 200;
/// A peer that has two keys and was not heard for so long may have changed to the other. The paper's time after which
/// silence means that a session is lost (section 6.2).
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Our key, and what goes with it.
pub(super) struct Identity {
    pub(super) private: PrivateKey,
    pub(super) secret: x25519::StaticSecret,
    pub(super) public: x25519::PublicKey,
    /// Lets handshakes in, or asks for proof first.
    pub(super) gate: RateLimiter,
    /// What the tunnels check by once more: it lets in all that the gate has.
    pub(super) open: Arc<RateLimiter>,
}

impl Identity {
    pub(super) fn new(private: &PrivateKey) -> Self {
        let secret = private.secret();
        let public = x25519::PublicKey::from(&secret);
        let gate = RateLimiter::new(&public, HANDSHAKES_PER_SECOND);
        let open = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { private: private.clone(), secret, public, gate, open }
    }
}

/// What two keys agree on.
pub(super) struct Tunnel {
    pub(super) index: u32,
    pub(super) remote: PublicKey,
    pub(super) noise: Box<Tunn>,
    /// Counts the handshakes of the whole interface: the latest has the largest. 0: none yet.
    pub(super) handshake: u64,
    /// Since when it is kept only until another takes over, or for packets on their way: a key has changed.
    pub(super) retired: Option<Instant>,
}

impl Tunnel {
    pub(super) fn new(identity: &Identity, peer: &Peer, remote: PublicKey, index: u32) -> Self {
        let preshared = peer.preshared_key.as_ref().map(|key| key.0);
        let open = Some(identity.open.clone());
        // Keepalives are ours: only the tunnel in use needs them.
        let noise = Tunn::new(identity.secret.clone(), remote.0.into(), preshared, None, index, open);
        Self { index, remote, noise: Box::new(noise), handshake: 0, retired: None }
    }
}

pub(super) struct Member {
    pub(super) peer: Peer,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) tunnels: Vec<Tunnel>,
    /// The index of the tunnel to send through.
    pub(super) active: u32,
    pub(super) handshake_at: Option<Instant>,
    pub(super) heard_at: Option<Instant>,
    pub(super) sent_at: Option<Instant>,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

impl Member {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            endpoint: peer.endpoint,
            peer,
            tunnels: Vec::new(),
            active: 0,
            handshake_at: None,
            heard_at: None,
            sent_at: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    pub(super) fn active(&mut self) -> Option<&mut Tunnel> {
        self.tunnels.iter_mut().find(|tunnel| tunnel.index == self.active)
    }

    /// Keeps the tunnels that `which` names no longer than needed, and forgets them if they carry nothing yet.
    pub(super) fn retire(&mut self, now: Instant, which: impl Fn(&Tunnel) -> bool) {
        self.tunnels.retain(|tunnel| tunnel.handshake > 0 || !which(tunnel));
        for tunnel in self.tunnels.iter_mut().filter(|tunnel| which(tunnel)) {
            tunnel.retired.get_or_insert(now);
        }
    }

    /// Sends through this tunnel, if its handshake is later than that of the one in use.
    pub(super) fn take_over(&mut self, at: usize, now: Instant) {
        let handshake = self.tunnels[at].handshake;
        if self.active().is_some_and(|active| active.handshake >= handshake) {
            return;
        }
        // What the peer has sent by the former one until it sees this is on its way.
        if let Some(former) = self.active() {
            former.retired = former.retired.map(|_| now);
        }
        self.active = self.tunnels[at].index;
    }

    /// Begins a handshake in the tunnels that `which` names, unless one is under way.
    pub(super) fn greet(
        &mut self,
        which: impl Fn(&Tunnel) -> bool,
        scratch: &mut [u8],
        sink: &mut impl Sink,
    ) {
        for tunnel in self.tunnels.iter_mut().filter(|tunnel| tunnel.retired.is_none() && which(tunnel)) {
            send(tunnel.noise.format_handshake_initiation(scratch, false), self.endpoint, sink);
        }
    }

    /// Sends a packet, or an empty one, to the peer.
    pub(super) fn encapsulate(
        &mut self,
        packet: &[u8],
        now: Instant,
        scratch: &mut [u8],
        sink: &mut impl Sink,
    ) {
        let endpoint = self.endpoint;
        let Some(active) = self.active() else { return };
        send(active.noise.encapsulate(packet, scratch), endpoint, sink);
        self.sent_at = Some(now);
        let silent = self.heard_at.is_none_or(|at| now.duration_since(at) > SILENCE_MAX);
        if silent && self.tunnels.len() > 1 {
            let active = self.active;
            self.greet(|tunnel| tunnel.index != active, scratch, sink);
        }
    }
}

pub(super) fn send(result: TunnResult<'_>, endpoint: Option<SocketAddr>, sink: &mut impl Sink) {
    // An error means that nothing is to be sent now; the timers go on.
    if let (TunnResult::WriteToNetwork(datagram), Some(endpoint)) = (result, endpoint) {
        sink.to_network(endpoint, datagram);
    }
}
