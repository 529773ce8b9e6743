//! One program of all tests that can share a process: linking each on its own took longer than running them.

#![allow(clippy::duplicate_mod)] // bodies in `fuzz` are crates of their own, and tests share some of what they have

mod auth;
mod check;
mod fuzz_corpus;
mod gaps;
mod model;
mod regions;
mod short_reads;
