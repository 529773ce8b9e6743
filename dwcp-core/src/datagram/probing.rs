//! The task that probes a connection's path for as long as the connection lives.

use std::sync::{Arc, PoisonError};

use dwcp_proto::datagram::{HEADER_LEN, Purpose, TAG_LEN};
use tokio::time::{Instant, sleep_until};

use super::{Channel, channel::ANSWER_LEN, service::End};
use crate::shared::Shared;

/// Bytes of a probe that measures: as short as its answer.
const MEASURE_LEN: u16 = (HEADER_LEN + ANSWER_LEN + TAG_LEN) as u16;

/// `end` ends the connection's datagrams, whatever ends this.
pub(super) async fn run(channel: Arc<Channel>, shared: Arc<Shared>, end: End) {
    loop {
        send_due(&channel);
        let due = channel.prober.lock().unwrap_or_else(PoisonError::into_inner).poll_timeout();
        let due = Instant::from_std(channel.instant(due));
        tokio::select! {
            () = sleep_until(due) => {}
            () = channel.probe_due.notified() => {}
            () = shared.wait_closed() => break,
        }
    }
    drop(end);
}

pub(super) fn send_due(channel: &Channel) {
    let mut random = [0; 4];
    // Without randomness probes are a little less spread.
    let _ = getrandom::fill(&mut random);
    loop {
        let due = {
            let mut prober = channel.prober.lock().unwrap_or_else(PoisonError::into_inner);
            prober.poll(channel.now(), u32::from_le_bytes(random))
        };
        let Some(probe) = due else { return };
        let len = match probe.purpose {
            Purpose::Measure => MEASURE_LEN,
            Purpose::Carry(len) => len,
        };
        channel.probe(len, |number| {
            let mut prober = channel.prober.lock().unwrap_or_else(PoisonError::into_inner);
            match number {
                Some(number) => prober.sent(channel.now(), probe, number),
                None => prober.not_sent(),
            }
        });
    }
}
