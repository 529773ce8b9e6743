//! The corpora that are kept in git, fed to the bodies of the fuzz targets: the tests of eight crates include this file by its
//! path. Not here: what the seeds of a target are.

#![allow(clippy::disallowed_methods)] // a test may be told by the environment what to do

use std::{fs, path::Path};

/// From the folder of a crate that includes this.
const CORPORA: &str = "../../fuzz/corpus";
/// With fewer inputs, a corpus was lost.
const INPUTS_MIN: usize = 20;

/// Runs every input of a target. With `DWCP_WRITE_CORPUS` set, it writes the seeds into the corpus first.
pub(crate) fn replay(target: &str, seeds: impl FnOnce() -> Vec<Vec<u8>>, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(CORPORA).join(target);
    if std::env::var_os("DWCP_WRITE_CORPUS").is_some() {
        fs::create_dir_all(&corpus).expect("create the corpus folder");
        for (number, seed) in seeds().into_iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:02}")), seed).expect("write a seed");
        }
    }
    let mut count = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is in git") {
        let path = entry.expect("a file").path();
        println!("{}", path.display());
        run(&fs::read(path).expect("a readable file"));
        count += 1;
    }
    assert!(count >= INPUTS_MIN, "{count} inputs for {target}");
}
