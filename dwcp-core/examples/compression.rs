//! What compression costs and what the controller makes of it, on this machine:
//!
//! ```text
//! cargo run --release -p dwcp-core --example compression            # everything, about ten minutes
//! cargo run --release -p dwcp-core --example compression costs      # codecs and probe only
//! cargo run --release -p dwcp-core --example compression text vm    # the controller on these data only
//! ```
//!
//! The controller runs as it does in a connection: this thread probes and chooses, a pool encodes, a thread writes to
//! a TCP socket over loopback at the link's rate (a token bucket), another reads and decodes. All share the processors.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dwcp_core::{
    CompressionAlgorithm, CompressionConfig, CompressionLevel,
    compress::{
        CompressPool, CompressionController, Content, Encoded, Encoding, Feedback, Probe, Wire, decode,
        encode,
    },
    sample_data::SampleData,
};
use dwcp_proto::frame::Codec;
use tokio::sync::oneshot;

const FRAME: usize = 256 << 10;
const WARM_UP: Duration = Duration::from_millis(1000);
const MEASURE: Duration = Duration::from_millis(1000);
const ROUNDS: usize = 3;
const CHOICES: usize = 7;
/// Frames between this thread and the socket.
const READY_MAX: usize = 8;
const TICK: Duration = Duration::from_millis(50);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kinds: Vec<SampleData> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    if kinds.is_empty() {
        costs();
    }
    if arguments.iter().any(|a| a == "costs") {
        return Ok(());
    }
    let kinds = if kinds.is_empty() { SampleData::ALL.to_vec() } else { kinds };
    let zstd = |level| CompressionConfig { algorithm: CompressionAlgorithm::Zstd, level };
    let choices: [(&str, CompressionConfig); CHOICES] = [
        ("none", CompressionConfig::NONE),
        ("lz4", CompressionConfig { algorithm: CompressionAlgorithm::Lz4, level: CompressionLevel::Auto }),
        ("zstd 1", zstd(CompressionLevel::Fixed(1))),
        ("zstd 3", zstd(CompressionLevel::Fixed(3))),
        ("zstd 7", zstd(CompressionLevel::Fixed(7))),
        ("zstd 12", zstd(CompressionLevel::Fixed(12))),
        ("auto", zstd(CompressionLevel::Auto)),
    ];
    println!("payload in MB/s, medians of {ROUNDS}; share: auto over the best static choice");
    for kind in kinds {
        let data = Bytes::from(kind.generate(1, 128 << 20));
        for (name, rate) in [("100 Mbit/s", 12.5e6), ("1 Gbit/s", 125e6), ("loopback", f64::INFINITY)] {
            let mut payload = [const { Vec::new() }; CHOICES];
            let mut state = String::new();
            // Alternating, so that whatever else the machine does hits all alike.
            for _ in 0..ROUNDS {
                for (payload, (_, config)) in payload.iter_mut().zip(&choices) {
                    let (rate, end) = transfer(&data, rate, *config)?;
                    payload.push(rate);
                    state = end;
                }
            }
            let median = payload.map(|mut rounds| {
                rounds.sort_by(f64::total_cmp);
                rounds[ROUNDS / 2]
            });
            let (auto, fixed) = median.split_last().expect("there are choices");
            let best = fixed.iter().copied().fold(0.0, f64::max);
            let line: String =
                choices.iter().zip(median).map(|((n, _), m)| format!("  {n} {:.0}", m / 1e6)).collect();
            let (share, over_none) = (auto / best, auto / fixed[0]);
            println!("{kind:7} {name:10}{line}  share {share:.2}, {over_none:.2} of none  {state}");
        }
    }
    Ok(())
}

/// Runs for a while, and returns payload bytes per second and what the controller chooses at the end.
fn transfer(data: &Bytes, rate: f64, config: CompressionConfig) -> io::Result<(f64, String)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    socket.set_nodelay(true)?;
    let (peer, _) = listener.accept()?;
    let received = Arc::new(AtomicU64::new(0));
    let (ready, ready_len) = (sync_channel(READY_MAX), Arc::new(AtomicUsize::new(0)));
    let (to_writer, from_sender) = ready;
    let reader = thread::spawn({
        let received = received.clone();
        move || read(peer, &received)
    });
    let written = Arc::new(AtomicU64::new(0));
    let writer = thread::spawn({
        let (written, ready_len) = (written.clone(), ready_len.clone());
        move || write(socket, &from_sender, rate, &written, &ready_len)
    });
    let pool = CompressPool::new()?;
    let mut sender = Sender {
        controller: CompressionController::new(config, true, true, pool.workers()),
        pool,
        pending: Vec::new(),
        to_writer,
        ready_len,
        blocked: Duration::ZERO,
    };
    let start = Instant::now();
    let (mut tick, mut wire_before, mut from) = (start, 0, None);
    for at in (0..data.len() - FRAME).step_by(FRAME).cycle() {
        sender.send(data.slice(at..at + FRAME));
        let elapsed = tick.elapsed();
        if elapsed >= TICK {
            let wire = written.load(Ordering::Relaxed);
            sender.controller.on_tick(Feedback {
                elapsed,
                wire_bytes: wire - wire_before,
                network_limited: sender.blocked > elapsed / 2,
            });
            (tick, wire_before, sender.blocked) = (Instant::now(), wire, Duration::ZERO);
        }
        if start.elapsed() >= WARM_UP && from.is_none() {
            from = Some((Instant::now(), received.load(Ordering::Relaxed)));
        }
        if start.elapsed() >= WARM_UP + MEASURE {
            break;
        }
    }
    let (since, before) = from.expect("measured after the warm-up");
    let payload = (received.load(Ordering::Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
    let state = Content::ALL.map(|content| format!("{content:?}={}", sender.controller.current(content)));
    drop(sender);
    writer.join().expect("the writer does not panic")?;
    reader.join().expect("the reader does not panic")?;
    Ok((payload, state.join(" ")))
}

struct Pending {
    probe: Probe,
    encoding: Encoding,
    raw: Bytes,
    done: oneshot::Receiver<Encoded>,
}

struct Sender {
    controller: CompressionController,
    pool: CompressPool,
    pending: Vec<Pending>,
    to_writer: SyncSender<(Codec, usize, Bytes)>,
    ready_len: Arc<AtomicUsize>,
    blocked: Duration,
}

impl Sender {
    fn send(&mut self, raw: Bytes) {
        let probe = Probe::of(&raw);
        loop {
            while let Some(at) = self.pending.iter().position(|job| !job.done.is_empty()) {
                let job = self.pending.swap_remove(at);
                self.finish(job);
            }
            let room = self.pool.has_room();
            let idle = !room && self.ready_len.load(Ordering::Relaxed) <= 1;
            let encoding =
                self.controller.choose(Some(&probe), raw.len(), if idle { Wire::Idle } else { Wire::Busy });
            if encoding == Encoding::Identity {
                return self.hand_over(Codec::Identity, raw.len(), raw);
            }
            if let Ok(done) = self.pool.try_submit(encoding, raw.clone(), None) {
                return self.pending.push(Pending { probe, encoding, raw, done });
            }
            // A connection waits for events here: room in the pool, a finished job, an idle wire.
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn finish(&mut self, job: Pending) {
        let Pending { probe, encoding, raw, done } = job;
        let encoded = done.blocking_recv().expect("the pool lives");
        let raw_len = raw.len();
        let wire_len = encoded.wire.as_ref().map_or(raw_len, Bytes::len);
        self.controller.on_frame_compressed(&probe, encoding, raw_len, wire_len, encoded.took);
        match encoded.wire {
            Some(wire) => self.hand_over(encoding.codec(), raw_len, wire),
            None => self.hand_over(Codec::Identity, raw_len, raw),
        }
    }

    fn hand_over(&mut self, codec: Codec, raw_len: usize, wire: Bytes) {
        let started = Instant::now();
        self.ready_len.fetch_add(1, Ordering::Relaxed);
        self.to_writer.send((codec, raw_len, wire)).expect("the writer lives");
        self.blocked += started.elapsed();
    }
}

fn write(
    mut socket: TcpStream,
    frames: &Receiver<(Codec, usize, Bytes)>,
    rate: f64,
    written: &AtomicU64,
    ready_len: &AtomicUsize,
) -> io::Result<()> {
    let mut free_at = Instant::now();
    for (codec, raw_len, wire) in frames {
        ready_len.fetch_sub(1, Ordering::Relaxed);
        let mut header = [0; 9];
        header[0] = codec as u8;
        header[1..5].copy_from_slice(&(wire.len() as u32).to_le_bytes());
        header[5..].copy_from_slice(&(raw_len as u32).to_le_bytes());
        thread::sleep(free_at.saturating_duration_since(Instant::now()));
        free_at = free_at.max(Instant::now() - Duration::from_millis(5));
        free_at += Duration::from_secs_f64(wire.len() as f64 / rate);
        let mut slices = [IoSlice::new(&header), IoSlice::new(&wire)];
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            let n = socket.write_vectored(slices)?;
            IoSlice::advance_slices(&mut slices, n);
        }
        written.fetch_add(wire.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn read(mut socket: TcpStream, received: &AtomicU64) -> io::Result<()> {
    let (mut header, mut wire) = ([0; 9], vec![0; FRAME]);
    loop {
        match socket.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let len = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize;
        let (wire_len, raw_len) = (len(1), len(5));
        socket.read_exact(&mut wire[..wire_len])?;
        let codec = [Codec::Identity, Codec::Zstd, Codec::Lz4][usize::from(header[0])];
        if codec != Codec::Identity {
            let raw = decode(codec, &wire[..wire_len], raw_len, None).map_err(io::Error::other)?;
            std::hint::black_box(raw);
        }
        received.fetch_add(raw_len as u64, Ordering::Relaxed);
    }
}

/// The table behind `PRIORS` of the controller, and the cost of the probe.
fn costs() {
    let encodings = [1, 3, 5, 7, 9, 12].map(Encoding::Zstd);
    println!("ns for each raw byte; ratio; {} KiB frames", FRAME >> 10);
    for kind in SampleData::ALL {
        let data = kind.generate(1, 32 << 20);
        let frames: Vec<&[u8]> = data.chunks_exact(FRAME).collect();
        let probe = (0..5)
            .map(|_| time(|| frames.iter().map(|f| Probe::of(f)).for_each(|p| _ = std::hint::black_box(p))));
        let probe = probe.min().unwrap_or_default().as_secs_f64() * 1e6 / frames.len() as f64;
        println!("{kind}: probe {probe:.1} us a frame");
        for content in Content::ALL {
            let frames: Vec<&[u8]> =
                frames.iter().copied().filter(|frame| Probe::of(frame).content() == content).collect();
            let raw = (frames.len() * FRAME) as f64;
            for &encoding in [Encoding::Lz4].iter().chain(&encodings).filter(|_| !frames.is_empty()) {
                let mut wire = Vec::new();
                let encoding_time =
                    time(|| wire = frames.iter().map(|frame| encode(encoding, frame, None)).collect());
                let decoding_time = time(|| {
                    for wire in wire.iter().flatten() {
                        std::hint::black_box(
                            decode(encoding.codec(), wire, FRAME, None).expect("just encoded"),
                        );
                    }
                });
                let wire_bytes: usize = wire.iter().map(|wire| wire.as_ref().map_or(FRAME, Bytes::len)).sum();
                println!(
                    "  {:15}{:8} encode {:6.2}  decode {:5.2}  ratio {:8.2}  ({} frames)",
                    format!("{content:?}"),
                    encoding.to_string(),
                    encoding_time.as_secs_f64() * 1e9 / raw,
                    decoding_time.as_secs_f64() * 1e9 / raw,
                    raw / wire_bytes as f64,
                    frames.len(),
                );
            }
        }
    }
}

fn time(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}
