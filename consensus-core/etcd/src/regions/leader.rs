//! The leader of a region: runs a [`Replicator`] between what is applied, other regions and the log.
//!
//! A step looks at what is applied while nothing of it changes, and reads the disk: on a thread that may block.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use consensus_core::REQUEST_BYTES_MAX;
use consensus_proto::{
    internal::internal_request::Request as Internal,
    regions::{self, StatusResponse},
};
use consensus_regions::{Alarm, Command, Local, Membership, Message, Output, Phase, RegionId, Replicator};
use consensus_store::{Caller, Response, StoreError, StoredItems};
use tokio::sync::mpsc;

use super::{Inputs, Question, Regions, RegionsConfig, Told, alarm::Alarms, metrics, metrics::Gauges};
use crate::server::Server;

/// What became of proposals, and waits to be looked at.
const OUTCOMES: usize = 64;
/// Messages that are looked at in one step.
const MESSAGES_AT_ONCE: usize = 16;
/// Clocks are looked at this often at least, and gauges set.
const LOOK: Duration = Duration::from_secs(1);
/// A clock that goes back by more makes what was measured with it worthless.
const STEP_BACK_MS: u64 = 1000;

/// What a step is about.
#[derive(Debug)]
enum Event {
    Timeout,
    Changed { urgent: bool },
    Messages(Vec<Message>),
    Merged { from: RegionId, is_applied: bool },
    Taken,
}

pub(super) struct Leader {
    server: Server,
    network: consensus_core::RegionNetwork,
    config: Arc<RegionsConfig>,
    /// `None` only during a step.
    replicator: Option<Replicator>,
    now_ms: u64,
    outcomes: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    alarms: Alarms,
    gauges: Gauges,
    looked_at: Option<Instant>,
}

/// Something that differs between leaders.
fn seed(region: RegionId) -> u64 {
    getrandom::u64().unwrap_or(u64::from(region.0))
}

impl Leader {
    pub(super) fn new(server: &Server, regions: &Regions) -> Self {
        metrics::begin();
        let config = Arc::clone(&regions.config);
        let now_ms = server.shared.clock.wall_ms();
        Self {
            server: server.clone(),
            network: regions.network.clone(),
            replicator: Some(new_replicator(&config, now_ms)),
            config,
            now_ms,
            outcomes: mpsc::channel(OUTCOMES),
            alarms: Alarms::default(),
            gauges: Gauges::default(),
            looked_at: None,
        }
    }

    /// Works until it is dropped, or the state cannot be read.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) {
        // What came to whoever led before.
        while inputs.messages.try_recv().is_ok() {}
        let news = Arc::clone(&self.server.shared.news);
        loop {
            let event = tokio::select! {
                () = tokio::time::sleep(self.patience()) => Event::Timeout,
                urgent = news.regions.changed() => Event::Changed { urgent },
                Some(outcome) = self.outcomes.1.recv() => outcome,
                Some(question) = inputs.questions.recv() => {
                    self.answer(question).await;
                    continue;
                }
                Some(message) = inputs.messages.recv() => self.read(message, inputs),
            };
            if let Err(error) = self.step(event).await {
                tracing::error!(%error, "the state of the region cannot be read: nothing is told to others");
                return;
            }
        }
    }

    fn patience(&self) -> Duration {
        let due_ms = self.replicator.as_ref().map_or(0, Replicator::poll_timeout);
        Duration::from_millis(due_ms.saturating_sub(self.server.shared.clock.wall_ms())).min(LOOK)
    }

    /// The message that has come, and others that wait.
    fn read(&mut self, first: (u32, Bytes), inputs: &mut Inputs) -> Event {
        let mut messages = Vec::new();
        let mut next = Some(first);
        while let Some((region, bytes)) = next.take() {
            self.gauges.received(region, bytes.len());
            match Message::decode(bytes) {
                Ok(message) if message.from.0 == region => messages.push(message),
                Ok(message) => {
                    tracing::warn!(region, from = %message.from, "a message in the name of another region: dropped");
                }
                Err(error) => tracing::warn!(region, %error, "a message of a region cannot be read"),
            }
            if messages.len() < MESSAGES_AT_ONCE {
                next = inputs.messages.try_recv().ok();
            }
        }
        Event::Messages(messages)
    }

    async fn step(&mut self, event: Event) -> Result<(), StoreError> {
        let now_ms = self.server.shared.clock.wall_ms();
        if now_ms + STEP_BACK_MS < self.now_ms {
            tracing::warn!("the clock has gone back: what was measured between regions is measured anew");
            self.replicator = Some(new_replicator(&self.config, now_ms));
        }
        self.now_ms = now_ms;
        let Some(mut replicator) = self.replicator.take() else { return Ok(()) };
        let reader = self.server.shared.reader.clone();
        let looks = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK);
        let stepped = tokio::task::spawn_blocking(move || {
            let done = reader.with_region(|_, local| {
                handle(&mut replicator, now_ms, event, local)?;
                Ok(looks.then(|| local.replica.membership().clone()))
            });
            (replicator, done.unwrap_or(Err(StoreError::NoRegion)))
        });
        // An error: the runtime shuts down, or the step has panicked.
        let Ok((replicator, done)) = stepped.await else { return Err(StoreError::NoRegion) };
        self.replicator = Some(replicator);
        if let Some(members) = done? {
            self.look(&members);
        }
        while let Some(output) = self.replicator.as_mut().and_then(Replicator::poll_output) {
            self.put_out(output).await;
        }
        Ok(())
    }

    async fn put_out(&mut self, output: Output) {
        match output {
            Output::Send(message) => {
                let bytes = message.encode();
                self.gauges.sent(message.to.0, bytes.len());
                self.network.send(message.to.0, bytes);
            }
            Output::Propose(command) => self.propose(command),
            // A leader that another has followed and that does not know it yet finds that others know more.
            Output::Alarm(alarm @ (Alarm::Forgotten { .. } | Alarm::Behind { .. })) => {
                if self.server.lead().await.is_some() {
                    self.alarms.raise(alarm);
                }
            }
            Output::Alarm(alarm) => self.alarms.raise(alarm),
        }
    }

    /// Has it committed beside this. How many can wait, `consensus_regions` bounds.
    fn propose(&self, command: Command) {
        let merged_from = match &command {
            Command::Merge(delta) => Some(delta.from),
            _ => None,
        };
        let is_part = matches!(command, Command::Take(_));
        let (server, outcomes) = (self.server.clone(), self.outcomes.0.clone());
        tokio::spawn(async move {
            let done = server.commit_region_command(&command).await;
            let is_applied = matches!(done, Ok(Ok(Response::Region { .. })));
            match &done {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an entry for other regions was refused"),
                Err(error) => tracing::warn!(%error, "no entry for other regions: it is tried again"),
            }
            let event = match merged_from {
                Some(from) => Event::Merged { from, is_applied },
                None if is_part => Event::Taken,
                None => return,
            };
            // If it does not lead any more, nobody waits.
            let _ = outcomes.send(event).await;
        });
    }

    /// What changes seldom: where others are, and what is measured.
    fn look(&mut self, members: &Membership) {
        self.looked_at = Some(Instant::now());
        self.network.set_peers(&self.config.urls(members));
        for region in members.regions().filter(|region| *region != self.config.region()) {
            let name = members.get(region).map(|member| Told::read(&member.info).name).unwrap_or_default();
            let label = self.gauges.label(region.0, &name);
            self.gauges.set(&label, self.lag_ms(region), self.network.is_connected(region.0));
        }
    }

    fn lag_ms(&self, region: RegionId) -> u64 {
        self.replicator
            .as_ref()
            .map_or(0, |replicator| replicator.lag_ms(region, self.server.shared.clock.wall_ms()))
    }

    async fn answer(&self, question: Question) {
        let Question::Status(answer) = question;
        let reader = self.server.shared.reader.clone();
        let counted = tokio::task::spawn_blocking(move || {
            let items = reader.region_items()?;
            let looked =
                reader.with_region(|prefix, local| (Bytes::copy_from_slice(prefix), local.replica.clone()));
            looked.map(|looked| (items, looked)).ok_or(StoreError::NoRegion)
        });
        // Whoever asks is told by the end of the channel.
        let Ok(Ok((items, (prefix, replica)))) = counted.await else { return };
        let own = replica.region();
        let region = |id: RegionId| {
            let member = replica.membership().get(id);
            let Told { name, urls } = member.map(|member| Told::read(&member.info)).unwrap_or_default();
            let is_removed = replica.membership().is_removed(id);
            let known_urls = self.config.peers.get(&id.0).cloned().unwrap_or_default();
            regions::Region {
                region: id.0,
                name,
                urls: if urls.is_empty() { known_urls } else { urls },
                removed: is_removed,
                connected: self.network.is_connected(id.0),
                known: replica.version().get(id),
                lag_ms: if id == own || is_removed { 0 } else { self.lag_ms(id) },
            }
        };
        let _ = answer.send(StatusResponse {
            header: self.server.header_now(),
            region: own.0,
            prefix,
            joining: replica.phase() == Phase::Joining,
            regions: replica.membership().all().map(region).collect(),
            items,
            alarms: self.alarms.list(),
        });
    }
}

fn new_replicator(config: &RegionsConfig, now_ms: u64) -> Replicator {
    let mut settings = config.replicator.clone();
    let others = config.founders.keys().chain(config.peers.keys()).copied().map(RegionId);
    settings.seeds =
        others.filter(|region| *region != config.region()).collect::<BTreeSet<_>>().into_iter().collect();
    Replicator::new(settings, config.region(), now_ms, seed(config.region()))
}

fn handle(
    replicator: &mut Replicator,
    now_ms: u64,
    event: Event,
    local: Local<'_, StoredItems<'_>>,
) -> Result<(), StoreError> {
    match event {
        Event::Timeout => {}
        Event::Changed { urgent } => replicator.handle_change(now_ms, urgent, local)?,
        Event::Messages(messages) => {
            messages.into_iter().try_for_each(|message| replicator.handle_message(now_ms, message, local))?;
        }
        Event::Merged { from, is_applied } => {
            if is_applied {
                ::metrics::counter!("consensus_replication_merges_total").increment(1);
            }
            replicator.handle_merged(now_ms, from, is_applied, local)?;
        }
        Event::Taken => replicator.handle_taken(now_ms, local),
    }
    if replicator.poll_timeout() <= now_ms {
        replicator.handle_timeout(now_ms, local)?;
    }
    Ok(())
}

impl Server {
    /// Longer than a client's request may be: an item that several regions have added to is.
    async fn commit_region_command(
        &self,
        command: &Command,
    ) -> Result<Result<Response, StoreError>, tonic::Status> {
        let request = Internal::RegionCommand(command.encode());
        self.commit_up_to(REQUEST_BYTES_MAX, &Caller::Member, request).await
    }
}
