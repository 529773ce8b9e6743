//! How fast deltas are made and decoded, beside zstd -1 on the same bytes: `delta_bench [OLD NEW [BLOCKS]]`, two versions of an
//! image or of a machine's memory. Without files it makes two states of a memory from this machine's own programs: a third
//! zeros, the rest pages of files below /usr; between the states one page of five has some words changed, one of twenty is
//! another file's. That is what a guest's memory is made of, but it is not one, and the shares are chosen, not measured.

use std::{fs, hint::black_box, sync::Arc};

use dwcp_delta::{BaselineName, Decoder, Encoder, Regions};

const PAGE: usize = 4096;
const PART: usize = 4 << 20;
const MEMORY_BYTES: usize = 256 << 20;
const SEED: u64 = 20_261_128;
const RUNS: usize = 5;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn pages_of_this_machine() -> Vec<u8> {
    let mut files: Vec<_> = ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share/doc"]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let mut bytes = Vec::new();
    for file in files {
        if bytes.len() >= MEMORY_BYTES {
            break;
        }
        bytes.extend(fs::read(file).unwrap_or_default());
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    }
    bytes
}

fn memory() -> (Vec<u8>, Vec<u8>) {
    let (source, mut random) = (pages_of_this_machine(), Random(SEED));
    assert!(source.len() > 1 << 20, "this machine has no files below /usr");
    let page = |random: &mut Random| {
        let start = random.below(source.len() / PAGE) * PAGE;
        source[start..start + PAGE].to_vec()
    };
    let mut old = Vec::with_capacity(MEMORY_BYTES);
    while old.len() < MEMORY_BYTES {
        match random.below(3) {
            0 => old.resize(old.len() + 16 * PAGE, 0),
            _ => (0..16).for_each(|_| old.extend(page(&mut random))),
        }
    }
    let mut new = old.clone();
    for target in new.chunks_exact_mut(PAGE) {
        match random.below(20) {
            0..4 => (0..1 + random.below(24)).for_each(|_| {
                let at = random.below(PAGE / 8) * 8;
                let word = u64::from_le_bytes(target[at..at + 8].try_into().expect("8 bytes"));
                target[at..at + 8].copy_from_slice(&(word + random.below(1 << 16) as u64).to_le_bytes());
            }),
            4 => target.copy_from_slice(&page(&mut random)),
            _ => {}
        }
    }
    (old, new)
}

/// What this thread has had of a processor, in seconds: what others do on this machine costs less of it than of time.
fn cpu_seconds() -> f64 {
    let said = fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with CONFIG_SCHED_INFO");
    let nanoseconds = said.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    nanoseconds.expect("a number") as f64 / 1e9
}

/// Bytes a second of a core, of one run.
fn rate(bytes: usize, run: impl FnOnce()) -> f64 {
    let begin = cpu_seconds();
    run();
    bytes as f64 / (cpu_seconds() - begin)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let read = |path: &String| fs::read(path).expect("a readable file");
    let (what, (old, new)) = match &arguments[..] {
        [old, new, ..] => ("files", (read(old), read(new))),
        _ => ("memory made of files below /usr", memory()),
    };
    let in_memory = arguments.len() != 2;
    println!(
        "{what}, seed {SEED}: {} MiB, medians of {RUNS} rounds, one thread's processor time",
        new.len() >> 20
    );
    let name = BaselineName { id: [0; 16], version: 1, hash: *blake3::hash(&old).as_bytes() };
    let regions = (!in_memory).then(|| {
        let begin = cpu_seconds();
        let regions = Arc::new(Regions::of(&old));
        println!("marks of the old {:>8.0} MB/s", old.len() as f64 / (cpu_seconds() - begin) / 1e6);
        regions
    });
    let level = if in_memory { 1 } else { 3 };
    let mut compressor = zstd::bulk::Compressor::new(1).expect("zstd");
    let (mut encoder, mut decoder) = (Encoder::new(PAGE, level), Decoder::default());
    let mut same = Vec::new();
    let first = &old[..PART.min(old.len())];
    encoder.by_baseline((0, first), &name, &old[..], || None, &mut same).expect("readable");
    let (mut plain_bytes, mut deltas, mut out) = (0, Vec::new(), vec![0; PART]);
    let [mut plain, mut encode, mut decode, mut unchanged, mut times] = [const { Vec::new() }; 5];
    for _ in 0..RUNS {
        plain.push(rate(new.len(), || {
            plain_bytes = new.chunks(PART).map(|part| compressor.compress(part).expect("zstd").len()).sum();
        }));
        encode.push(rate(new.len(), || {
            let encoded = parts(&new).map(|place| {
                let (mut delta, regions) = (Vec::new(), regions.clone());
                let encoded = encoder.by_baseline(place, &name, &old[..], || regions, &mut delta);
                encoded.expect("memory can be read").then_some(delta)
            });
            deltas = encoded.collect();
        }));
        times.push(encode[encode.len() - 1] / plain[plain.len() - 1]);
        decode.push(rate(new.len(), || {
            for ((offset, part), delta) in parts(&new).zip(&deltas) {
                if let Some(delta) = delta {
                    let out = &mut out[..part.len()];
                    decoder.decode(delta, &name, &old[..], offset, out).expect("our own");
                    assert!(out == part);
                }
            }
        }));
        unchanged.push(rate(64 * first.len(), || {
            for _ in 0..64 {
                let out = black_box(&mut out[..first.len()]);
                decoder.decode(&same, &name, &old[..], 0, out).expect("our own");
            }
        }));
    }
    let delta_bytes: usize = deltas
        .iter()
        .zip(new.chunks(PART))
        .map(|(delta, part)| delta.as_ref().map_or(part.len(), Vec::len))
        .sum();
    let line = |what: &str, rates, bytes: Option<usize>| {
        let share = bytes.map(|bytes| format!("{:>8.2} % of the bytes", percent(bytes, new.len())));
        println!("{what:<16} {:>8.0} MB/s  {}", median(rates) / 1e6, share.unwrap_or_default());
    };
    line("zstd -1", plain, Some(plain_bytes));
    line(&format!("delta, level {level}"), encode, Some(delta_bytes));
    println!(
        "{:16} {:.1} times the speed of zstd -1, {:.1} times its ratio",
        "",
        median(times),
        plain_bytes as f64 / delta_bytes as f64
    );
    line("decode, compared", decode, None);
    line("decode unchanged", unchanged, None);
}

fn parts(content: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    content.chunks(PART).enumerate().map(|(number, part)| ((number * PART) as u64, part))
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}
