//! Datagrams beside the links of a connection: their header, and what each end remembers of them.
//!
//! Owns the header, packet numbers and key phases of a flow at its sender ([`SendFlow`]) and receiver ([`RecvFlow`]), the
//! replay window, and what probes tell of the path ([`PathProber`]). Keys, sockets, addresses and clocks are not here:
//! flows get their keys as [`SealingKeys`] and [`OpeningKeys`], time is an argument. Specification:
//! `docs/spec/datagram-1.md`.

mod flow;
mod header;
mod mtu;
mod probe;
mod rtt;
mod window;

pub use flow::{
    DATAGRAMS_PER_KEY_MAX, FORGED_MAX, KeyChoice, Limits, Opened, OpeningKeys, PROBES_RESERVED, RecvFlow,
    RecvRefused, SealingKeys, SendFlow, SendRefused, UPDATE_AFTER,
};
pub use header::{
    DatagramError, DatagramHeader, DatagramType, HEADER_LEN, MAGIC, NUMBER_END, PAYLOAD_LEN_MAX, TAG_LEN,
    VERSION,
};
pub use mtu::{BASE_LEN, BLACK_HOLE_PROBES, CONFIRM_INTERVAL, LEN_MAX, PathMtu, RAISE_INTERVAL, SEARCH_STEP};
pub use probe::{LOSS_WINDOW, PROBE_TIMEOUT_MAX, PROBE_TIMEOUT_MIN, PathProber, Probe, Purpose};
pub use rtt::Rtt;
pub use window::{Place, REPLAY_WINDOW, ReplayWindow};
