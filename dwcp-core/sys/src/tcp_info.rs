//! What the kernel knows about a connection: `TCP_INFO` and BBR's part of `TCP_CC_INFO`.
//!
//! Source: Linux `include/uapi/linux/tcp.h` (`struct tcp_info`) and `inet_diag.h`
//! (`struct tcp_bbr_info`). The kernel only ever appends to `tcp_info`; fields that an older
//! kernel does not fill read as zero or `None`.

use std::{mem, os::fd::AsFd};

use crate::{SocketError, congestion, sockopt};

/// A sample of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// State of the connection; 1 is established (`include/net/tcp_states.h`).
    pub state: u8,
    /// What the sender thinks of the path.
    pub ca_state: CaState,
    /// Smoothed round-trip time, microseconds; 0 before the first sample.
    pub rtt_us: u32,
    /// Mean deviation of the round-trip time, microseconds.
    pub rttvar_us: u32,
    /// Smallest round-trip time of the kernel's window (5 minutes), microseconds.
    pub rtt_min_us: Option<u32>,
    /// Retransmission timeout, microseconds.
    pub rto_us: u32,
    /// Congestion window, segments of `snd_mss`.
    pub snd_cwnd: u32,
    /// Payload bytes of a full segment.
    pub snd_mss: u32,
    /// Largest IP packet that the kernel believes to fit the path, bytes; 0 if it does not say.
    pub path_mtu: u32,
    /// Segments sent and not yet acknowledged.
    pub unacked: u32,
    /// Segments now believed lost and not acknowledged yet, sent again or not.
    pub lost: u32,
    /// Repeated segments that are on their way now.
    pub retrans: u32,
    /// Segments retransmitted since the connection began.
    pub retransmits_total: u32,
    /// Segments sent, retransmissions and bare acknowledgements included.
    pub segs_out: u32,
    /// Data segments delivered to the peer.
    pub delivered: u32,
    /// Of these, the ones the path marked with Congestion Experienced.
    pub delivered_ce: u32,
    /// Duplicates the peer reported: retransmissions that were not needed.
    pub dsack_dups: u32,
    /// Reordering events seen.
    pub reord_seen: u32,
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Payload bytes retransmitted.
    pub bytes_retrans: u64,
    /// Payload bytes the peer has acknowledged.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Bytes in the socket not sent even once.
    pub notsent_bytes: u32,
    /// Most recent delivery rate sample, bytes per second; 0 before the first.
    pub delivery_rate: u64,
    /// That sample was limited by the application, not by the path.
    pub delivery_rate_app_limited: bool,
    /// Pacing rate in force, bytes per second; `None` if unpaced.
    pub pacing_rate: Option<u64>,
    /// Time with data to send or unacknowledged, microseconds since the connection began.
    pub busy_time_us: u64,
    /// Of that, time limited by the peer's receive window, microseconds.
    pub rwnd_limited_us: u64,
    /// Of that, time limited by our send buffer, microseconds.
    pub sndbuf_limited_us: u64,
}

/// State of loss recovery (`enum tcp_ca_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaState {
    /// Nothing suspicious.
    Open,
    /// Duplicate acknowledgements, not yet taken for loss.
    Disorder,
    /// Reducing the window after an ECN mark or local congestion.
    Cwr,
    /// Fast retransmit.
    Recovery,
    /// After a retransmission timeout.
    Loss,
    /// One that this code does not know.
    Unknown(u8),
}

/// BBR's model of the path.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BbrInfo {
    /// Bottleneck bandwidth estimate, bytes per second.
    pub bandwidth: u64,
    /// Propagation delay estimate, microseconds.
    pub min_rtt_us: u32,
    /// Pacing rate over bandwidth (2.89 while starting up, then around 1).
    pub pacing_gain: f32,
    /// Congestion window over bandwidth-delay product.
    pub cwnd_gain: f32,
}

/// Samples `TCP_INFO`; about a microsecond, takes the socket's lock.
pub fn sample(fd: impl AsFd) -> Result<TcpInfo, SocketError> {
    let mut raw = RawTcpInfo::default();
    sockopt::get(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut raw)
        .map_err(SocketError::in_call("getsockopt(TCP_INFO)"))?;
    Ok(raw.into())
}

impl TcpInfo {
    /// Payload bytes found to be lost so far: those that were sent again, and those marked lost that were not yet.
    ///
    /// A segment stays in `tcpi_lost` while its repetition is on its way (`tcpi_retrans`), and the bytes of that are in
    /// `tcpi_bytes_retrans` already; a repetition that is lost again leaves `tcpi_retrans` (`tcp_mark_skb_lost`). A
    /// segment repeated without need (`tcpi_dsack_dups`) counts as lost.
    pub fn bytes_lost(&self) -> u64 {
        let to_repeat = self.lost.saturating_sub(self.retrans);
        self.bytes_retrans + u64::from(to_repeat) * u64::from(self.snd_mss)
    }

    /// [`bytes_lost`](Self::bytes_lost) over `bytes_sent`, 0.0..=1.0.
    pub fn loss_ratio(&self) -> f64 {
        (self.bytes_lost() as f64 / self.bytes_sent.max(1) as f64).min(1.0)
    }
}

/// BBR's model, or `None` if the socket does not use BBR.
pub fn cc_info(fd: impl AsFd) -> Option<BbrInfo> {
    let fd = fd.as_fd();
    // Other algorithms answer with structures of the same or another size, so size proves nothing.
    if !congestion::get(fd).is_ok_and(|name| name == "bbr") {
        return None;
    }
    let mut raw = RawBbrInfo::default();
    let len = sockopt::get(fd, libc::IPPROTO_TCP, libc::TCP_CC_INFO, &mut raw).ok()?;
    (len == size_of::<RawBbrInfo>()).then(|| BbrInfo {
        bandwidth: u64::from(raw.bw_hi) << 32 | u64::from(raw.bw_lo),
        min_rtt_us: raw.min_rtt,
        pacing_gain: raw.pacing_gain as f32 / 256.0,
        cwnd_gain: raw.cwnd_gain as f32 / 256.0,
    })
}

/// `struct tcp_info` up to and including `tcpi_reord_seen` (Linux 4.19).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawTcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    /// `snd_wscale:4, rcv_wscale:4`
    wscale: u8,
    /// `delivery_rate_app_limited:1, fastopen_client_fail:2`
    flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
}

// 8 bytes of u8, 24 u32, 4 u64, 6 u32, 4 u64, 2 u32, 2 u64, 2 u32: without padding.
const _: () = assert!(size_of::<RawTcpInfo>() == 8 + 34 * 4 + 10 * 8);
const _: () = assert!(mem::offset_of!(RawTcpInfo, pacing_rate) == 104);
const _: () = assert!(mem::offset_of!(RawTcpInfo, delivery_rate) == 160);

// SAFETY: integers only, and the assertion above shows that there is no padding.
unsafe impl sockopt::Plain for RawTcpInfo {}

/// `struct tcp_bbr_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawBbrInfo {
    bw_lo: u32,
    bw_hi: u32,
    min_rtt: u32,
    pacing_gain: u32,
    cwnd_gain: u32,
}

const _: () = assert!(size_of::<RawBbrInfo>() == 5 * 4);

// SAFETY: integers only, and the assertion above shows that there is no padding.
unsafe impl sockopt::Plain for RawBbrInfo {}

impl From<RawTcpInfo> for TcpInfo {
    fn from(raw: RawTcpInfo) -> Self {
        Self {
            state: raw.state,
            ca_state: raw.ca_state.into(),
            rtt_us: raw.rtt,
            rttvar_us: raw.rttvar,
            // The kernel starts from ~0; an old one leaves our 0.
            rtt_min_us: Some(raw.min_rtt).filter(|&rtt| rtt != 0 && rtt != u32::MAX),
            rto_us: raw.rto,
            snd_cwnd: raw.snd_cwnd,
            snd_mss: raw.snd_mss,
            path_mtu: raw.pmtu,
            unacked: raw.unacked,
            lost: raw.lost,
            retrans: raw.retrans,
            retransmits_total: raw.total_retrans,
            segs_out: raw.segs_out,
            delivered: raw.delivered,
            delivered_ce: raw.delivered_ce,
            dsack_dups: raw.dsack_dups,
            reord_seen: raw.reord_seen,
            bytes_sent: raw.bytes_sent,
            bytes_retrans: raw.bytes_retrans,
            bytes_acked: raw.bytes_acked,
            bytes_received: raw.bytes_received,
            notsent_bytes: raw.notsent_bytes,
            delivery_rate: raw.delivery_rate,
            delivery_rate_app_limited: raw.flags & 1 != 0,
            pacing_rate: Some(raw.pacing_rate).filter(|&rate| rate != 0 && rate != u64::MAX),
            busy_time_us: raw.busy_time,
            rwnd_limited_us: raw.rwnd_limited,
            sndbuf_limited_us: raw.sndbuf_limited,
        }
    }
}

impl From<u8> for CaState {
    fn from(raw: u8) -> Self {
        match raw {
            0 => Self::Open,
            1 => Self::Disorder,
            2 => Self::Cwr,
            3 => Self::Recovery,
            4 => Self::Loss,
            other => Self::Unknown(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::loopback::connected_pair;

    #[test]
    fn a_sample_agrees_with_what_was_moved() {
        // Several ticks of the coarsest clock the kernel counts busy time with, on the fastest machine.
        const BYTES: usize = 128 << 20;
        let chunk = vec![7; 1 << 20];
        let (mut a, mut b) = connected_pair();
        let writer = std::thread::spawn(move || {
            for _ in 0..BYTES / chunk.len() {
                a.write_all(&chunk).unwrap();
            }
            let mut ack = [0];
            a.read_exact(&mut ack).unwrap();
            a
        });
        std::io::copy(&mut (&mut b).take(BYTES as u64), &mut std::io::sink()).unwrap();
        b.write_all(&[1]).unwrap();
        let a = writer.join().unwrap();

        let sent = sample(&a).unwrap();
        assert_eq!(sent.state, 1);
        assert_eq!(sent.bytes_sent - sent.bytes_retrans, BYTES as u64);
        // The kernel counts the SYN's sequence number into bytes_acked.
        assert!(sent.bytes_acked.abs_diff(BYTES as u64) <= 1, "{sent:?}");
        assert_eq!(sent.bytes_received, 1);
        assert_eq!((sent.unacked, sent.notsent_bytes), (0, 0));
        // The bounds are far from any machine's loopback, but would show a field that is another.
        assert!(sent.rtt_us > 0 && sent.rtt_us < 60_000_000, "{sent:?}");
        assert!(sent.rtt_min_us.is_some_and(|rtt| rtt <= sent.rtt_us.max(60_000_000)), "{sent:?}");
        assert!(sent.snd_cwnd > 0 && sent.snd_mss > 500 && sent.segs_out > 0, "{sent:?}");
        assert!(
            sent.path_mtu > sent.snd_mss && sent.path_mtu <= sent.snd_mss + 120,
            "headers only: {sent:?}"
        );
        assert!(sent.delivery_rate > 0 && sent.busy_time_us > 0, "{sent:?}");
        assert!(sent.rto_us >= 1000, "{sent:?}");
        // A machine that stops for a while makes the kernel send again.
        assert!(sent.ca_state == CaState::Open || sent.bytes_retrans > 0, "{sent:?}");
        assert_eq!(sample(&b).unwrap().bytes_received, BYTES as u64);
    }

    #[test]
    fn fields_an_older_kernel_does_not_fill_are_absent() {
        let info = TcpInfo::from(RawTcpInfo { state: 1, rtt: 40_000, ..RawTcpInfo::default() });
        assert_eq!((info.rtt_us, info.rtt_min_us, info.pacing_rate), (40_000, None, None));
        assert_eq!(info.delivery_rate, 0);
    }

    #[test]
    fn each_loss_counts_once() {
        let info = |lost, retrans, bytes_retrans| {
            let raw = RawTcpInfo {
                snd_mss: 1000,
                bytes_sent: 100_000,
                lost,
                retrans,
                bytes_retrans,
                ..RawTcpInfo::default()
            };
            let info = TcpInfo::from(raw);
            (info.bytes_lost(), info.loss_ratio())
        };
        assert_eq!(info(0, 0, 0), (0, 0.0));
        assert_eq!(info(3, 0, 0), (3000, 0.03), "marked");
        assert_eq!(info(3, 2, 2000), (3000, 0.03), "two of three sent again");
        assert_eq!(info(0, 0, 3000), (3000, 0.03), "all acknowledged");
        assert_eq!(info(0, 1, 1000), (1000, 0.01), "a probe was sent before anything was marked");
        assert_eq!(
            TcpInfo::from(RawTcpInfo { lost: 2, snd_mss: 1000, ..RawTcpInfo::default() }).loss_ratio(),
            1.0
        );
    }

    #[test]
    fn bbr_tells_its_model_and_cubic_has_none() {
        let (mut a, mut b) = connected_pair();
        if congestion::set(&a, "bbr").is_err() {
            println!("SKIP: this kernel does not offer bbr");
            return;
        }
        let reader = std::thread::spawn(move || b.read_exact(&mut vec![0; 1 << 20]).unwrap());
        a.write_all(&vec![0; 1 << 20]).unwrap();
        reader.join().unwrap();
        let bbr = cc_info(&a).unwrap();
        assert!(bbr.bandwidth > 0 && bbr.pacing_gain > 0.3 && bbr.cwnd_gain >= 1.0, "{bbr:?}");
        if congestion::set(&a, "cubic").is_ok() {
            assert_eq!(cc_info(&a), None);
        }
    }

    #[test]
    fn a_descriptor_that_is_no_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(sample(&file).unwrap_err().call, "getsockopt(TCP_INFO)");
        assert_eq!(cc_info(&file), None);
    }
}
