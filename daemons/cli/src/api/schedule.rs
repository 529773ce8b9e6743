//! `novacron schedule`: what makes jobs at its times.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use super::{ApiOptions, client::Client, show::schedules, show_all, show_one};
use crate::exit;

const SCHEDULES: &str = "/api/v1/schedules";

/// Schedules: jobs that are made at certain times.
#[derive(Args, Debug)]
pub(crate) struct ScheduleArgs {
    #[command(flatten)]
    options: ApiOptions,
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(Subcommand, Debug)]
enum ScheduleCommand {
    /// All.
    List,
    /// One, with what became of its last ten times if --json is given.
    Get {
        /// Its name.
        name: String,
    },
    /// Makes one that migrates a VM, or that moves VMs between regions.
    Create(NewSchedule),
    /// Has one not be due until it is resumed.
    Suspend {
        /// Its name.
        name: String,
    },
    /// Has one be due again, from now on.
    Resume {
        /// Its name.
        name: String,
    },
    /// Removes one; jobs that it has made stay.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("work").required(true))]
struct NewSchedule {
    /// Its name, a DNS label.
    name: String,
    /// Minute, hour, day of month, month and day of week, as in "30 2 * * mon-fri".
    #[arg(long)]
    cron: String,
    /// Whose clocks that is by, as in Europe/Berlin.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// What becomes of times at which the API did not run.
    #[arg(long, value_enum, default_value_t = Missed::Skip)]
    missed: Missed,
    /// The regions that its jobs may be about, or *.
    #[arg(long, value_name = "REGION,...", value_delimiter = ',', required = true)]
    regions: Vec<String>,
    /// The VM that is migrated.
    #[arg(long, value_name = "VM", group = "work", requires = "to")]
    migrate: Option<String>,
    /// The node that it is migrated to.
    #[arg(long, value_name = "NODE", requires = "migrate")]
    to: Option<String>,
    /// The regions of which the first loses its VMs to the second.
    #[arg(long, value_names = ["FROM", "TO"], num_args = 2, group = "work")]
    move_region: Option<Vec<String>>,
    /// It is not due until it is resumed.
    #[arg(long)]
    suspended: bool,
}

/// What becomes of times that were missed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Missed {
    /// Nothing.
    Skip,
    /// One job.
    Once,
    /// A job for each, for the last hundred.
    All,
}

impl NewSchedule {
    fn body(self) -> Value {
        let work = match (self.migrate, self.move_region) {
            (Some(vm), _) => json!({ "kind": "migrate", "vm": vm, "to": self.to }),
            (None, regions) => {
                let regions = regions.unwrap_or_default();
                json!({ "kind": "move_region", "from": regions.first(), "to": regions.get(1) })
            }
        };
        let missed = match self.missed {
            Missed::Skip => "skip",
            Missed::Once => "once",
            Missed::All => "all",
        };
        json!({
            "name": self.name, "cron": self.cron, "time_zone": self.time_zone, "missed": missed,
            "suspended": self.suspended, "regions": self.regions, "work": work,
        })
    }
}

/// `novacron schedule`.
pub(crate) async fn schedule(ScheduleArgs { options, command }: ScheduleArgs) -> Result<u8> {
    let client = Client::new(&options)?;
    let path = |name: &str| format!("{SCHEDULES}/{name}");
    let set = async |name: &str, suspended: bool| {
        let changed = client.change(&path(name), |schedule| schedule["suspended"] = suspended.into()).await?;
        options.show(changed, schedules)
    };
    match command {
        ScheduleCommand::List => show_all(&client, &options, SCHEDULES, "", schedules).await,
        ScheduleCommand::Get { name } => show_one(&client, &options, &path(&name), schedules).await,
        ScheduleCommand::Create(new) => {
            let made = client.ask(Method::POST, SCHEDULES, Some(&new.body())).await?;
            options.show(made, schedules)
        }
        ScheduleCommand::Suspend { name } => set(&name, true).await,
        ScheduleCommand::Resume { name } => set(&name, false).await,
        ScheduleCommand::Remove { name } => {
            client.ask(Method::DELETE, &path(&name), None).await?;
            Ok(exit::OK)
        }
    }
}
