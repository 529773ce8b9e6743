//! Two endpoints over loopback, with trouble between them.

mod async_io;
mod cancel;
mod datagrams;
mod dictionaries;
mod hostile;
mod latency;
mod lifecycle;
mod links;
mod metrics;
mod proxy;
mod rdma;
mod relay;
mod reload;
mod spans;
mod support;
mod zerocopy;
