//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod damage;
mod recycled;
mod scrub;
