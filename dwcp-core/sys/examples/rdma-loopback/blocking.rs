//! A stream that is waited for.

use std::{
    io::{self, IoSlice, IoSliceMut},
    time::{Duration, Instant},
};

use dwcp_sys::rdma::RdmaStream;

use crate::Result;

/// Nothing moves for so long: something is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(crate) fn write_all(stream: &mut RdmaStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = until_ready(stream, |stream| stream.try_write(&[IoSlice::new(bytes)]))?;
        bytes = &bytes[count..];
    }
    Ok(())
}

pub(crate) fn read_exact(stream: &mut RdmaStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match until_ready(stream, |stream| stream.try_read(&mut [IoSliceMut::new(bytes)]))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes = &mut bytes[count..],
        }
    }
    Ok(())
}

/// The peer has nothing more to say.
pub(crate) fn read_end(stream: &mut RdmaStream) -> Result<()> {
    match until_ready(stream, |stream| stream.try_read(&mut [IoSliceMut::new(&mut [0])]))? {
        0 => Ok(()),
        _ => Err("more came than was sent".into()),
    }
}

/// Calls `attempt` until it does not block, and waits for progress in between.
pub(crate) fn until_ready<T>(
    stream: &mut RdmaStream,
    mut attempt: impl FnMut(&mut RdmaStream) -> io::Result<T>,
) -> io::Result<T> {
    let until = Instant::now() + SILENCE_MAX;
    loop {
        match attempt(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{stream:?} is stuck")));
                }
                stream.wait(left)?;
            }
            result => return result,
        }
    }
}

/// Ends the stream, and returns when the peer has all: a queue pair that is destroyed sends no more.
pub(crate) fn shut_down(stream: &mut RdmaStream) -> Result<()> {
    until_ready(stream, RdmaStream::shutdown_write)?;
    until_ready(stream, |stream| {
        stream.progress()?;
        if stream.is_flushed() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    })?;
    Ok(())
}
