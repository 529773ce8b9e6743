//! `novacron send`, `recv` and `store gc` with stores of what was transferred, killed at random moments: what a store has is
//! whole, and each transfer that is run again ends with the right bytes. `make kills` runs it with 1,000 kills; `KILLS` says
//! how many, `KILLS_SEED` repeats a run.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::support::*;

/// Without a word from the environment.
const KILLS: u64 = 10;
const IMAGE_BYTES: u64 = 6 << 20;
/// A store has room for two contents, and a run of `gc` with this for one: there is always something to evict.
const STORE_BYTES: &str = "13MiB";
const STORE_BYTES_OF_GC: &str = "7MiB";
/// A run of `gc` takes about as long.
const GC_MS: u64 = 30;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    fn sleep(&mut self, up_to: Duration) {
        thread::sleep(Duration::from_micros(self.below(up_to.as_micros() as u64 + 1)));
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// A sender's and a receiver's folders.
struct Sides {
    dir: tempfile::TempDir,
    image: Vec<u8>,
}

impl Sides {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next version: blocks written, and sometimes bytes inserted or removed.
    fn change(&mut self, random: &mut Random) {
        for _ in 0..1 + random.below(20) {
            let at = random.below(IMAGE_BYTES - 70_000) as usize;
            let bytes = noise(random.below(60_000), random.below(u64::MAX));
            match random.below(8) {
                0 => drop(self.image.splice(at..at, bytes)),
                1 => drop(self.image.drain(at..at + bytes.len())),
                _ => self.image[at..at + bytes.len()].copy_from_slice(&bytes),
            }
            self.image.resize(IMAGE_BYTES as usize, 1);
        }
        fs::write(self.path("image"), &self.image).unwrap();
    }

    fn command(&self, side: &str, room: &str) -> Command {
        let mut command = novacron();
        command.env("NOVACRON_DELTA_STORE", self.path(side)).env("NOVACRON_DELTA_STORE_BYTES_MAX", room);
        command
    }

    fn receiver(&self) -> Server {
        let mut command = self.command("received", STORE_BYTES);
        command.args(["recv", "--json", "--listen", "127.0.0.1:0", "--overwrite", "--into"]);
        let mut server = Server::start(command.arg(self.path("into")));
        swallow(server.process.output_reader());
        server
    }

    fn send(&self, to: &Server) -> Command {
        let mut command = self.command("sent", STORE_BYTES);
        command.args(["send", "--json"]).arg(self.path("image")).arg(&to.address);
        command
    }

    fn gc(&self, random: &mut Random) -> Process {
        let side = ["sent", "received"][random.below(2) as usize];
        Process::spawn(self.command(side, STORE_BYTES_OF_GC).args(["store", "gc"]))
    }

    /// A transfer to its end, and what has arrived.
    fn send_whole(&self, to: &Server) {
        report(&self.send(to).output().unwrap(), 0);
        assert!(fs::read(self.path("into/image")).unwrap() == self.image, "what arrived is another content");
    }

    /// Nothing of a store is damaged: what is not whole has no name.
    fn verify(&self) {
        for side in ["sent", "received"] {
            let output = self.command(side, STORE_BYTES).args(["store", "verify"]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(0), "{side}: {said}{}", errors(&output));
            assert!(said.contains(" 0 damaged"), "{side}: {said}");
        }
    }
}

/// DELTA-6.2, DELTA-6.6
#[test]
fn whoever_is_killed_stores_are_whole_and_transfers_run_again() {
    let kills = number("KILLS").unwrap_or(KILLS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("KILLS_SEED").unwrap_or(now.as_nanos() as u64);
    eprintln!("KILLS_SEED={seed} KILLS={kills}");
    let mut random = Random(seed);
    let mut sides =
        Sides { dir: tempfile::tempdir().unwrap(), image: noise(IMAGE_BYTES, random.below(u64::MAX)) };
    sides.change(&mut random);
    let mut receiver = sides.receiver();
    let begin = Instant::now();
    sides.send_whole(&receiver);
    // Also behind the end of most transfers, while contents are being kept.
    let window = begin.elapsed() * 3 / 2;
    let mut killed_in_time = [0u64; 3];
    for kill in 0..kills {
        sides.change(&mut random);
        let mut sender = Process::spawn(&mut sides.send(&receiver));
        let victim = random.below(3) as usize;
        let mut gc = (victim != 2).then(|| sides.gc(&mut random));
        random.sleep(window);
        let mut is_running =
            |process: &mut Process| killed_in_time[victim] += u64::from(process.is_running());
        match victim {
            0 => {
                is_running(&mut sender);
                sender.kill();
            }
            1 => {
                is_running(&mut receiver.process);
                receiver.process.kill();
                sender.kill();
                receiver = sides.receiver();
            }
            _ => {
                let gc = gc.insert(sides.gc(&mut random));
                random.sleep(Duration::from_millis(GC_MS));
                is_running(gc);
                gc.kill();
                assert_eq!(sender.wait(), Some(0), "kill {kill}: a transfer does not notice");
            }
        }
        sides.verify();
        sides.send_whole(&receiver);
        if let Some(mut gc) = gc.filter(|_| victim != 2) {
            assert_eq!(gc.wait(), Some(0), "kill {kill}: gc");
        }
    }
    sides.verify();
    println!(
        "killed while at work: sender {}, receiver {}, gc {}",
        killed_in_time[0], killed_in_time[1], killed_in_time[2]
    );
}
