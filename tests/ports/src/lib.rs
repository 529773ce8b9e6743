//! Ports for servers that a test or a bench starts, and whose port it has to know before they run.
//!
//! A port that the system gave for a moment is one of those that it gives to connections, too: between its release and the
//! server's start somebody else may have it. These lie below that range, and no two callers in a process get the same. Two
//! processes start at different places; nothing keeps a third program from taking one, as nothing ever does.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Above what services are registered for by custom, and below Linux' `ip_local_port_range`.
const RANGE: Range<u16> = 12_000..32_000;

/// `count` ports of loopback, one after the other, on which nothing listens.
///
/// # Panics
///
/// If there is no such run of ports.
pub fn free(count: u16) -> Vec<u16> {
    /// Spreads processes, whose ids mostly follow each other, over the range (the golden ratio's part of it).
    const STRIDE: u32 = 12_361;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let places = u32::from(RANGE.end - RANGE.start);
    for _ in 0..places {
        let taken = TAKEN.fetch_add(u32::from(count), Ordering::Relaxed);
        let place = process::id().wrapping_mul(STRIDE).wrapping_add(taken) % places;
        let start = RANGE.start + u16::try_from(place).expect("within the range");
        let ports = start..start + count;
        if ports.end <= RANGE.end
            && ports.clone().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        {
            return ports.collect();
        }
    }
    panic!("no {count} free ports in {RANGE:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn nobody_gets_a_port_twice_or_one_in_use() {
        let first = free(202);
        assert!(first.is_sorted() && first.iter().all(|port| RANGE.contains(port)));
        // In the way of the next.
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, first[201] + 2));
        let more: Vec<_> = (0..20).flat_map(|_| free(3)).collect();
        let distinct: HashSet<_> = first.iter().chain(&more).collect();
        assert_eq!(distinct.len(), first.len() + more.len());
        assert!(!more.contains(&(first[201] + 2)));
    }
}
