//! A job's progress as it is made.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Replica, Store, request, vm, wait_until};

const VMS: usize = 100;

/// A stream's events, one by one.
struct Events(BufReader<TcpStream>);

#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    job: Value,
}

impl Events {
    /// `None`: it is answered without any.
    fn open(replica: &Replica, path: &str, last: Option<&str>) -> Result<Self, u16> {
        let mut socket = TcpStream::connect(("127.0.0.1", replica.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let headers: Vec<_> = last.map(|last| ("Last-Event-ID", last)).into_iter().collect();
        socket.write_all(request("GET", path, &headers, None).as_bytes()).unwrap();
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        Ok(Self(reader))
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut event = Event { id: String::new(), name: String::new(), job: Value::Null };
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // Between are lengths of chunks, and signs of life.
            match line.trim().split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("data", data)) => event.job = serde_json::from_str(data).unwrap(),
                _ => {}
            }
            if !(event.id.is_empty() || event.name.is_empty() || event.job.is_null()) {
                return Some(event);
            }
        }
    }
}

#[test]
fn progress_is_told_until_the_end_and_no_stream_holds_a_drain() {
    let Some(store) = Store::start() else { return };
    let quick = ["--drain-delay", "100ms"];
    // One that runs no jobs, and is where they are looked at.
    let mut watching = Replica::ready("a", &store, &["--jobs-running-max", "0", "--drain-delay", "100ms"]);
    let working = Replica::ready("b", &store, &quick);
    for n in 0..VMS {
        assert_eq!(working.post("/api/vms", &vm(&format!("v{n}"), "old")).status, 201);
    }
    let made = watching.post("/api/v1/jobs", &json!({ "kind": "move_region", "from": "old", "to": "new" }));
    let path = format!("{}/events", made.header("location"));
    let events: Vec<_> = Events::open(&watching, &path, None).unwrap().collect();
    let (last, before) = events.split_last().unwrap();
    assert_eq!((last.name.as_str(), &last.job["state"]), ("end", &json!("done")), "{events:?}");
    assert_eq!(last.job["progress"], json!({ "done": VMS, "total": VMS }));
    assert!(before.iter().all(|event| event.name == "progress"), "{events:?}");
    assert!(before.len() > 2, "{events:?}");
    let ids: Vec<i64> = events.iter().map(|event| event.id.parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    // Who comes again is told what is new: the end, and then nothing.
    let again: Vec<_> = Events::open(&working, &path, Some(&before[1].id)).unwrap().collect();
    assert_eq!((again.len(), &again[0].id), (1, &last.id));
    assert_eq!(Events::open(&working, &path, Some(&last.id)).err(), Some(204));
    assert_eq!(Events::open(&working, &path, Some("nonsense")).err(), Some(400));
    assert_eq!(Events::open(&working, "/api/v1/jobs/absent/events", None).err(), Some(404));

    // A job that nobody runs.
    drop(working);
    let made = watching.post("/api/v1/jobs", &json!({ "kind": "move_region", "from": "x", "to": "y" }));
    let path = format!("{}/events", made.header("location"));
    let mut streams: Vec<_> = (0..64).map(|_| Events::open(&watching, &path, None).unwrap()).collect();
    for stream in &mut streams {
        assert_eq!(stream.next().unwrap().job["state"], "queued");
    }
    assert_eq!(Events::open(&watching, &path, None).err(), Some(503), "there is a bound");
    drop(streams.pop());
    wait_until("a place", || Events::open(&watching, &path, None).ok());
    watching.process.signal(Signal::TERM);
    for mut stream in streams {
        assert!(stream.next().is_none(), "it ends with the drain");
    }
    assert_eq!(watching.process.exit_code(), Some(0));
}
