//! Which send requests are outstanding, and which registered bytes they hold. Pure numbers.
//!
//! Bytes to be sent are copied into a ring, the *staging* memory, and stay there until a request that came later, or
//! their own, has completed. Only some requests are *signalled*, that is, complete visibly: one stands for all before.

use std::collections::VecDeque;

/// Send requests that may be outstanding.
pub(crate) const REQUESTS: u32 = 128;
/// Of these, not for data: credit is given back with them.
pub(crate) const REQUESTS_RESERVED: u64 = 8;
/// One in so many requests is signalled, at least.
const SIGNAL_EVERY: u64 = 16;

#[derive(Debug)]
pub(crate) struct SendQueue {
    staging: u64,
    posted: u64,
    done: u64,
    /// Totals of bytes put into the ring and released from it, gaps at its end included.
    head: u64,
    tail: u64,
    /// `posted` and `head` after the last signalled request.
    signalled: (u64, u64),
    /// Signalled requests that are outstanding, and `head` after each.
    marks: VecDeque<(u64, u64)>,
}

impl SendQueue {
    /// With a ring of so many bytes.
    pub(crate) fn new(staging: usize) -> Self {
        Self {
            staging: staging as u64,
            posted: 0,
            done: 0,
            head: 0,
            tail: 0,
            signalled: (0, 0),
            marks: VecDeque::with_capacity(REQUESTS as usize),
        }
    }

    /// Requests that may be posted.
    pub(crate) fn requests(&self) -> u64 {
        u64::from(REQUESTS) - (self.posted - self.done)
    }

    /// Nothing is outstanding.
    pub(crate) fn is_done(&self) -> bool {
        self.posted == self.done
    }

    /// Free bytes of the ring.
    pub(crate) fn free(&self) -> usize {
        (self.staging - (self.head - self.tail)) as usize
    }

    /// Where the next bytes go, and how many may go there at once.
    pub(crate) fn room(&self) -> (usize, usize) {
        let at = self.head % self.staging;
        (at as usize, self.free().min((self.staging - at) as usize))
    }

    /// Takes so many bytes in a row out of the ring; where they are.
    pub(crate) fn stage(&mut self, len: usize) -> Option<usize> {
        let (at, room) = self.room();
        if len <= room {
            self.head += len as u64;
            return Some(at);
        }
        // Leaves a gap at the end of the ring, if the beginning is free.
        let gap = self.staging as usize - at;
        if gap + len > self.free() {
            return None;
        }
        self.head += (gap + len) as u64;
        Some(0)
    }

    /// Number of the next request, and whether it is signalled. `visibly`: it has to be.
    pub(crate) fn post(&mut self, visibly: bool) -> (u64, bool) {
        assert!(self.requests() > 0, "more requests than the queue pair takes");
        let id = self.posted;
        self.posted += 1;
        let (posted, head) = self.signalled;
        let signalled =
            visibly || self.posted - posted >= SIGNAL_EVERY || self.head - head >= self.staging / 4;
        if signalled {
            self.signalled = (self.posted, self.head);
            self.marks.push_back((id, self.head));
        }
        (id, signalled)
    }

    /// A signalled request has completed. `false`: there was none of this number.
    pub(crate) fn completed(&mut self, id: u64) -> bool {
        while let Some(&(mark, head)) = self.marks.front()
            && mark <= id
        {
            self.marks.pop_front();
            (self.done, self.tail) = (mark + 1, head);
            if mark == id {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_completion_releases_all_before_it() {
        let mut queue = SendQueue::new(1 << 20);
        let mut signalled = Vec::new();
        for n in 0..u64::from(REQUESTS) {
            assert!(queue.stage(100).is_some());
            let (id, is_signalled) = queue.post(false);
            assert_eq!(id, n);
            signalled.extend(is_signalled.then_some(id));
        }
        assert_eq!(queue.requests(), 0);
        assert_eq!(signalled, [15, 31, 47, 63, 79, 95, 111, 127]);
        assert!(queue.completed(31), "that of 15 may come in the same batch");
        assert_eq!((queue.requests(), queue.free()), (32, (1 << 20) - 96 * 100));
        assert!(!queue.completed(31) && !queue.completed(5) && !queue.completed(50));
        assert!(queue.completed(127) && queue.is_done() && queue.free() == 1 << 20);
    }

    /// With any lengths: bytes in use never overlap, and a full ring always has a completion to come.
    #[test]
    fn bytes_in_use_are_in_one_piece_and_not_used_twice() {
        const RING: usize = 1000;
        let mut queue = SendQueue::new(RING);
        let mut in_use: VecDeque<(u64, std::ops::Range<usize>)> = VecDeque::new();
        let mut outstanding = VecDeque::new();
        let mut random = 1_u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let len = (random >> 16) as usize % 200 + 1;
            let may_post = queue.requests() > 0;
            if let Some(at) = may_post.then(|| queue.stage(len)).flatten() {
                assert!(at + len <= RING);
                assert!(in_use.iter().all(|(_, used)| at + len <= used.start || used.end <= at));
                let (id, signalled) = queue.post(false);
                in_use.push_back((id, at..at + len));
                outstanding.extend(signalled.then_some(id));
            } else {
                let id = outstanding.pop_front().expect("nothing would ever be released");
                assert!(queue.completed(id));
                in_use.retain(|&(used, _)| used > id);
            }
        }
    }
}
