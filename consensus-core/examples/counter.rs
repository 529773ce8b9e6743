//! A counter on three members in one process: what is added at any of them, all of them have.
//!
//! `cargo run --release -p consensus-core --example counter`

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, fs, io::Write as _, time::Duration};

use consensus_core::{
    Job, MemberInfo, Membership, Node, NodeConfig, Request, Start, StateMachine, StateMachineError as Error,
};

/// The sum of all requests, each a number of eight bytes. In memory; on the disk when it is saved.
struct Counter {
    file: PathBuf,
    index: u64,
    sum: u64,
}

fn read(file: &Path) -> Result<(u64, u64), Error> {
    let bytes = fs::read(file)?;
    let (index, sum) = bytes.split_at_checked(8).ok_or("the file is damaged")?;
    Ok((u64::from_le_bytes(index.try_into()?), u64::from_le_bytes(sum.try_into()?)))
}

/// Everything or nothing, and for good.
fn write(file: &Path, index: u64, sum: u64) -> Result<u64, Error> {
    let part = file.with_extension("part");
    let mut out = fs::File::create(&part)?;
    out.write_all(&[index, sum].map(u64::to_le_bytes).concat())?;
    out.sync_all()?;
    fs::rename(part, file)?;
    fs::File::open(file.parent().ok_or("no folder")?)?.sync_all()?;
    Ok(index)
}

impl StateMachine for Counter {
    type Response = u64;

    fn applied(&self) -> u64 {
        self.index
    }

    fn apply(&mut self, index: u64, requests: &[Request]) -> Result<Vec<u64>, Error> {
        self.index = index;
        let add = |request: &Request| {
            self.sum += request.payload[..].try_into().map_or(0, u64::from_le_bytes);
            self.sum
        };
        Ok(requests.iter().map(add).collect())
    }

    fn save(&mut self) -> Job {
        let (file, index, sum) = (self.file.clone(), self.index, self.sum);
        Box::new(move || write(&file, index, sum))
    }

    fn copy(&mut self, folder: PathBuf) -> Job {
        let (index, sum) = (self.index, self.sum);
        Box::new(move || {
            fs::create_dir_all(&folder)?;
            write(&folder.join("sum"), index, sum)
        })
    }

    fn restore(&mut self, folder: &Path) -> Result<(), Error> {
        (self.index, self.sum) = read(&folder.join("sum"))?;
        write(&self.file, self.index, self.sum).map(drop)
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let at = |id: u64| format!("127.0.0.1:{}", 23790 + id);
    let info = |id| MemberInfo { peer_urls: vec![format!("dwcp://{}", at(id))], ..MemberInfo::default() };
    let members: BTreeMap<u64, MemberInfo> = (1..=3).map(|id| (id, info(id))).collect();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let home = folder.path().join(id.to_string());
        let mut config = NodeConfig::new(7, id, home.join("log"), at(id).parse()?);
        config.start = Start::Bootstrap(Membership::of_voters(members.clone()));
        fs::create_dir_all(&home)?;
        // A service that comes back would read its file here.
        let counter = Counter { file: home.join("sum"), index: 0, sum: 0 };
        nodes.push(Node::start(config, counter).await?.0);
    }
    nodes[0].watch_status().wait_for(|status| status.leader.is_some()).await?;
    for n in 0..30_u64 {
        let node = &nodes[n as usize % 3];
        let sum = node.propose(n.to_le_bytes().to_vec().into(), Duration::from_secs(10)).await?;
        println!("member {} added {n}: {sum}", node.id());
    }
    for node in &nodes {
        node.stop().await;
    }
    Ok(())
}
