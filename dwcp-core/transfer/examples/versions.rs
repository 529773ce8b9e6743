//! What a second version of a content costs on the wire: `versions OLD NEW FOLDER`. Each line is a transfer over a DWCP
//! connection on loopback, paced to 100 Mbit/s, into a folder below FOLDER; bytes are those of frames, in both directions.
//! `make bench-delta` runs it beside rsync and zstd.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use dwcp_core::{Endpoint, EndpointConfig};
use dwcp_transfer::{
    BaselineStore, DeltaConfig, Destination, ProgressSource, Receiver, ReceiverConfig, RelPath, Sender,
    SenderConfig, Source, StoreConfig,
};

const BYTES_PER_SECOND: u64 = 100_000_000 / 8;
/// Longer than any run.
const TTL: Duration = Duration::from_secs(24 * 3600);

struct Sides {
    folder: PathBuf,
    sender_has_store: bool,
}

fn delta(store: Option<PathBuf>) -> DeltaConfig {
    DeltaConfig::new(store.map(|folder| {
        let mut config = StoreConfig::new(folder);
        (config.ttl, config.fsync) = (TTL, false);
        Arc::new(BaselineStore::open(config).expect("a store"))
    }))
}

fn endpoint(name: &str, paced: bool) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.allow_plaintext = true;
    if paced {
        config.transport.pacing_bytes_per_second = Some(BYTES_PER_SECOND);
    }
    config
}

impl Sides {
    /// Sends a file as `image`; tells what that took.
    async fn send(&self, what: &str, file: &Path, paced: bool) {
        let mut config = ReceiverConfig::new(Destination::Folder(self.folder.join("into")));
        (config.overwrite, config.fsync) = (true, false);
        config.delta = Some(delta(Some(self.folder.join("received"))));
        let receiver = Receiver::open(config).expect("a receiver");
        let listener =
            Endpoint::listen("127.0.0.1:0".parse().expect("an address"), endpoint("receiver", paced))
                .await
                .expect("a listener");
        let address = listener.local_addr().expect("it listens");
        let receiving = tokio::spawn(async move {
            let connection = listener.accept().await.expect("a connection");
            let progress = ProgressSource::default();
            let summary = receiver.serve(&connection, "sender", &progress).await.expect("a transfer");
            let _ = tokio::time::timeout(Duration::from_secs(2), connection.drain()).await;
            summary
        });
        let source =
            Source::Path { path: file.to_owned(), dest: RelPath::new(&b"image"[..]).expect("a path") };
        let mut config = SenderConfig::new(vec![source]);
        config.delta = Some(delta(self.sender_has_store.then(|| self.folder.join("sent"))));
        let sender = Sender::new(config).expect("a sender");
        let client = Endpoint::client(endpoint("sender", paced)).expect("a client");
        let connection = client.connect(address, "127.0.0.1").await.expect("a connection");
        let begin = Instant::now();
        let summary = sender.run(&connection).await.expect("a transfer");
        let time = begin.elapsed();
        let stats = connection.stats();
        let _ = tokio::time::timeout(Duration::from_secs(2), connection.drain()).await;
        let received = receiving.await.expect("a transfer");
        assert!(summary.failures.is_empty() && received.failures.is_empty(), "{:?}", summary.failures);
        let bytes = stats.wire_bytes_sent + stats.wire_bytes_received;
        let whole = fs::metadata(file).expect("a file").len();
        println!(
            "{what:<44} {bytes:>12} bytes  {:>8.4} %  {:>7.2} s",
            100.0 * bytes as f64 / whole as f64,
            time.as_secs_f64()
        );
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [old, new, folder] = &arguments[..] else { panic!("usage: versions OLD NEW FOLDER") };
    for (sender_has_store, sides) in [(false, "receiver's store"), (true, "both stores")] {
        let folder = folder.join(format!("versions-{sender_has_store}"));
        let _ = fs::remove_dir_all(&folder);
        let pair = Sides { folder: folder.clone(), sender_has_store };
        pair.send(&format!("first version, {sides}"), old, false).await;
        pair.send(&format!("second version, {sides}"), new, true).await;
        let later = SystemTime::now();
        fs::File::open(new).and_then(|file| file.set_modified(later)).expect("its time can be set");
        pair.send(&format!("second version again, touched, {sides}"), new, true).await;
        fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}
