//! Moves 256 MiB over RDMA and checks the BLAKE3 hash, then measures small round trips.
//!
//!     rdma-loopback                    two queue pairs in this process
//!     rdma-loopback listen 0.0.0.0:7000
//!     rdma-loopback connect HOST:7000  two processes, which meet over TCP
//!
//! It ends with 1 and the reason where that does not work, and with 3 where there is no RDMA device.

use std::{
    error::Error,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use dwcp_sys::rdma::{CONNECTION_DATA_LEN, ConnectionData, Port, Prepared, RdmaError, RdmaStream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TOTAL: usize = 256 << 20;
const BLOCK: usize = 1 << 20;
const ROUND_TRIPS: u32 = 1000;
const NO_DEVICE: u8 = 3;
/// Nothing moves for so long: something is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => in_one_process(),
        ["listen", addr] => listen(addr),
        ["connect", addr] => connect(addr),
        _ => Err("usage: rdma-loopback [listen ADDR | connect ADDR]".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("rdma-loopback: {error}");
    match error.downcast_ref() {
        Some(RdmaError::NoLibrary { .. } | RdmaError::NoPort { .. }) => ExitCode::from(NO_DEVICE),
        _ => ExitCode::FAILURE,
    }
}

fn in_one_process() -> Result<()> {
    let port = Port::find(None)?;
    println!("{} port {}, address {}, MTU {}", port.device, port.number, port.gid, port.mtu.bytes());
    let (a, b) = (Prepared::new(&port, 0x123)?, Prepared::new(&port, 0xff_ffff)?);
    let (for_a, for_b) = (b.connection_data().clone(), a.connection_data().clone());
    let (a, b) = (a.connect(&for_a)?, b.connect(&for_b)?);
    let (done, result) = mpsc::sync_channel(1);
    thread::spawn(move || done.send(receiver(b)));
    sender(a)?;
    result.recv()?
}

fn listen(addr: &str) -> Result<()> {
    let listener = TcpListener::bind(addr)?;
    let (tcp, _) = listener.accept()?;
    receiver(meet(tcp)?)
}

fn connect(addr: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(addr) {
            Ok(tcp) => return sender(meet(tcp)?),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(100)),
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

fn sender(mut stream: RdmaStream) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut block: Vec<u8> = (0..BLOCK).map(|i| (i * i / 7) as u8).collect();
    let started = Instant::now();
    for n in 0..TOTAL / BLOCK {
        // No two blocks are the same.
        block[..8].copy_from_slice(&(n as u64).to_le_bytes());
        hasher.update(&block);
        write_all(&mut stream, &block)?;
    }
    let mut theirs = [0; blake3::OUT_LEN];
    read_exact(&mut stream, &mut theirs)?;
    let elapsed = started.elapsed();
    if theirs != *hasher.finalize().as_bytes() {
        return Err("what came is not what was sent".into());
    }
    let rate = TOTAL as f64 / elapsed.as_secs_f64() / 1e6;
    println!("256 MiB in {elapsed:.1?}, {rate:.1} MB/s, BLAKE3 equal; {:?}", stream.counts());
    let started = Instant::now();
    let mut echo = [0; 64];
    for n in 0..ROUND_TRIPS {
        write_all(&mut stream, &[n as u8; 64])?;
        read_exact(&mut stream, &mut echo)?;
        if echo != [n as u8; 64] {
            return Err("a wrong echo".into());
        }
    }
    println!("64 bytes there and back: {:.1?} on average", started.elapsed() / ROUND_TRIPS);
    until_ready(&mut stream, |stream| stream.shutdown_write())?;
    match until_ready(&mut stream, |stream| stream.try_read(&mut [IoSliceMut::new(&mut [0])]))? {
        0 => Ok(()),
        _ => Err("more came than was sent".into()),
    }
}

fn receiver(mut stream: RdmaStream) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    for _ in 0..TOTAL / BLOCK {
        read_exact(&mut stream, &mut block)?;
        hasher.update(&block);
    }
    write_all(&mut stream, hasher.finalize().as_bytes())?;
    let mut echo = [0; 64];
    loop {
        let count = until_ready(&mut stream, |stream| stream.try_read(&mut [IoSliceMut::new(&mut echo)]))?;
        if count == 0 {
            break;
        }
        write_all(&mut stream, &echo[..count])?;
    }
    until_ready(&mut stream, |stream| stream.shutdown_write())?;
    // A queue pair that is destroyed sends no more.
    until_ready(&mut stream, |stream| {
        stream.progress()?;
        if stream.is_flushed() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    })?;
    Ok(())
}

fn write_all(stream: &mut RdmaStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = until_ready(stream, |stream| stream.try_write(&[IoSlice::new(bytes)]))?;
        bytes = &bytes[count..];
    }
    Ok(())
}

fn read_exact(stream: &mut RdmaStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match until_ready(stream, |stream| stream.try_read(&mut [IoSliceMut::new(bytes)]))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes = &mut bytes[count..],
        }
    }
    Ok(())
}

/// Calls `attempt` until it does not block, and waits for progress in between.
fn until_ready<T>(
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
