//! The program of the guest: changes memory and disk all the time, and checks both when it is told to on its serial line.
//!
//! Lines it understands: `check`, answered by `WHOLE ...` or `DAMAGED: ...`; `pages N`: changes N pages in each tick from now on.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, Result},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use migration::workload::{
    BLOCK_BYTES, Block, FILES_BYTES, HOT_PAGES, LOG_BLOCKS, PAGES, Random, change, check, seal,
};

const TICK: Duration = Duration::from_millis(20);
const PAGES_EACH_TICK: usize = 10;
/// Ticks between two writes to the disk.
const WRITE_TICKS: u64 = 3;
/// The guest's cache would hide what is on the disk.
const O_DIRECT: i32 = 0o40000;
const CHUNK_BYTES: usize = 64 << 10;

/// As `O_DIRECT` wants it.
#[repr(align(4096))]
struct Chunk([u8; CHUNK_BYTES]);

struct Guest {
    disk: File,
    chunk: Box<Chunk>,
    /// Sums of the part of the disk that nobody writes.
    files: Vec<u64>,
    pages: Vec<Box<Block>>,
    page_versions: Vec<u64>,
    log_versions: Vec<u64>,
    random: Random,
}

fn main() -> Result<()> {
    let mut guest = Guest::new()?;
    let lines = lines();
    println!("READY");
    let (mut tick, mut pages) = (0u64, PAGES_EACH_TICK);
    loop {
        thread::sleep(TICK);
        tick += 1;
        for _ in 0..pages {
            guest.touch();
        }
        if tick.is_multiple_of(WRITE_TICKS) {
            guest.write()?;
        }
        while let Ok(line) = lines.try_recv() {
            match line.trim().split_once(' ') {
                Some(("pages", number)) => pages = number.parse().unwrap_or(pages),
                _ if line.trim() == "check" => match guest.check() {
                    Ok(()) => println!("WHOLE after {tick} ticks"),
                    Err(what) => println!("DAMAGED: {what}"),
                },
                _ => {}
            }
        }
    }
}

fn lines() -> Receiver<String> {
    let (told, lines) = channel();
    thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| told.send(line).ok())
    });
    lines
}

impl Guest {
    fn new() -> Result<Self> {
        let disk = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open("/dev/vda")?;
        let mut guest = Self {
            disk,
            chunk: Box::new(Chunk([0; CHUNK_BYTES])),
            files: Vec::new(),
            pages: Vec::new(),
            page_versions: vec![0; PAGES],
            log_versions: vec![0; LOG_BLOCKS],
            random: Random(0x1234_5678_9abc_def1),
        };
        guest.files = guest.sums()?;
        // Pages have what files have, as those of programs do.
        for chunk in 0..PAGES * BLOCK_BYTES / CHUNK_BYTES {
            guest.disk.read_exact_at(&mut guest.chunk.0, (chunk * CHUNK_BYTES) as u64)?;
            for block in guest.chunk.0.chunks(BLOCK_BYTES) {
                let mut page = Box::new(words(block));
                seal(&mut page, guest.pages.len(), 0);
                guest.pages.push(page);
            }
        }
        for place in 0..LOG_BLOCKS {
            guest.put(place)?;
        }
        Ok(guest)
    }

    fn sums(&mut self) -> Result<Vec<u64>> {
        (0..FILES_BYTES / CHUNK_BYTES)
            .map(|chunk| {
                self.disk.read_exact_at(&mut self.chunk.0, (chunk * CHUNK_BYTES) as u64)?;
                let words =
                    self.chunk.0.chunks(8).map(|word| u64::from_le_bytes(*word.first_chunk().unwrap()));
                Ok(words.fold(chunk as u64, |sum, word| {
                    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
                }))
            })
            .collect()
    }

    /// Changes a page.
    fn touch(&mut self) {
        let place = self.random.below(HOT_PAGES);
        self.page_versions[place] += 1;
        change(&mut self.pages[place], &mut self.random);
        seal(&mut self.pages[place], place, self.page_versions[place]);
    }

    /// Writes a block.
    fn write(&mut self) -> Result<()> {
        let place = self.random.below(LOG_BLOCKS);
        self.log_versions[place] += 1;
        self.put(place)
    }

    fn put(&mut self, place: usize) -> Result<()> {
        let mut block = *self.pages[place];
        seal(&mut block, place, self.log_versions[place]);
        for (bytes, word) in self.chunk.0.chunks_mut(8).zip(block) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.disk.write_all_at(&self.chunk.0[..BLOCK_BYTES], log_offset(place))
    }

    fn check(&mut self) -> std::result::Result<(), String> {
        for (place, (page, version)) in self.pages.iter().zip(&self.page_versions).enumerate() {
            check(page, place, *version).map_err(|what| format!("page {what}"))?;
        }
        let unreadable = |error: std::io::Error| format!("the disk cannot be read: {error}");
        for (place, version) in self.log_versions.iter().enumerate() {
            let bytes = &mut self.chunk.0[..BLOCK_BYTES];
            self.disk.read_exact_at(bytes, log_offset(place)).map_err(unreadable)?;
            check(&words(bytes), place, *version).map_err(|what| format!("block {what}"))?;
        }
        let files = self.sums().map_err(unreadable)?;
        match files.iter().zip(&self.files).position(|(now, then)| now != then) {
            Some(chunk) => Err(format!("files: chunk {chunk}")),
            None => Ok(()),
        }
    }
}

fn log_offset(place: usize) -> u64 {
    (FILES_BYTES + place * BLOCK_BYTES) as u64
}

fn words(bytes: &[u8]) -> Block {
    let mut block = [0; BLOCK_BYTES / 8];
    for (word, bytes) in block.iter_mut().zip(bytes.chunks(8)) {
        *word = u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"));
    }
    block
}
