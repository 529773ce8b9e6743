//! An RDMA stream for several tasks, with the interface of a socket: `try_` methods, and futures that say when to call.
//!
//! Every call may find completions that someone else waits for: whoever makes the stream readable or writable says so.
//!
//! Whoever waits for bytes looks for completions before it sleeps, for as long as that paid lately, and lets the other
//! tasks of its thread run between the looks. That finds what others wait for, too.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use dwcp_sys::rdma::RdmaStream;
use rustix::net::RecvFlags;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    sync::Notify,
};

/// Looks for completions between two turns of other tasks: some microseconds.
const LOOKS: usize = 32;

#[derive(Debug)]
pub(crate) struct RdmaSocket {
    stream: Mutex<RdmaStream>,
    completions: AsyncFd<OwnedFd>,
    events: AsyncFd<OwnedFd>,
    /// The stream has become readable or writable.
    changed: Notify,
    /// The TCP connection beside it has ended.
    cut: AtomicBool,
}

impl RdmaSocket {
    pub(crate) fn new(stream: RdmaStream) -> io::Result<Self> {
        // Descriptors of our own: they outlive the registration, whatever is dropped first.
        // The successor is `unsafe`, for types that may change their descriptor. An `OwnedFd` does not.
        #[allow(deprecated)]
        let register = |fd| AsyncFd::with_interest(fd, Interest::READABLE);
        let completions = register(stream.completion_fd().try_clone_to_owned()?)?;
        let events = register(stream.event_fd().try_clone_to_owned()?)?;
        Ok(Self {
            stream: Mutex::new(stream),
            completions,
            events,
            changed: Notify::new(),
            cut: AtomicBool::new(false),
        })
    }

    pub(crate) fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|stream| stream.try_write(bufs))
    }

    pub(crate) fn try_read(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.with(|stream| stream.try_read(bufs)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.cut.load(Ordering::Acquire) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the TCP connection beside it has ended"))
            }
            result => result,
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.with(RdmaStream::shutdown_write)
    }

    /// Breaks the queue pair.
    pub(crate) fn abort(&self) {
        let _ = self.with(RdmaStream::abort); // an error: it is broken already
    }

    /// Returns when reading has a chance. `tcp`: the connection beside it. Cancel-safe.
    pub(crate) async fn readable(&self, tcp: &TcpStream) -> io::Result<()> {
        tokio::select! {
            ready = self.poll_and_wait() => ready,
            () = ended(tcp) => {
                self.cut.store(true, Ordering::Release);
                Ok(())
            }
        }
    }

    /// Returns when writing has a chance. Cancel-safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.wait(RdmaStream::is_writable).await
    }

    async fn poll_and_wait(&self) -> io::Result<()> {
        match self.poll().await {
            true => Ok(()),
            false => self.wait(RdmaStream::is_readable).await,
        }
    }

    /// Looks for completions as long as that may pay. Returns whether there is something to read.
    async fn poll(&self) -> bool {
        let time = self.lock().poll_time();
        if time.is_zero() {
            return self.lock().is_readable();
        }
        let started = Instant::now();
        let paid = loop {
            let is_readable = self.with(|stream| {
                // A failure makes it readable, and the next call says why.
                (0..LOOKS).any(|_| stream.progress().is_err() || stream.is_readable())
            });
            if is_readable || started.elapsed() >= time {
                break is_readable;
            }
            tokio::task::yield_now().await;
        };
        self.lock().learn(paid);
        paid
    }

    async fn wait(&self, is_ready: fn(&RdmaStream) -> bool) -> io::Result<()> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let ready = self.with(|stream| {
                // A failure makes it ready, and the next call says why.
                let _ = stream.arm();
                is_ready(stream)
            });
            if ready {
                return Ok(());
            }
            let mut guard = tokio::select! {
                guard = self.completions.readable() => guard?,
                guard = self.events.readable() => guard?,
                () = changed => continue,
            };
            // Taken before the reactor is told, which remembers what comes in between.
            let _ = self.with(RdmaStream::take_events);
            guard.clear_ready();
        }
    }

    /// Calls `f`, and wakes those who wait if it has made the stream ready for them.
    fn with<T>(&self, f: impl FnOnce(&mut RdmaStream) -> T) -> T {
        let mut stream = self.lock();
        let (was_readable, was_writable) = (stream.is_readable(), stream.is_writable());
        let result = f(&mut stream);
        let became_ready = (stream.is_readable() && !was_readable) || (stream.is_writable() && !was_writable);
        drop(stream);
        if became_ready {
            self.changed.notify_waiters();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, RdmaStream> {
        self.stream.lock().expect("a call of this link panicked before")
    }
}

/// Returns when the peer's end of a TCP connection that has nothing to say has closed, or says something.
async fn ended(tcp: &TcpStream) {
    loop {
        if tcp.readable().await.is_err() {
            return;
        }
        let look = || Ok(rustix::net::recv(tcp, &mut [0_u8; 1][..], RecvFlags::PEEK)?.0);
        match tcp.try_io(Interest::READABLE, look) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
