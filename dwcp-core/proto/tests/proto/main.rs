//! One program of all tests that can share a process: linking each on its own took longer than running them.

#![allow(clippy::duplicate_mod)] // bodies in `fuzz` are crates of their own, and tests share some of what they have

mod credit;
mod datagram;
mod datagram_flow;
mod datagram_path;
mod frame;
mod fuzz_corpus;
mod hello;
mod hostile;
mod large;
mod reassembly;
mod sim;
mod support;
mod tables;
mod transcripts;
mod transcripts_links;
