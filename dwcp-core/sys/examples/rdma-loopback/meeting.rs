//! Two processes that learn of each other's queue pair over TCP.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use dwcp_sys::rdma::{CONNECTION_DATA_LEN, ConnectionData, Port, Prepared, RdmaStream};

use crate::Result;

/// The listener may start later.
const LISTENER_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn accept(addr: &str) -> Result<RdmaStream> {
    let listener = TcpListener::bind(addr)?;
    let (tcp, _) = listener.accept()?;
    meet(tcp)
}

pub(crate) fn connect(addr: &str) -> Result<RdmaStream> {
    let until = Instant::now() + LISTENER_WAIT;
    loop {
        match TcpStream::connect(addr) {
            Ok(tcp) => return meet(tcp),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Exchanges the connection data over TCP. Each waits until the other is ready.
fn meet(mut tcp: TcpStream) -> Result<RdmaStream> {
    let local = tcp.local_addr()?.ip();
    let port = Port::find((!local.is_loopback()).then_some(local))?;
    let prepared = Prepared::new(&port, std::process::id())?;
    tcp.write_all(&prepared.connection_data().encode())?;
    let mut data = [0; CONNECTION_DATA_LEN];
    tcp.read_exact(&mut data)?;
    let stream = prepared.connect(&ConnectionData::decode(&data)?)?;
    tcp.write_all(&[1])?;
    tcp.read_exact(&mut [0])?;
    Ok(stream)
}
