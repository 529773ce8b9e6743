//! Members whose file systems are full, while clients write: real file systems, which take root to mount.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use consensus_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest,
    RangeRequest, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tokio::task::JoinHandle;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::daemon::process::{Cluster, text, wait_until};

const MIB: u64 = 1 << 20;
const WRITERS: u64 = 4;
const VALUE_BYTES: usize = 64 << 10;

/// A file system of its own.
struct FileSystem {
    folder: tempfile::TempDir,
}

impl FileSystem {
    /// `None`: not here, and it was said why.
    fn mount(mib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                eprintln!("SKIP: a tmpfs cannot be mounted, which takes root: {}", text(&output).trim());
                None
            }
            Err(error) => {
                eprintln!("SKIP: mount: {error}");
                None
            }
        }
    }

    fn mount_three(mib: u64) -> Option<[Self; 3]> {
        Some([Self::mount(mib)?, Self::mount(mib)?, Self::mount(mib)?])
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Takes room with one large file, until no more than this is left.
    fn fill(&self, leave: u64) {
        let mut file = File::create(self.path().join("large")).unwrap();
        for piece in [MIB as usize, 4096] {
            while self.free() > leave && file.write_all(&vec![1; piece]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("large")).unwrap();
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Whoever still has a file open keeps it: the folder is free at once.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Clients that write for as long as they are let.
struct Load {
    done: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    writers: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let (done, written, refused) = (Arc::default(), Arc::default(), Arc::default());
        let writers = (0..WRITERS).map(|writer| {
            let kvs = (0..cluster.clients.len()).map(|n| kv(cluster, n)).collect();
            tokio::spawn(write(writer, kvs, Arc::clone(&done), Arc::clone(&written), Arc::clone(&refused)))
        });
        let writers = writers.collect();
        Self { done, written, refused, writers }
    }

    fn wait_for(count: &AtomicU64, more: u64, what: &str) {
        let goal = count.load(Relaxed) + more;
        wait_until(what, || (count.load(Relaxed) >= goal).then_some(()));
    }

    fn progress(&self) {
        Self::wait_for(&self.written, 200, "writes");
    }

    /// Keys that were acknowledged.
    async fn end(self) -> BTreeSet<String> {
        self.done.store(true, Relaxed);
        let mut keys = BTreeSet::new();
        for (writer, task) in self.writers.into_iter().enumerate() {
            let count = task.await.expect("no write fails for another reason");
            keys.extend((0..count).map(|n| format!("load/{writer}/{n}")));
        }
        keys
    }
}

/// Writes `load/WRITER/0`, `load/WRITER/1`... each as often as it takes; gives back how many were acknowledged.
async fn write(
    writer: u64,
    mut kvs: Vec<KvClient<Channel>>,
    done: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
) -> u64 {
    let (mut n, mut turn) = (0, writer as usize);
    while !done.load(Relaxed) {
        let key = format!("load/{writer}/{n}");
        let put = PutRequest { key: key.into(), value: vec![1; VALUE_BYTES].into(), ..Default::default() };
        let at = turn % kvs.len();
        match kvs[at].put(put).await {
            Ok(_) => {
                n += 1;
                written.fetch_add(1, Relaxed);
            }
            Err(status) => {
                if status.code() == Code::ResourceExhausted {
                    assert_is_no_space(&status);
                    refused.fetch_add(1, Relaxed);
                }
                turn += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    n
}

fn assert_is_no_space(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
}

fn channel(cluster: &Cluster, n: usize) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", cluster.clients[n])).unwrap();
    endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(10)).connect_lazy()
}

fn kv(cluster: &Cluster, n: usize) -> KvClient<Channel> {
    KvClient::new(channel(cluster, n)).max_decoding_message_size(usize::MAX)
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: "x".into(), ..Default::default() }
}

async fn alarms(cluster: &Cluster, n: usize) -> Vec<AlarmMember> {
    let mut maintenance = MaintenanceClient::new(channel(cluster, n));
    maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms
}

/// The keys of the load, as one member has them itself.
async fn keys_at(cluster: &Cluster, n: usize) -> BTreeSet<String> {
    let range = RangeRequest {
        key: "load/".into(),
        range_end: "load0".into(),
        keys_only: true,
        serializable: true,
        ..Default::default()
    };
    let found = kv(cluster, n).range(range).await.unwrap().into_inner();
    found.kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

/// All members have every key, and the same of everything.
async fn check_all(cluster: &Cluster, acknowledged: &BTreeSet<String>) {
    let last = kv(cluster, 0).put(put("last")).await.unwrap().into_inner();
    let revision = last.header.unwrap().revision;
    let mut hashes = BTreeSet::new();
    for n in 0..3 {
        // Once it has answered this it has all that was written before.
        kv(cluster, n).range(RangeRequest { key: "last".into(), ..Default::default() }).await.unwrap();
        let keys = keys_at(cluster, n).await;
        let lost: Vec<_> = acknowledged.difference(&keys).collect();
        assert!(lost.is_empty(), "m{n} has lost {lost:?}");
        let mut maintenance = MaintenanceClient::new(channel(cluster, n));
        let hash = maintenance.hash_kv(HashKvRequest { revision }).await.unwrap().into_inner();
        hashes.insert((hash.hash, hash.compact_revision));
    }
    assert_eq!(hashes.len(), 1, "{hashes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn little_room_raises_an_alarm_that_ends_with_it() {
    let Some(disks) = FileSystem::mount_three(512) else { return };
    let folders = disks.each_ref().map(FileSystem::path);
    let mut cluster = Cluster::start_in(&folders, &["--disk-reserve-bytes=32MiB"]);
    let load = Load::start(&cluster);
    load.progress();

    disks[0].fill(24 * MIB);
    Load::wait_for(&load.refused, 20, "refused writes");
    for n in 0..3 {
        let mut kv = kv(&cluster, n);
        assert_is_no_space(&kv.put(put("more")).await.expect_err("a put needs room"));
        kv.range(RangeRequest { key: "load/0/0".into(), ..Default::default() }).await.expect("reads go on");
        let delete = DeleteRangeRequest { key: "more".into(), ..Default::default() };
        kv.delete_range(delete).await.expect("what makes room goes on");
        let [alarm] = alarms(&cluster, n).await[..] else { panic!("one alarm") };
        assert_eq!(alarm.alarm(), AlarmType::Nospace);
        assert_eq!(format!("{:x}", alarm.member_id), cluster.status(0)["member"]["id"], "of who has none");
    }
    let revision = kv(&cluster, 1).range(RangeRequest { key: "x".into(), ..Default::default() }).await;
    let revision = revision.unwrap().into_inner().header.unwrap().revision;
    let compact = CompactionRequest { revision, physical: true };
    kv(&cluster, 0).compact(compact).await.expect("what makes room goes on");

    // Who ends meanwhile still knows that it is for the file system, and that it has to end it.
    cluster.members[0].kill();
    disks[0].make_room();
    cluster.restart(0);
    load.progress();
    assert_eq!(alarms(&cluster, 1).await, []);

    disks[0].fill(24 * MIB);
    Load::wait_for(&load.refused, 20, "refused writes");
    disks[0].make_room();
    load.progress();
    assert_eq!(alarms(&cluster, 1).await, []);
    check_all(&cluster, &load.end().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_for_the_log_stops_a_member_that_goes_on_when_there_is_some() {
    let Some(disks) = FileSystem::mount_three(512) else { return };
    let folders = disks.each_ref().map(FileSystem::path);
    let mut cluster = Cluster::start_in(&folders, &["--disk-reserve-bytes=0", "--snapshot-count=500"]);
    let load = Load::start(&cluster);
    load.progress();

    let leader = cluster.leader();
    for n in [(leader + 1) % 3, leader] {
        disks[n].fill(0);
        let code = cluster.members[n].exit_code();
        let log = cluster.members[n].log();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("no room on the disk") && log.contains("make room"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        load.progress();
        disks[n].make_room();
        cluster.restart(n);
        load.progress();
    }
    check_all(&cluster, &load.end().await).await;
}
