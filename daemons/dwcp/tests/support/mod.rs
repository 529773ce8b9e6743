//! Agents as processes, and how they are asked.

#![allow(dead_code, unreachable_pub)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_control::{ControlError, Method, ask};
use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// An agent; it is killed when this is dropped.
pub struct Agent {
    process: Child,
    pub socket: PathBuf,
}

impl Agent {
    /// Starts an agent of this name, whose control socket is `NAME.sock` in the folder, and waits until it answers.
    pub fn start(folder: &Path, name: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_with(folder, name, settings, |_| {})
    }

    pub fn start_with(
        folder: &Path,
        name: &str,
        settings: &[(&str, &str)],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let socket = folder.join(format!("{name}.sock"));
        let mut command = Self::command(name, &socket, settings);
        prepare(&mut command);
        let agent = Self { process: command.spawn().expect("the agent starts"), socket };
        wait_until("the agent answers", || agent.try_get::<serde_json::Value>("/v1/node").is_ok());
        agent
    }

    pub fn command(name: &str, socket: &Path, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_novacron-dwcp"));
        command.args(["--node-id", name, "--discovery-interval", "200ms"]);
        if settings.iter().all(|(key, _)| *key != "metrics.listen") {
            command.args(["--metrics-listen", "off"]);
        }
        command.arg("--control-socket").arg(socket).stdin(Stdio::null());
        for (key, value) in settings {
            command.arg(format!("--{}={value}", key.replace(['.', '_'], "-")));
        }
        command
    }

    pub fn try_get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, ControlError> {
        let answer = self.ask(Method::GET, path, None)?;
        Ok(serde_json::from_slice(&answer).expect("what the schema says"))
    }

    pub fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> T {
        self.try_get(path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn ask(&self, method: Method, path: &str, body: Option<&str>) -> Result<Bytes, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(ask(&self.socket, method, path, body.map(|body| Bytes::from(body.to_owned()))))
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("it runs");
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("it is a child")
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the agent ends", || {
            status = self.has_ended();
            status.is_some()
        });
        status.expect("it has ended")
    }

    pub fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(LOOK_INTERVAL);
    }
}
