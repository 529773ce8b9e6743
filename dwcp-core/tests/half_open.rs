//! Ten thousand peers that begin a handshake and never go on. A file of its own, because it looks at the memory and
//! needs most descriptors of the whole process: both ends of each socket are in it.

mod crowd;

use crowd::{HALF_OPEN, HANDSHAKES_MAX, config, keeps_nobody_out};
use dwcp_proto::frame::{FrameHeader, FrameType};

/// Less than a kilobyte for each of our sockets, and some for each handshake.
const GROWTH_MAX: u64 = HALF_OPEN * 1024 + HANDSHAKES_MAX * (16 << 10);

// DWCP-4.1: the number of handshakes that are under way is bounded.
#[tokio::test]
async fn ten_thousand_half_open_handshakes_keep_nobody_out() {
    let begin = &FrameHeader::new(FrameType::Hello).encode()[..20];
    keeps_nobody_out(config("server"), || config("honest"), &[begin], GROWTH_MAX).await;
}
