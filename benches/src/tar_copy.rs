//! Plain copying of a tree over one TCP connection: `tar` on one end, `tar` on the other, the socket between them.
//!
//! The socket is the standard output of the one and the standard input of the other, so nothing but the kernel stands
//! between; what people do with `tar | nc`.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Receives one tree into `into`.
pub fn serve_once(listener: &TcpListener, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    let (mut stream, _) = listener.accept()?;
    let socket = OwnedFd::from(stream.try_clone()?);
    let status = Command::new("tar").arg("-x").arg("-C").arg(into).stdin(Stdio::from(socket)).status()?;
    ensure!(status.success(), "tar -x: {status}");
    stream.write_all(b"!")?;
    Ok(())
}

/// Sends the content of `from`; how long until the receiver has written it all.
pub fn send(addr: SocketAddr, from: &Path) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(addr)?;
    let socket = OwnedFd::from(stream.try_clone()?);
    let status =
        Command::new("tar").arg("-c").arg("-C").arg(from).arg(".").stdout(Stdio::from(socket)).status()?;
    ensure!(status.success(), "tar -c: {status}");
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(start.elapsed())
}
