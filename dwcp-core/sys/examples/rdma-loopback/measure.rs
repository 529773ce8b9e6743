//! What a stream carries: bulk until the peer has read it all, and round trips, without looking at the bytes, as the
//! verbs tools do not either.

use std::time::Instant;

use dwcp_sys::rdma::RdmaStream;

use crate::{
    BLOCK, Result,
    blocking::{read_end, read_exact, shut_down, until_ready, write_all},
};

const BULK: usize = 24 << 20;
const ROUND_TRIPS: usize = 400;
const MESSAGE_LEN: usize = 64;

/// Prints the median round trip, and the rate of bulk.
pub(crate) fn measure(mut stream: RdmaStream) -> Result<()> {
    let mut message = [7; MESSAGE_LEN];
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        write_all(&mut stream, &message)?;
        read_exact(&mut stream, &mut message)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!("round_trip_us {:.1}", times[times.len() / 2].as_secs_f64() * 1e6);
    let block = vec![7; BLOCK];
    let started = Instant::now();
    for _ in 0..BULK / BLOCK {
        write_all(&mut stream, &block)?;
    }
    read_exact(&mut stream, &mut message)?;
    println!("bulk_mib_s {:.1}", BULK as f64 / started.elapsed().as_secs_f64() / (1 << 20) as f64);
    until_ready(&mut stream, RdmaStream::shutdown_write)?;
    // The other end leaves last: whoever destroys its queue pair first leaves the other's last request unanswered.
    read_end(&mut stream)
}

/// The other end.
pub(crate) fn answer(mut stream: RdmaStream) -> Result<()> {
    let mut message = [0; MESSAGE_LEN];
    for _ in 0..ROUND_TRIPS {
        read_exact(&mut stream, &mut message)?;
        write_all(&mut stream, &message)?;
    }
    let mut block = vec![0; BLOCK];
    for _ in 0..BULK / BLOCK {
        read_exact(&mut stream, &mut block)?;
    }
    write_all(&mut stream, &message)?;
    read_end(&mut stream)?;
    shut_down(&mut stream)
}
