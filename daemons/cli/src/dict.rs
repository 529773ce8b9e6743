//! `novacron dict train|ls`: dictionaries for the compression of small payloads.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use dwcp_core::dictionary::{DICTIONARY_BYTES_MAX, Folder, SAMPLE_BYTES_MAX, TRAINING_BYTES_MAX, train};

use crate::{
    exit::{self, Usage},
    size,
    store::{Table, print},
};

/// The shortest dictionary that is made: zstd makes none below it.
const DICTIONARY_BYTES_MIN: usize = 1 << 10;

/// Makes dictionaries for the compression of small payloads, and shows them.
#[derive(Args, Debug)]
pub(crate) struct DictArgs {
    #[command(subcommand)]
    command: DictCommand,
}

#[derive(Subcommand, Debug)]
enum DictCommand {
    /// Makes one from samples and keeps it as the newest of its class, if it gains on samples that it was not made from.
    Train(TrainArgs),
    /// Lists those that are there.
    Ls {
        /// The folder of dictionaries.
        #[arg(long, value_name = "DIR")]
        dictionaries: PathBuf,
    },
}

#[derive(Args, Debug)]
struct TrainArgs {
    /// The folder of dictionaries, made if it is not there.
    #[arg(long, value_name = "DIR")]
    dictionaries: PathBuf,
    /// What the samples are, such as json, log or disk: 1 to 32 of a-z, 0-9 and _.
    #[arg(long, value_name = "NAME")]
    class: String,
    /// Length of the dictionary, 1KiB to 1MiB.
    #[arg(long, value_name = "SIZE", default_value = "128KiB")]
    bytes: String,
    /// Each line is a sample of its own.
    #[arg(long)]
    lines: bool,
    /// Otherwise files are cut into samples of this length, at most 16KiB.
    #[arg(long, value_name = "SIZE", default_value = "4KiB", conflicts_with = "lines")]
    sample_bytes: String,
    /// Files, and folders whose files are taken, with samples of what is to be sent.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Returns the exit code.
pub(crate) fn run(args: &DictArgs) -> Result<u8> {
    match &args.command {
        DictCommand::Train(args) => make(args),
        DictCommand::Ls { dictionaries } => list(dictionaries),
    }
}

fn make(args: &TrainArgs) -> Result<u8> {
    let bytes = within(&args.bytes, "--bytes", DICTIONARY_BYTES_MIN..=DICTIONARY_BYTES_MAX)?;
    let sample_bytes = within(&args.sample_bytes, "--sample-bytes", 1..=SAMPLE_BYTES_MAX)?;
    let mut samples = Samples::default();
    for path in &args.paths {
        samples.read(path)?;
    }
    let cut: Vec<&[u8]> = samples
        .files
        .iter()
        .flat_map(|file| -> Box<dyn Iterator<Item = &[u8]>> {
            match args.lines {
                true => Box::new(file.split(|byte| *byte == b'\n')),
                false => Box::new(file.chunks(sample_bytes)),
            }
        })
        .collect();
    let trained = train(&cut, bytes)?;
    let name = Folder::new(&args.dictionaries).add(&args.class, &trained.dictionary)?;
    let left_out = match samples.files_left_out {
        0 => String::new(),
        count => format!(
            "; {count} files were left out, {} of samples are the most",
            size::show(TRAINING_BYTES_MAX as u64)
        ),
    };
    print(format!(
        "{name}: {}; held-out samples of {} have {} with it, {} without{left_out}\n",
        size::show(trained.dictionary.bytes().len() as u64),
        size::show(trained.held_out_bytes as u64),
        size::show(trained.held_out_with as u64),
        size::show(trained.held_out_plain as u64),
    ))?;
    Ok(exit::OK)
}

fn within(text: &str, flag: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize> {
    let bytes = novacron_settings::size(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let show = |bytes: &usize| size::show(*bytes as u64);
        Usage(format!(
            "{flag}: {text:?} is not allowed, expected {} to {}",
            show(range.start()),
            show(range.end())
        ))
        .into()
    })
}

/// Files that were read, together no longer than what is trained from.
#[derive(Default)]
struct Samples {
    files: Vec<Vec<u8>>,
    bytes: usize,
    files_left_out: usize,
}

impl Samples {
    /// A file, or the files below a folder, in the order of their names. Links below a folder are not followed.
    fn read(&mut self, path: &Path) -> Result<()> {
        let shown = path.display();
        if fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.is_dir() {
            let mut entries = fs::read_dir(path)
                .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
                .with_context(|| format!("cannot list {shown}"))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let kind =
                    entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
                if kind.is_dir() || kind.is_file() {
                    self.read(&entry.path())?;
                }
            }
            return Ok(());
        }
        let room = TRAINING_BYTES_MAX - self.bytes;
        if room == 0 {
            self.files_left_out += 1;
            return Ok(());
        }
        let mut file = Vec::new();
        let opened = fs::File::open(path).with_context(|| format!("cannot open {shown}"))?;
        opened.take(room as u64).read_to_end(&mut file).with_context(|| format!("cannot read {shown}"))?;
        self.bytes += file.len();
        self.files.push(file);
        Ok(())
    }
}

fn list(folder: &Path) -> Result<u8> {
    let found = Folder::new(folder).load()?;
    let mut table = Table::new(["CLASS", "VERSION", "SIZE", "ID", "FILE"]);
    for (name, dictionary) in &found.dictionaries {
        let bytes = size::show(dictionary.bytes().len() as u64);
        let row = [
            name.class.clone(),
            name.version.to_string(),
            bytes,
            dictionary.id().to_string(),
            name.to_string(),
        ];
        table.row(row);
    }
    print(table.to_string())?;
    for (path, why) in &found.left_out {
        eprintln!("novacron: {} is left out: {why}", path.display());
    }
    Ok(if found.left_out.is_empty() { exit::OK } else { exit::FAILURE })
}
