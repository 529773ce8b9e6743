//! Damaged files of a member: it serves what was acknowledged, or it refuses and says what is wrong and where. Never less,
//! never other data, never a panic, never for ever.

#![allow(clippy::disallowed_methods)] // a test may be told by the environment what to do

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::{Cluster, put, value};
use consensus_core::{NodeConfig, Timing};
use consensus_etcd::{InitialCluster, MemberFolder, Server, ServerConfig};
use consensus_proto::{
    etcdserverpb::{RangeRequest, kv_client::KvClient, kv_server::Kv as _},
    mvccpb::KeyValue,
};
use tokio::time::timeout;
use tonic::{Request, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(60);
/// Harms that are done to a file. Each costs the start of a member, and RocksDB rests for a second after a flush that fails;
/// `DAMAGE_SEED` does others.
const HARMS_OF_CONTENT: usize = 3;
const HARMS_OF_OTHERS: usize = 1;

/// All keys, and the revision.
type Content = (Vec<KeyValue>, i64);

fn everything() -> RangeRequest {
    RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() }
}

/// A member alone, whose log and data are each in a file and in a write-ahead log or in several files, and all that it has
/// acknowledged.
async fn member() -> (Cluster, Content) {
    let mut cluster = Cluster::prepare(1).await;
    cluster.configure = |config| config.node.snapshots.entries = 40;
    cluster.start_all().await;
    let mut answer = None;
    for round in 0..2 {
        let mut kv = cluster.kv(0).await;
        for n in 0..60 {
            let request = put(&format!("key{}", (round * 30 + n) % 100), &format!("{round}-{n}-").repeat(n));
            kv.put(request).await.unwrap();
        }
        answer = Some(kv.range(everything()).await.unwrap().into_inner());
        drop(kv);
        cluster.stop(0).await;
        if round < 1 {
            cluster.restart(0).await;
            cluster.leader().await;
        }
    }
    let answer = answer.unwrap();
    (cluster, (answer.kvs, answer.header.unwrap().revision))
}

/// Starts a member alone, reads through all that it has stored, and then what it serves.
async fn start(initial: &InitialCluster, path: &Path) -> Result<Content, String> {
    let folder = MemberFolder::new(path, path.join("log"));
    let identity = initial.identity(&folder, "m0", false, None, false).await.map_err(|error| {
        assert!(error.is_damage(), "{error}");
        error.to_string()
    })?;
    let mut node =
        NodeConfig::new(identity.cluster, identity.id, path.join("log"), ([127, 0, 0, 1], 0).into());
    node.start = identity.start;
    node.timing =
        Timing { heartbeat: Duration::from_millis(10), election_timeout: Duration::from_millis(50) };
    let server = Server::start(ServerConfig::new(node, path.join("data"), "m0")).await;
    let server = server.map_err(|error| {
        assert!(error.is_damage(), "{error}");
        error.to_string()
    })?;
    let served = serve(&server).await;
    server.stop().await;
    served
}

async fn serve(server: &Server) -> Result<Content, String> {
    match server.node().scrub().await {
        Some(Ok(())) => {}
        outcome => {
            let damage = server.node().damage().expect("whoever reads everything ends for damage only");
            assert!(outcome.is_none_or(|outcome| outcome == Err(damage.clone())));
            server.node().stopped().await;
            return Err(damage.to_string());
        }
    }
    let mut status = server.node().watch_status();
    status.wait_for(|status| status.leader.is_some()).await.unwrap();
    let answer = server.range(Request::new(everything())).await.map_err(|status| status.to_string())?;
    let answer = answer.into_inner();
    Ok((answer.kvs, answer.header.unwrap().revision))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
    found.sort();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// What is done to a file.
#[derive(Debug)]
enum Harm {
    Flip(usize),
    Cut(usize),
    Remove,
}

impl Harm {
    fn is_done_to(&self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        match self {
            Self::Flip(at) => bytes[*at] ^= 1 << (at % 8),
            Self::Cut(at) => bytes.truncate(*at),
            Self::Remove => return fs::remove_file(path).unwrap(),
        }
        fs::write(path, bytes).unwrap();
    }

    /// A few, of kinds and at places that differ with the seed: more where content is.
    fn some(path: &Path, seed: &mut u64) -> Vec<Self> {
        let len = fs::metadata(path).unwrap().len() as usize;
        let mut below = |end: usize| {
            *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (*seed >> 33) as usize % end
        };
        if len == 0 {
            return vec![Self::Remove];
        }
        let mut all =
            vec![Self::Remove, Self::Flip(0), Self::Flip(len - 1), Self::Cut(below(len)), Self::Cut(len - 1)];
        all.extend((0..4).map(|_| Self::Flip(below(len))));
        let count = if has_content(path) { HARMS_OF_CONTENT } else { HARMS_OF_OTHERS };
        (0..count).map(|_| all.swap_remove(below(all.len()))).collect()
    }
}

/// Whether it is a file that RocksDB needs to know what it has, and not one about its settings or of messages.
fn has_content(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    [".sst", ".log", "CURRENT"].iter().any(|end| name.ends_with(end)) || name.starts_with("MANIFEST")
}

/// A folder whose files are never waited for: dozens of members start in one.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_file_is_harmed_a_member_serves_all_or_refuses() {
    let (cluster, acknowledged) = member().await;
    let whole = cluster.folder("m0");
    let mut paths = Vec::new();
    files(&whole, &mut paths);
    let mut seed = std::env::var("DAMAGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut served, mut refused, mut of_tables) = (0, 0, 0);
    for path in &paths {
        let name = path.strip_prefix(&whole).unwrap();
        for harm in Harm::some(path, &mut seed) {
            // Each in a folder of its own: tasks that are just ending may still hold the disks of the one before.
            let folder = in_memory();
            let harmed = folder.path();
            copy(&whole, harmed);
            harm.is_done_to(&harmed.join(name));
            let started = timeout(PATIENCE, start(&cluster.initial, harmed)).await;
            match started.unwrap_or_else(|_| panic!("{harm:?} of {name:?}: it hangs")) {
                Ok(content) => {
                    assert!(content == acknowledged, "{harm:?} of {name:?}: it serves something else");
                    served += 1;
                }
                Err(error) => {
                    let says_where = error.contains(&harmed.display().to_string());
                    assert!(says_where && error.contains("damaged"), "{harm:?} of {name:?}: {error}");
                    println!("{harm:?} of {}: {error}", name.display());
                    refused += 1;
                    of_tables += u32::from(name.extension().is_some_and(|extension| extension == "sst"));
                }
            }
        }
    }
    println!("{} files: {served} times all was served, {refused} times refused", paths.len());
    assert!(served > 0 && refused > 30 && of_tables > 15, "{served}, {refused}, {of_tables}");
}

async fn write(kv: &mut KvClient<Channel>, keys: std::ops::Range<u32>) {
    for n in keys {
        // On a busy machine leadership may change meanwhile. Then it is not known whether the put was done; twice is as good.
        let mut tries = 0;
        while let Err(status) = kv.put(put(&format!("key{n}"), &"value".repeat(100))).await {
            tries += 1;
            assert!(status.code() == tonic::Code::Unavailable && tries < 20, "{status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_while_a_member_runs_is_found_and_stops_it_alone() {
    let cluster = Cluster::start_with(3, |config| config.node.snapshots.entries = 20).await;
    let mut kv = cluster.kv(0).await;
    write(&mut kv, 0..100).await;
    let server = &cluster.members[2].as_ref().unwrap().server;
    assert_eq!(server.node().scrub().await, Some(Ok(())));
    let mut paths = Vec::new();
    files(&cluster.folder("m2").join("data"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
    // The most of it is in the largest, and most of that is keys and values.
    paths.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let largest = paths.last().expect("the state was saved");
    // In all of it: blocks that are in its cache are not read.
    let len = fs::metadata(largest).unwrap().len() as usize;
    (0..len).step_by(1000).for_each(|at| Harm::Flip(at).is_done_to(largest));
    let damage = server.node().scrub().await.expect("it looks").unwrap_err();
    assert!(damage.text.contains("m2"), "{damage}");
    assert_eq!(server.node().damage(), Some(damage));
    timeout(PATIENCE, server.node().stopped()).await.expect("it stops");
    write(&mut kv, 100..110).await;
    assert!(value(&mut kv, "key105").await.is_some(), "the others go on");
}
