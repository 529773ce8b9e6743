//! An agent that is pretended: it takes transfers, which go on until the test ends them or somebody cancels them.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use serde_json::{Value, json};

/// It listens until the test's process ends.
pub(crate) struct Agent {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    /// Or connections are closed at once.
    pub(crate) answers: bool,
    /// The key and the state of each, which is named by its place.
    pub(crate) transfers: Vec<(String, &'static str)>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State { answers: true, transfers: Vec::new() }));
        let agent = Self { folder, state };
        let (listener, state) = (UnixListener::bind(agent.socket()).unwrap(), agent.state.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Whoever asks may go away.
                let _ = answer(&state, stream);
            }
        });
        agent
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How its transfers are.
    pub(crate) fn transfers(&self) -> Vec<&'static str> {
        self.state().transfers.iter().map(|(_, state)| *state).collect()
    }
}

fn answer(state: &Mutex<State>, stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some((status, body)) = state.lock().unwrap().answer(method, path, &body) else { return Ok(()) };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} .\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    (&stream).write_all((head + &body).as_bytes())
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        if !self.answers {
            return None;
        }
        let id = path.strip_prefix("/v1/transfers/").and_then(|id| id.parse::<usize>().ok());
        Some(match (method, id.filter(|id| *id < self.transfers.len())) {
            ("POST", None) if path == "/v1/transfers" => {
                let new: Value = serde_json::from_slice(body).unwrap();
                let key = new["key"].as_str().unwrap();
                let counts =
                    |(known, state): &(String, &str)| known == key && ["running", "done"].contains(state);
                let id = self.transfers.iter().position(counts).unwrap_or_else(|| {
                    self.transfers.push((key.to_owned(), "running"));
                    self.transfers.len() - 1
                });
                (202, self.view(id))
            }
            ("GET", None) if path == "/v1/transfers" => {
                (200, (0..self.transfers.len()).map(|id| self.view(id)).collect())
            }
            ("GET", Some(id)) => (200, self.view(id)),
            ("DELETE", Some(id)) if self.transfers[id].1 == "running" => {
                self.transfers[id].1 = "cancelled";
                (202, Value::Null)
            }
            _ => (404, json!({ "error": "there is no such transfer that runs" })),
        })
    }

    fn view(&self, id: usize) -> Value {
        let (key, state) = &self.transfers[id];
        let done = if *state == "done" { 100 } else { 10 };
        json!({
            "id": id, "key": key, "direction": "send", "peer": "there", "from": null, "to": null, "state": state,
            "error": null, "attempts": 1, "bytes_total": 100, "bytes_done": done, "bytes_moved": done,
            "bytes_skipped": 0, "failures": 0, "seconds": 1.0,
        })
    }
}
