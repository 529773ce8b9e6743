//! What agents say to each other, and to whoever asks over the control API: the schema, in JSON.
//!
//! Fields are added, never given another meaning; readers ignore those they do not know. Units are last in a name.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Longest key of a transfer.
pub const TRANSFER_KEY_BYTES_MAX: usize = 128;
/// Paths that one node tells of at most.
pub const PATHS_MAX: usize = 1024;

/// What an agent says of itself, at first and whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What it calls itself.
    pub node_id: String,
    /// Its region, if it has one.
    pub region: Option<String>,
    /// Of its program.
    pub version: String,
    /// Drawn when its process began: another one is another process.
    pub instance: u64,
    /// Port for DWCP.
    pub port: u16,
    /// It takes on nothing new and will be gone soon.
    pub draining: bool,
    /// It takes transfers.
    pub takes_transfers: bool,
    /// Where tunnels to it end.
    #[serde(default)]
    pub tunnels: TunnelEnds,
    /// The MTU that its interface toward peers may be raised to; none: it does not raise any (`node.set_mtu`).
    pub mtu_offered: Option<u32>,
    /// The MTU that this interface has now and keeps, as far as is known.
    pub mtu_taken: Option<u32>,
}

/// Where tunnels to a node end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEnds {
    /// None if it has no WireGuard.
    pub wireguard: Option<WireGuardEnd>,
    /// None if it has no VXLAN.
    pub vxlan: Option<VxlanEnd>,
}

/// Where WireGuard to a node ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuardEnd {
    /// In Base64: the current one, and the next one if it will change.
    pub public_keys: Vec<String>,
    /// Its address inside.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Where to send to, if not to that port of the address at which the node is found.
    pub endpoint: Option<SocketAddr>,
}

/// Where VXLAN to a node ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanEnd {
    /// The network's number.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Its address in what carries the packets: WireGuard's inside, or the node's own.
    pub address: IpAddr,
}

/// What agents send each other after that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// Something about the sender has changed.
    Greeting(Greeting),
    /// How the sender reaches others.
    Paths(Vec<Path>),
}

/// How one node reaches another, as it has measured.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// The other node.
    pub to: String,
    /// Smoothed round-trip time.
    pub rtt_ms: f64,
    /// The smallest one seen.
    pub rtt_min_ms: f64,
    /// Mean deviation of the time between datagrams (RFC 3550); none where no datagrams are exchanged.
    pub jitter_ms: Option<f64>,
    /// Lost of what was sent, 0 to 1: of datagrams where they are exchanged, else of TCP's bytes.
    pub loss_ratio: f64,
    /// Largest datagram that was seen to arrive, as an IP packet in bytes; else what the kernel believes of TCP's.
    pub mtu_bytes: Option<u32>,
}

/// The agent (`GET /v1/node`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it says of itself.
    pub greeting: Greeting,
    /// Process id.
    pub pid: u32,
    /// Since it began.
    pub uptime_seconds: f64,
    /// Where it listens for DWCP.
    pub listen: String,
    /// Where it takes datagrams.
    pub datagrams: Option<String>,
    /// Peers that it is connected to.
    pub peers_connected: usize,
    /// Addresses at which a peer should be and none was found.
    pub peers_missing: usize,
    /// Transfers under way.
    pub transfers_running: usize,
}

/// A peer, or an address at which one should be (`GET /v1/peers`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What it says of itself, if it was ever reached.
    pub greeting: Option<Greeting>,
    /// Where it was looked for; none if it came by itself.
    pub target: Option<String>,
    /// Of its first link.
    pub address: Option<String>,
    /// Names of its certificate; none without TLS.
    pub names: Vec<String>,
    /// Who connected.
    pub dialed_by_us: bool,
    /// Since the connection was made; none while there is none.
    pub connected_seconds: Option<f64>,
    /// How it is reached.
    pub path: Option<Path>,
    /// Links that are up, by what carries them (`tcp`, `rdma`).
    pub links: Vec<String>,
    /// Why there is no connection.
    pub error: Option<String>,
}

/// A node's measurements of its paths (`GET /v1/paths`).
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    pub from: String,
    /// Its region.
    pub region: Option<String>,
    /// Since they were made.
    pub age_seconds: f64,
    /// To which others.
    pub paths: Vec<Path>,
}

/// A transfer (`GET /v1/transfers`).
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Names it in this process.
    pub id: u64,
    /// What it was asked for with.
    #[serde(default)]
    pub key: Option<String>,
    /// `send` or `receive`.
    pub direction: Direction,
    /// The other node.
    pub peer: String,
    /// What is sent.
    pub from: Option<String>,
    /// What it is called at the receiver.
    pub to: Option<String>,
    /// How it goes.
    pub state: TransferState,
    /// Why it has failed; while it runs, why the last attempt did.
    pub error: Option<String>,
    /// How often it was begun again after an interruption.
    pub attempts: u32,
    /// Content seen so far.
    pub bytes_total: u64,
    /// Content dealt with.
    pub bytes_done: u64,
    /// Content that went over the wire.
    pub bytes_moved: u64,
    /// Content that was there already.
    pub bytes_skipped: u64,
    /// Files and folders that failed.
    pub failures: u64,
    /// Since it began, to its end if it has ended.
    pub seconds: f64,
}

/// Which way content goes.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From this node.
    Send,
    /// To this node.
    Receive,
}

/// How a transfer goes.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// It runs.
    Running,
    /// Everything is there.
    Done,
    /// It has ended, and something is not there.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
}

/// Asks for a transfer (`POST /v1/transfers`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// The name of a peer.
    pub peer: String,
    /// Absolute path on this node, or one below its `transfers.from`.
    pub from: String,
    /// What it is called below the receiver's folder; the last part of `from` if not given.
    pub to: Option<String>,
    /// Compare content, not only size and time, before a file counts as there.
    #[serde(default)]
    pub checksum: bool,
    /// Names the transfer for whoever asks for it: asked again with the same key, one that runs or is done is answered, and
    /// none is begun. At most [`TRANSFER_KEY_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a guard in XDP counts (`GET /v1/xdp`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// The interface.
    pub interface: String,
    /// `native` or `generic`; none if it is not guarded.
    pub mode: Option<String>,
    /// Why not, or why not native.
    pub reason: Option<String>,
    /// Packets by what became of them.
    pub packets: std::collections::BTreeMap<String, u64>,
    /// Datagrams that were sent through its AF_XDP sockets.
    #[serde(default)]
    pub sent: u64,
}

/// Tunnels of a node (`GET /v1/tunnels`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tunnels {
    /// None if it is off.
    pub wireguard: Option<WireGuard>,
    /// None if it is off.
    pub vxlan: Option<Vxlan>,
    /// Peers that have no tunnel, and why.
    pub refused: Vec<RefusedPeer>,
}

/// A WireGuard interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireGuard {
    /// Its name.
    pub interface: String,
    /// `kernel` or `user space`; none if it is not there.
    pub implementation: Option<String>,
    /// Why it is not there, or not as it should be.
    pub error: Option<String>,
    /// This node's end.
    pub end: WireGuardEnd,
    /// Until the next key is the current one; none if none was announced.
    pub next_key_in_seconds: Option<f64>,
    /// The other ends.
    pub peers: Vec<WireGuardPeer>,
}

/// The other end of a WireGuard tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireGuardPeer {
    /// The node.
    pub name: String,
    /// The key that packets to it are sent under, in Base64.
    pub public_key: String,
    /// Where they are sent.
    pub endpoint: Option<SocketAddr>,
    /// Since the last handshake; none if there was none.
    pub handshake_age_seconds: Option<f64>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// A VXLAN interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vxlan {
    /// Its name.
    pub interface: String,
    /// Why it is not there, or not as it should be.
    pub error: Option<String>,
    /// This node's end.
    pub end: VxlanEnd,
    /// Of the interface, in bytes.
    pub mtu_bytes: u32,
    /// The other ends.
    pub peers: Vec<IpAddr>,
}

/// A peer without a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPeer {
    /// The node.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A sysctl or an interface that tuning is about (`GET /v1/tune`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuned {
    /// Which.
    pub item: String,
    /// What became of it, or would.
    pub state: TunedState,
    /// In words, with values.
    pub detail: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunedState {
    /// It would be changed if `node.tune` were on.
    WouldSet,
    /// It was changed.
    Set,
    /// It is as wanted, or better.
    Already,
    /// It cannot be changed.
    Cannot,
    /// It is what it was before an earlier process changed it.
    Restored,
    /// Somebody else has changed it meanwhile.
    Left,
}

/// Something that a node can do, or not (`GET /v1/capabilities`).
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// What.
    pub name: String,
    /// Whether.
    pub state: Ability,
    /// How, or why not and what would change that.
    pub detail: String,
}

/// Whether a node can do something.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// In full.
    Yes,
    /// With less than the best.
    Degraded,
    /// Not at all.
    No,
    /// That cannot be told.
    Unknown,
}

/// Why a request of the control API was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In words.
    pub error: String,
}
