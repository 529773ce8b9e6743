//! One member, running.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, Bytes};
use consensus_disk::{Batch, Disk, DiskError, Durability, Space};
use consensus_raft::{
    Config, Member, MemberChange, Membership, Role, Status, limits::REQUEST_BYTES_MAX, proposal::Request,
};
use consensus_rocks::{Kind, RocksDisk};
use dwcp_core::Responder;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    NodeConfig, ProposeError, Reads, Start, StartError, StateCopy, StateMachine, StateMachineError, apply,
    clock::Clock,
    engine::{Engine, catch_up_with_log},
    host::Compaction,
    inbox::{Desk, INBOX, Input},
    lease::{LeaseRead, LeaseReads},
    metrics::{self, Metrics},
    peers::{Network, PeerLines},
    scrub::{self, Damage, Scrubber},
    snapshot::{self, Fetcher},
};

/// The one group of a node. Several may come later: it is in every message and key.
pub const GROUP: u64 = 1;
/// Log, state, and whose they are.
const SPACES: u8 = 3;
const IDENTITY: Space = Space(2);
/// Heartbeats are this many ticks apart, which is also how finely elections are timed.
const TICKS_PER_HEARTBEAT: u32 = 10;
/// What is still acknowledged to peers when a node stops.
const GOODBYE: Duration = Duration::from_millis(200);
/// Questions of peers that wait for an answer.
const QUESTIONS: usize = 1024;
/// On top of the time after which a transfer of leadership is given up.
const RETRY_TRANSFER: Duration = Duration::from_millis(50);

/// A question of a peer, for whoever embeds the node.
#[derive(Debug)]
pub struct PeerQuestion {
    /// As given to [`Node::ask`].
    pub question: Bytes,
    /// Takes the answer.
    pub responder: Responder,
}

/// One member of the group, running. Cheap to clone.
#[derive(Debug)]
pub struct Node<R> {
    shared: Arc<Shared<R>>,
}

#[derive(Debug)]
struct Shared<R> {
    cluster: u64,
    id: u64,
    inbox: mpsc::Sender<Input>,
    desk: Arc<Desk<R>>,
    reads: LeaseReads,
    next: AtomicU64,
    status: watch::Receiver<Status>,
    membership: watch::Receiver<Membership>,
    network: Arc<Network>,
    snapshot_dir: PathBuf,
    election_timeout: Duration,
    metrics: Metrics,
    threads: std::sync::Mutex<Vec<thread::JoinHandle<()>>>,
    /// To the scrub thread, which ends without it.
    scrub: std::sync::Mutex<Option<std::sync::mpsc::SyncSender<scrub::Order>>>,
    damage: Arc<OnceLock<Damage>>,
}

impl<R> Clone for Node<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R> Drop for Shared<R> {
    fn drop(&mut self) {
        // Full: it is stopped by the next who looks, there is nobody left to ask.
        let _ = self.inbox.try_send(Input::Stop);
    }
}

/// Forgets a request when whoever asked no longer waits.
struct Forget<'a, T>(&'a crate::inbox::Waiting<T>, u64);

impl<T> Drop for Forget<'_, T> {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}

impl<R: Send + 'static> Node<R> {
    /// Starts a member, on a tokio runtime. Questions of peers come to the second value.
    pub async fn start<S>(
        config: NodeConfig,
        mut machine: S,
    ) -> Result<(Self, mpsc::Receiver<PeerQuestion>), StartError>
    where
        S: StateMachine<Response = R>,
    {
        let disk = open_log(&config)?;
        let disk = Arc::new(if config.sync_writes { disk } else { disk.without_sync() });
        if config.force_new_cluster {
            tracing::warn!("a new cluster of this member alone: what only the others had is lost");
            let applied = machine.applied();
            let batch = consensus_raft::force_new_group(Arc::clone(&disk), GROUP, config.id, applied)?;
            disk.write(batch, Durability::Synced)?;
        }
        let ticks = |duration: Duration| {
            let tick = config.timing.heartbeat / TICKS_PER_HEARTBEAT;
            (duration.as_nanos() / tick.as_nanos().max(1)).max(1) as usize
        };
        let member = Member::open(
            Arc::clone(&disk),
            Config {
                group: GROUP,
                id: config.id,
                election_ticks: ticks(config.timing.election_timeout),
                heartbeat_ticks: TICKS_PER_HEARTBEAT as usize,
                election_timeout: config.timing.election_timeout,
                leases: config.reads == Reads::Lease,
                applied: machine.applied(),
                priority: config.priority,
                entries_per_message_max: config.entries_per_message_max,
                seed: seed(config.id),
            },
        )?;
        let begin = member.status().first - 1;
        let left_over = snapshot::left_over(&config.snapshot_dir, begin);
        let left_over = left_over.map_err(StartError::folder(&config.snapshot_dir))?;
        catch_up_with_log(&mut machine, begin, left_over)?;
        let (inbox, inputs) = mpsc::channel(INBOX);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (membership_sender, membership) = watch::channel(member.membership().clone());
        let network = Network::listen(&config, inbox.clone(), questions, membership.clone()).await?;
        let outbox = PeerLines::new(Arc::clone(&network), member.membership());
        let compaction = Compaction::new(
            config.snapshots.entries,
            ticks(config.snapshots.interval) as u64,
            inbox.downgrade(),
        );
        let scrubber = Scrubber::new(config.scrub, Arc::clone(&disk), machine.scrubbed(), inbox.downgrade());
        let damage = Arc::clone(&scrubber.damage);
        let (scrub, orders) = scrub::orders();
        let clock = Clock::of_machine();
        let Engine { host, applier, reads, tasks, jobs } =
            Engine::new(member, disk, machine, outbox, membership_sender, compaction, clock);
        let (desk, status, metrics) = (Arc::clone(&host.desk), host.status.subscribe(), host.metrics.clone());
        let fetcher = Fetcher {
            network: Arc::clone(&network),
            folder: config.snapshot_dir.clone(),
            inbox: inbox.clone(),
            wanted: host.wanted.subscribe(),
            membership: membership.clone(),
            status: status.clone(),
        };
        tokio::spawn(fetcher.run());
        let threads = vec![
            thread::Builder::new().name("snapshot".to_owned()).spawn(move || apply::run_jobs(&jobs))?,
            thread::Builder::new().name("apply".to_owned()).spawn(move || applier.run(&tasks))?,
            thread::Builder::new().name("raft".to_owned()).spawn(move || host.run(inputs))?,
            thread::Builder::new().name("scrub".to_owned()).spawn(move || scrubber.run(&orders))?,
        ];
        let waiting = Arc::downgrade(&desk);
        let pending = move || waiting.upgrade().map(|desk| desk.requests.len());
        tokio::spawn(metrics::keep_gauges(status.clone(), membership.clone(), pending));
        tokio::spawn(tick(config.timing.heartbeat / TICKS_PER_HEARTBEAT, inbox.clone()));
        let shared = Shared {
            cluster: config.cluster,
            id: config.id,
            inbox,
            desk,
            reads,
            // Numbers of requests differ from those of the run before, whose requests may still be committed.
            next: AtomicU64::new(seed(config.id)),
            status,
            membership,
            network,
            snapshot_dir: config.snapshot_dir,
            election_timeout: config.timing.election_timeout,
            metrics,
            threads: std::sync::Mutex::new(threads),
            scrub: std::sync::Mutex::new(Some(scrub)),
            damage,
        };
        Ok((Self { shared: Arc::new(shared) }, asked))
    }

    /// Which cluster it is a member of.
    pub fn cluster(&self) -> u64 {
        self.shared.cluster
    }

    /// Which member it is.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Where it listens for peers.
    pub fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.shared.network.local_addr()
    }

    /// What this member knows of the group. `applied` is what a read finds that asks nobody: never more, and no less than
    /// what was answered before the call.
    pub fn status(&self) -> Status {
        // Looked at first: nothing is applied before the status says that it is committed.
        let applied = self.shared.reads.readers.applied();
        Status { applied, ..self.shared.status.borrow().clone() }
    }

    /// The same, for whoever waits for a change.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Who the members are.
    pub fn membership(&self) -> Membership {
        self.shared.membership.borrow().clone()
    }

    /// The same, for whoever waits for a change.
    pub fn watch_membership(&self) -> watch::Receiver<Membership> {
        self.shared.membership.clone()
    }

    /// Whether this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.shared.status.borrow().role == Role::Leader
    }

    /// Requests of this member that are not answered yet.
    pub fn proposals_pending(&self) -> usize {
        self.shared.desk.requests.len()
    }

    fn next(&self) -> u64 {
        self.shared.next.fetch_add(1, Relaxed)
    }

    fn push(&self, input: Input) -> Result<(), ProposeError> {
        self.shared.inbox.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Busy,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })
    }

    /// Has a request committed and applied, and gives back the state machine's answer. Waits for at most `deadline`.
    pub async fn propose(&self, payload: Bytes, deadline: Duration) -> Result<R, ProposeError> {
        if payload.len() > REQUEST_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: payload.len(), max: REQUEST_BYTES_MAX });
        }
        let id = self.next();
        let answer = self.shared.desk.requests.add(id);
        let _forget = Forget(&self.shared.desk.requests, id);
        let began = std::time::Instant::now();
        self.push(Input::Propose(Request { origin: self.shared.id, id, payload }))?;
        let answer = wait(answer, deadline).await?;
        self.shared.metrics.committed(began);
        Ok(answer)
    }

    /// Has a change of the membership committed. Waits for at most `deadline`.
    pub async fn change_members(
        &self,
        change: MemberChange,
        deadline: Duration,
    ) -> Result<Membership, ProposeError> {
        let id = self.next();
        let answer = self.shared.desk.changes.add(id);
        let _forget = Forget(&self.shared.desk.changes, id);
        self.push(Input::Change(change, id))?;
        wait(answer, deadline).await
    }

    /// Waits until this member has applied everything that was acknowledged before the call.
    pub async fn read_index(&self, deadline: Duration) -> Result<(), ProposeError> {
        let answer = match self.shared.reads.begin() {
            LeaseRead::Ready => return Ok(()),
            LeaseRead::Waits(answer) => answer,
            LeaseRead::Asks => {
                let (sender, answer) = oneshot::channel();
                self.push(Input::Read(sender))?;
                answer
            }
        };
        wait(answer, deadline).await
    }

    /// Hands leadership over to another member, if this one has it, and waits until that leads, at most `deadline`. Whether it
    /// does.
    pub async fn transfer_leader(&self, to: u64, deadline: Duration) -> Result<bool, ProposeError> {
        self.repeat_until(|| Input::TransferLeader(to), |leader| leader == to, deadline).await
    }

    /// For a member that is about to end: it is not given leadership any more for its priority, and if it leads, hands that
    /// over to whoever has most of the log. Waits for it, at most `deadline`.
    pub async fn hand_over(&self, deadline: Duration) {
        let own = self.shared.id;
        // Whoever stops stops all the same, whatever comes of this.
        if !self.is_leader() {
            let _ = self.push(Input::HandOver);
        } else {
            let _ = self.repeat_until(|| Input::HandOver, |leader| leader != own, deadline).await;
        }
    }

    /// A transfer is given up after an election timeout, and can be asked for again then: a message may have been lost, or found
    /// a member that was not ready.
    async fn repeat_until(
        &self,
        input: impl Fn() -> Input,
        moved: impl Fn(u64) -> bool,
        deadline: Duration,
    ) -> Result<bool, ProposeError> {
        let until = Instant::now() + deadline;
        let mut status = self.watch_status();
        loop {
            self.push(input())?;
            let patience = (self.shared.election_timeout + RETRY_TRANSFER).min(until - Instant::now());
            let led = status.wait_for(|status| status.leader.is_some_and(&moved));
            match timeout(patience, led).await {
                Ok(Ok(_)) => return Ok(true),
                Ok(Err(_)) => return Err(ProposeError::Stopped),
                Err(_) if Instant::now() >= until => return Ok(false),
                Err(_) => {}
            }
        }
    }

    /// New connections with peers use these certificates from now on; those that exist keep what they have.
    pub fn reload_tls(&self, tls: Arc<dwcp_core::TlsConfig>) {
        self.shared.network.reload_tls(tls);
    }

    /// Waits until the member has stopped, by itself or because it was told to.
    pub async fn stopped(&self) {
        // Not the status: that changes with every request.
        let mut membership = self.watch_membership();
        while membership.changed().await.is_ok() {}
    }

    /// Why it has stopped, if that is because its disk has lost what was written. It can only come back as a new member.
    pub fn damage(&self) -> Option<Damage> {
        self.shared.damage.get().cloned()
    }

    /// Reads everything that is stored, as slowly as [`NodeConfig::scrub`] says, and says whether it is whole. `None`: the
    /// member has stopped, or was asked too often. If it is damaged, the member stops.
    pub async fn scrub(&self) -> Option<Result<(), Damage>> {
        let (order, outcome) = oneshot::channel();
        let orders = self.shared.scrub.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        orders.try_send(order).ok()?;
        drop(orders);
        outcome.await.ok()
    }

    /// Up to where each member has the log, as far as this member knows because it leads; otherwise nothing.
    pub async fn matched(&self) -> Result<BTreeMap<u64, u64>, ProposeError> {
        let (sender, answer) = oneshot::channel();
        self.push(Input::Matched(sender))?;
        answer.await.map_err(|_| ProposeError::Stopped)
    }

    /// Whether another member is connected.
    pub fn is_connected(&self, member: u64) -> bool {
        self.shared.network.round_trip(member).is_some()
    }

    /// A consistent copy of this member's state.
    pub async fn copy(&self) -> Result<StateCopy, StateMachineError> {
        StateCopy::make(&self.shared.snapshot_dir, &self.shared.inbox).await
    }

    /// Asks another member something that is not Raft's; it comes to [`PeerQuestion`] there. `None`: no answer.
    pub async fn ask(&self, member: u64, question: &[u8], deadline: Duration) -> Option<Bytes> {
        self.shared.network.ask(member, question, deadline).await
    }

    /// Stops the member, and returns when its threads have ended and its disks are closed.
    pub async fn stop(&self) {
        let _ = self.shared.inbox.send(Input::Stop).await;
        drop(self.shared.scrub.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(
            &mut *self.shared.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
        self.shared.network.shutdown(GOODBYE).await;
    }
}

async fn wait<T>(
    answer: oneshot::Receiver<Result<T, ProposeError>>,
    deadline: Duration,
) -> Result<T, ProposeError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(ProposeError::Stopped),
        Err(_) => Err(ProposeError::Timeout),
    }
}

async fn tick(every: Duration, inbox: mpsc::Sender<Input>) {
    let mut interval = tokio::time::interval(every);
    // A machine that slept must not make up for it: that would be an election.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if inbox.send(Input::Tick).await.is_err() {
            return;
        }
    }
}

/// Something that differs between members and between starts.
fn seed(id: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ id
}

/// Writes the log that a member begins with, without starting it.
pub fn prepare(config: &NodeConfig) -> Result<(), StartError> {
    open_log(config).map(drop)
}

fn open_log(config: &NodeConfig) -> Result<RocksDisk, StartError> {
    std::fs::create_dir_all(&config.log_dir).map_err(StartError::folder(&config.log_dir))?;
    let disk = RocksDisk::open(&config.log_dir, Kind::Log, SPACES)?;
    identify(&disk, config)?;
    Ok(disk)
}

/// Whose log is in a folder: cluster and member. `None`: there is no log.
pub fn log_owner(log_dir: &Path) -> Result<Option<(u64, u64)>, StartError> {
    if !RocksDisk::is_there(log_dir)? {
        return Ok(None);
    }
    // What is damaged is refused before anything is changed.
    let disk = RocksDisk::open_to_read(log_dir, Kind::Log, SPACES)?;
    Ok(owner(&disk)?)
}

fn owner(disk: &RocksDisk) -> Result<Option<(u64, u64)>, DiskError> {
    let found = disk.get(IDENTITY, b"identity")?.filter(|found| found.len() == 16);
    Ok(found.map(|mut found| (found.get_u64_le(), found.get_u64_le())))
}

/// Says whose log it is, or makes sure of it.
fn identify(disk: &RocksDisk, config: &NodeConfig) -> Result<(), StartError> {
    let folder = config.log_dir.display().to_string();
    if let Some((found_cluster, found_member)) = owner(disk)? {
        if (found_cluster, found_member) != (config.cluster, config.id) {
            let (cluster, member) = (config.cluster, config.id);
            return Err(StartError::OtherMember { folder, found_cluster, found_member, cluster, member });
        }
        return Ok(());
    }
    let mut batch: Batch = match &config.start {
        Start::Never => return Err(StartError::NoLog { folder }),
        Start::Bootstrap(membership) => consensus_raft::bootstrap(GROUP, membership),
        Start::Join(members) => consensus_raft::join(GROUP, members),
    };
    let mut identity = Vec::with_capacity(16);
    identity.put_u64_le(config.cluster);
    identity.put_u64_le(config.id);
    batch.put(IDENTITY, *b"identity", identity);
    disk.write(batch, Durability::Synced)?;
    Ok(())
}
