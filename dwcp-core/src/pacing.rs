//! The pacing limit: one for all links of a connection together, what is configured or what the link controller found
//! ([`LinkController::pacing_ceiling`](crate::adapt::LinkController::pacing_ceiling)), whichever is less.
//!
//! The limit is divided evenly, anew with each link that comes or goes, under the connection's state lock and before the new
//! link may send: at no moment do the limits of the links add up to more. Not counted is what a lost link leaves in its
//! kernel's buffer, which still goes out at the rate that it had.

use std::{sync::atomic::Ordering, time::Duration};

use dwcp_sys::{SocketError, options};

use crate::{adapt::ceiling::HEADROOM, link::Link, shared::State};

/// Bytes per second of all links together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pacing {
    /// Configured.
    pub(crate) limit: Option<u64>,
    /// Of the link controller.
    pub(crate) ceiling: Option<u64>,
}

/// Changes of a link's part of the ceiling by less than this share are not worth a system call.
const STEP: f64 = 0.02;
/// Weight of the newest sample in what a link carries.
const CARRIED_WEIGHT: f64 = 0.1;

impl Pacing {
    /// What is in force, for people.
    pub(crate) fn decision(self) -> String {
        let (rate, why) = match (self.limit, self.ceiling) {
            (None, None) => return "none".to_owned(),
            (Some(limit), ceiling) if ceiling.is_none_or(|ceiling| limit <= ceiling) => (limit, "configured"),
            (_, ceiling) => (ceiling.unwrap_or_default(), "a little more than the links carry together"),
        };
        format!("{:.1} Mbit/s: {why}", rate as f64 * 8.0 / 1e6)
    }

    /// Bytes per second of one of so many links, 0 for no limit. Of the limit all get the same; of the ceiling one that
    /// carries more gets more, or it could never carry what others cannot.
    fn share(self, links: usize, carried: u64) -> u64 {
        let even = |rate: u64| (rate / links.max(1) as u64).max(1);
        let more = (HEADROOM * carried as f64) as u64;
        let ceiling = self.ceiling.map(|ceiling| even(ceiling).max(more));
        self.limit.map(even).into_iter().chain(ceiling).min().unwrap_or(0)
    }
}

impl State {
    /// Gives each link its share. The newest is last in the list: the others have made room by then.
    pub(crate) fn divide_pacing(&self) {
        for link in &self.links {
            let share = self.pacing.share(self.links.len(), link.carried.load(Ordering::Relaxed));
            let before = link.paced_at.load(Ordering::Relaxed);
            let little = (share as f64 / before as f64 - 1.0).abs() < STEP;
            // The configured limit is kept to the byte.
            let configured = self.pacing.limit.is_some();
            if before == share || (little && !configured) {
                continue;
            }
            match pace(link, share) {
                Ok(_) => {}
                Err(error) if configured => {
                    tracing::warn!(link = link.id.0, %error, "the pacing limit is not in force");
                }
                Err(error) => tracing::debug!(link = link.id.0, %error, "not paced"),
            }
        }
    }

    /// What the controller thinks that all links together should send at most. To be called with each sample.
    pub(crate) fn set_pacing_ceiling(&mut self, ceiling: Option<u64>) {
        if ceiling.is_some() || self.pacing.ceiling.is_some() {
            self.pacing.ceiling = ceiling;
            self.divide_pacing();
        }
    }
}

impl Link {
    /// Takes note of what was sent since the last sample.
    pub(crate) fn measure_carried(&self, elapsed: Duration) {
        let sent = self.wire_sent.load(Ordering::Relaxed);
        let moved = sent - self.measured.swap(sent, Ordering::Relaxed);
        let rate = moved as f64 / elapsed.as_secs_f64().max(1e-3);
        let before = self.carried.load(Ordering::Relaxed) as f64;
        self.carried.store((before + CARRIED_WEIGHT * (rate - before)) as u64, Ordering::Relaxed);
    }
}

/// `share`: bytes per second, 0 for no limit.
fn pace(link: &Link, share: u64) -> Result<Option<u64>, SocketError> {
    link.paced_at.store(share, Ordering::Relaxed);
    options::set_max_pacing_rate(link.socket.tcp(), Some(share).filter(|&share| share > 0))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU32},
        },
        time::Instant,
    };

    use bytes::Bytes;

    use super::*;
    use crate::{CompressionConfig, Connection, Endpoint, EndpointConfig, shared::Shared};

    /// Only a hang reaches it.
    const PATIENCE: Duration = Duration::from_secs(120);

    #[test]
    fn a_ceiling_leaves_more_to_who_carries_more_and_a_limit_does_not() {
        let pacing = |limit, ceiling| Pacing { limit, ceiling };
        assert_eq!(pacing(None, None).share(4, 500), 0);
        assert_eq!(pacing(None, Some(400)).share(4, 50), 100);
        assert_eq!(pacing(None, Some(400)).share(4, 200), 220);
        assert_eq!(pacing(Some(400), None).share(4, 200), 100);
        assert_eq!(pacing(Some(400), Some(800)).share(4, 200), 100);
        assert_eq!(pacing(Some(400), Some(200)).share(4, 10), 50);
        assert_eq!(pacing(Some(80_000_000), Some(90_000_000)).decision(), "640.0 Mbit/s: configured");
        assert!(pacing(None, Some(12_500_000)).decision().starts_with("100.0 Mbit/s: a little more"));
        assert_eq!(pacing(None, None).decision(), "none");
    }

    async fn pair(links: u16, limit: u64) -> (Connection, Connection) {
        let settings = |name: &str, links| {
            let mut config = EndpointConfig::new(name);
            config.compression = CompressionConfig::NONE;
            config.transport.streams.initial = links;
            config.transport.pacing_bytes_per_second = Some(limit);
            config
        };
        let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), settings("server", 1)).await.unwrap();
        let client = Endpoint::client(settings("client", links)).unwrap();
        let addr = server.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(client.connect(addr, "server"), server.accept());
        (connected.unwrap(), accepted.unwrap())
    }

    /// The sum of the limits that the kernel has, and of how many links.
    fn limits(shared: &Shared) -> (u64, usize) {
        let state = shared.lock();
        let limit = |link: &Arc<Link>| {
            let limit = options::max_pacing_rate(link.socket.tcp()).unwrap();
            limit.unwrap_or_else(|| panic!("link {} has no limit", link.id.0))
        };
        (state.links.iter().map(limit).sum(), state.links.len())
    }

    /// Links are retired and lost, one after the other in the order of their making, and replaced by the dialer.
    async fn replace_links(a: &Connection, count: u32, made: &AtomicU32) {
        let shared = a.shared();
        for id in 0..count {
            let link = loop {
                let links = shared.lock().links.clone();
                made.fetch_max(links.iter().map(|link| link.id.0 + 1).max().unwrap_or(0), Ordering::SeqCst);
                if links.len() > 1
                    && let Some(link) = links.into_iter().find(|link| link.id.0 >= id)
                {
                    break link;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            match id % 3 {
                0 => shared.link_failed(&link, &"the test"),
                _ => a.retire_link(link.id.0),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_limits_of_the_links_never_add_up_to_more_than_the_limit() {
        const LIMIT: u64 = (64 << 20) + 1;
        let (a, b) = pair(4, LIMIT).await;
        let over = Arc::new(AtomicBool::new(false));
        let watching = [&a, &b].map(|side| {
            let (side, over) = (side.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut counts = std::collections::BTreeSet::new();
                while !over.load(Ordering::SeqCst) {
                    let (sum, links) = limits(side.shared());
                    assert!(sum <= LIMIT, "{links} links may send {sum} bytes a second");
                    assert!(links == 0 || sum > LIMIT - links as u64, "{links} links may send {sum} only");
                    counts.insert(links);
                    tokio::task::yield_now().await;
                }
                counts
            })
        });
        let made = AtomicU32::new(0);
        tokio::time::timeout(PATIENCE, replace_links(&a, 60, &made)).await.expect("links come and go");
        over.store(true, Ordering::SeqCst);
        for watching in watching {
            let counts = watching.await.unwrap();
            println!("{counts:?} links at a time");
            assert!(!counts.is_empty());
        }
    }

    /// An upper bound only: on a slow machine less moves in more time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_moves_than_the_limit_allows_while_links_change() {
        const LIMIT: u64 = 8 << 20;
        const LEN: u64 = 40 << 20;
        /// Linux does not pace the first ten segments of a socket (`tcp_update_skb_after_send`), up to 64 KiB each on
        /// loopback; as much again for what a timer that is late makes up for.
        const UNPACED: u64 = 20 * (64 << 10);
        let (a, b) = pair(3, LIMIT).await;
        let (began, before) = (Instant::now(), b.stats().wire_bytes_received);
        let writing = tokio::spawn({
            let a = a.clone();
            async move {
                let (mut send, _recv) = a.open_stream().await.unwrap();
                send.write_bytes(Bytes::from(vec![7; LEN as usize])).await.unwrap();
                send.finish().unwrap();
                send.acknowledged().await.unwrap();
            }
        });
        let reading = tokio::spawn({
            let b = b.clone();
            async move {
                let (_send, mut recv) = b.accept_stream().await.unwrap();
                while recv.read_chunk().await.unwrap().is_some() {}
            }
        });
        let made = AtomicU32::new(0);
        tokio::time::timeout(PATIENCE, replace_links(&a, 6, &made)).await.expect("links come and go");
        reading.await.unwrap();
        let (moved, seconds) = (b.stats().wire_bytes_received - before, began.elapsed().as_secs_f64());
        writing.await.unwrap();
        assert!(moved >= LEN);
        // The dialer may have made more since.
        let made = u64::from(made.load(Ordering::SeqCst) + 4);
        let allowed = (1.25 * LIMIT as f64 * seconds) as u64 + made * UNPACED;
        println!("{moved} bytes in {seconds:.1} s over {made} links, {allowed} allowed");
        assert!(moved <= allowed, "{moved} bytes in {seconds} s over {made} links, {allowed} allowed");
    }
}
