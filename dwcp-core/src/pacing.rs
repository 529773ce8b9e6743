//! The pacing limit: one for all links of a connection together, what is configured or what the link controller found
//! ([`LinkController::pacing_ceiling`](crate::adapt::LinkController::pacing_ceiling)), whichever is less.
//!
//! It is divided evenly, anew with each link that comes or goes, under the connection's state lock and before the new
//! link may send: at no moment do the limits of the links add up to more. Not counted is what a lost link leaves in its
//! kernel's buffer, which still goes out at the rate that it had.

use std::sync::{Arc, atomic::Ordering};

use dwcp_sys::options;

use crate::{link::Link, shared::State};

/// Bytes per second of all links together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pacing {
    /// Configured.
    pub(crate) limit: Option<u64>,
    /// Of the link controller.
    pub(crate) ceiling: Option<u64>,
}

impl State {
    /// Gives each link its share. The newest is last in the list: the others have made room by then.
    pub(crate) fn divide_pacing(&self) {
        let limit = self.pacing.limit.into_iter().chain(self.pacing.ceiling).min();
        let share = limit.map_or(0, |limit| (limit / self.links.len().max(1) as u64).max(1));
        self.links.iter().for_each(|link| pace(link, share));
    }

    /// What the controller thinks that all links together should send at most.
    pub(crate) fn set_pacing_ceiling(&mut self, ceiling: Option<u64>) {
        if self.pacing.ceiling != ceiling {
            self.pacing.ceiling = ceiling;
            self.divide_pacing();
        }
    }
}

/// `share`: bytes per second, 0 for no limit.
fn pace(link: &Arc<Link>, share: u64) {
    if link.paced_at.swap(share, Ordering::Relaxed) != share
        && let Err(error) =
            options::set_max_pacing_rate(link.socket.tcp(), Some(share).filter(|&share| share > 0))
    {
        tracing::warn!(link = link.id.0, %error, "pacing is not available");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32},
        time::{Duration, Instant},
    };

    use bytes::Bytes;

    use super::*;
    use crate::{CompressionConfig, Connection, Endpoint, EndpointConfig, shared::Shared};

    /// Only a hang reaches it.
    const PATIENCE: Duration = Duration::from_secs(120);

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
