//! `novacron vm migrate` and `novacron vm receive`, as a user runs them.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dwcp_lab::{Running, Side};
use serde_json::Value;

use crate::moving::{Moved, Sides, TIMEOUT};

const PORT: u16 = 8888;
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Both commands while they run.
pub struct Migration {
    /// `vm migrate`.
    pub sender: Running,
    /// `vm receive`.
    pub receiver: Running,
}

/// Starts both.
pub fn start(sides: &Sides, novacron: &Path) -> Result<Migration> {
    let address = format!("{}:{PORT}", Side::B.ipv4());
    let command = |side, action: &str, monitor: &Path| -> Command {
        let mut command = sides.lab.command(side, novacron);
        command.args(["vm", action, "--allow-plaintext", "--qmp"]).arg(monitor).stdin(Stdio::null());
        command
    };
    let mut receive = command(Side::B, "receive", sides.target.monitor());
    receive.args(["--listen", &address]);
    let receiver = sides.lab.spawn(receive)?;
    sides.lab.wait_for_listener(Side::B, Some(PORT), LISTEN_TIMEOUT)?;
    let mut migrate = command(Side::A, "migrate", sides.source.monitor());
    migrate.args(["--json", "--to", &address]).stdout(Stdio::piped());
    Ok(Migration { sender: sides.lab.spawn(migrate)?, receiver })
}

/// Moves the guest; gives the command's report, too.
pub async fn migrate(sides: &Sides, novacron: &Path) -> Result<(Moved, Value)> {
    let before = sides.link();
    let Migration { sender, mut receiver } = start(sides, novacron)?;
    let begin = Instant::now();
    // Nothing else is to be done meanwhile.
    let report = sender.stdout_within(TIMEOUT)?;
    let moved = sides.moved(begin, &before).await?;
    ensure!(receiver.wait()?.success(), "novacron vm receive failed");
    Ok((moved, serde_json::from_slice(&report)?))
}
