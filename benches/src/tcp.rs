//! TCP connections of the peers: without delay, each served by a task of its own.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

/// Sends with this congestion control.
pub fn set_congestion_control(stream: &TcpStream, name: &str) -> Result<()> {
    let set = SockRef::from(stream).set_tcp_congestion(name.as_bytes());
    set.with_context(|| format!("congestion control {name}"))
}

/// Connects.
pub async fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Serves clients until the listener fails. What goes wrong with one is said under the peer's name.
pub async fn serve<A>(
    listener: TcpListener,
    name: &'static str,
    answer: impl Fn(TcpStream) -> A,
) -> Result<()>
where
    A: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let done = answer(stream);
        tokio::spawn(async move {
            if let Err(error) = done.await {
                eprintln!("{name}: {error:#}");
            }
        });
    }
}
