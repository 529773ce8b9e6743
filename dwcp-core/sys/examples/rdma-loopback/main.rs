//! Moves 256 MiB over RDMA and checks the BLAKE3 hash, then measures small round trips.
//!
//!     rdma-loopback                    two queue pairs in this process
//!     rdma-loopback listen 0.0.0.0:7000
//!     rdma-loopback connect HOST:7000  two processes, which meet over TCP
//!
//!     rdma-loopback answer ADDR        what a stream carries, for scripts: bulk without a hash, round trips
//!     rdma-loopback measure HOST:7000
//!
//! It ends with 1 and the reason where that does not work, and with 3 where there is no RDMA device.

mod blocking;
mod measure;
mod meeting;

use std::{error::Error, io::IoSliceMut, process::ExitCode, sync::mpsc, thread, time::Instant};

use blocking::{read_end, read_exact, shut_down, until_ready, write_all};
use dwcp_sys::rdma::{Port, Prepared, RdmaError, RdmaStream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TOTAL: usize = 256 << 20;
const BLOCK: usize = 1 << 20;
const ROUND_TRIPS: u32 = 1000;
const NO_DEVICE: u8 = 3;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => in_one_process(),
        ["listen", addr] => meeting::accept(addr).and_then(receiver),
        ["connect", addr] => meeting::connect(addr).and_then(sender),
        ["answer", addr] => meeting::accept(addr).and_then(measure::answer),
        ["measure", addr] => meeting::connect(addr).and_then(measure::measure),
        _ => Err("usage: rdma-loopback [listen|connect|answer|measure ADDR]".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("rdma-loopback: {error}");
    match error.downcast_ref() {
        Some(RdmaError::NoLibrary { .. } | RdmaError::NoKernel | RdmaError::NoPort { .. }) => {
            ExitCode::from(NO_DEVICE)
        }
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
    read_end(&mut stream)
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
    shut_down(&mut stream)
}
