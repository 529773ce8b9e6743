//! A VM's data, for a first migration: a disk with text and zeros, memory with numbers. Made of a seed, the same each time.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

pub(super) const NAME: &str = "sample";
const DISK_BYTES: u64 = 64 << 20;
const MEMORY_BYTES: u64 = 16 << 20;

/// Makes the data in this folder, unless there is some.
pub(super) fn prepare(folder: &Path) -> Result<()> {
    let folder = folder.join(NAME);
    if folder.exists() {
        return Ok(());
    }
    // It has its name when it is whole.
    let unfinished = folder.with_extension("unfinished");
    let made = || -> std::io::Result<()> {
        fs::create_dir_all(&unfinished)?;
        let disk = File::create(unfinished.join("disk.img"))?;
        write_lines(BufWriter::new(&disk), DISK_BYTES / 4)?;
        disk.set_len(DISK_BYTES)?;
        write_numbers(BufWriter::new(File::create(unfinished.join("memory.bin"))?), MEMORY_BYTES)?;
        fs::rename(&unfinished, &folder)
    };
    made().with_context(|| format!("making {}", folder.display()))
}

fn write_lines(mut into: impl Write, bytes: u64) -> std::io::Result<()> {
    let (mut written, mut n) = (0, 0_u64);
    while written < bytes {
        let line =
            format!("{n:012} block {:016x} of the sample disk\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        into.write_all(line.as_bytes())?;
        written += line.len() as u64;
        n += 1;
    }
    into.flush()
}

fn write_numbers(mut into: impl Write, bytes: u64) -> std::io::Result<()> {
    for n in 0..bytes / 8 {
        into.write_all(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    into.flush()
}
