//! Files and standard input that commands read, no more of them than is allowed.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Result, bail};

use crate::exit::Usage;

/// The content of a file; `-` is standard input.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let is_standard = path == Path::new("-");
    let name = if is_standard { "standard input".to_owned() } else { path.display().to_string() };
    let from: io::Result<Box<dyn Read>> = if is_standard {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as _)
    };
    let mut content = Vec::new();
    // One byte more: what is too long has to be seen to be.
    let read = from.and_then(|from| from.take(bytes_max + 1).read_to_end(&mut content));
    if let Err(error) = read {
        bail!(Usage(format!("cannot read {name}: {error}")));
    }
    if content.len() as u64 > bytes_max {
        bail!(Usage(format!("{name} has more than {bytes_max} bytes")));
    }
    Ok(content)
}
