//! A real PostgreSQL that comes and goes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::wait_until;

/// A cluster of PostgreSQL of this test's own.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    /// Another user, where the test is root, which PostgreSQL does not run as.
    user: Option<&'static str>,
    process: std::cell::RefCell<Option<Child>>,
}

impl Postgres {
    /// `None`, and a line that says why: there is none here.
    pub(crate) fn start() -> Option<Self> {
        let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let programs =
            found.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let Some(programs) = programs else {
            eprintln!("SKIP: there is no PostgreSQL in /usr/lib/postgresql (Debian's package postgresql)");
            return None;
        };
        let user = rustix::process::geteuid().is_root().then_some("nobody");
        let folder = tempfile::tempdir().unwrap();
        let postgres =
            Self { folder, programs, port: ports::free(1)[0], user, process: std::cell::RefCell::new(None) };
        if let Some(user) = user {
            let given = Command::new("chown").arg(user).arg(postgres.folder.path()).status();
            assert!(given.unwrap().success());
        }
        let mut init = postgres.command("initdb");
        init.args(["--auth=trust", "--username=novacron", "--no-sync", "--pgdata"]).arg(postgres.data());
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        postgres.run();
        Some(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://novacron@127.0.0.1:{}/postgres", self.port)
    }

    /// What a query finds: one value, as text; nothing if it cannot be asked.
    pub(crate) fn ask(&self, query: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "-Atqc", query, &self.url()]).stdout(Stdio::piped());
        String::from_utf8(psql.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.user {
            None => Command::new(&program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--clear-groups", "--"]).arg(&program);
                command
            }
        };
        command.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self) {
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        server.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-F"]).stderr(Stdio::null());
        *self.process.borrow_mut() = Some(server.spawn().unwrap());
        let mut ready = self.command("pg_isready");
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        wait_until("PostgreSQL", || ready.status().unwrap().success().then_some(()));
    }

    pub(crate) fn stop(&self) {
        let Some(mut process) = self.process.borrow_mut().take() else { return };
        // At once, as a machine that fails.
        let id = pid(&self.data()).unwrap_or(process.id() as i32);
        let id = rustix::process::Pid::from_raw(id).unwrap();
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
        let _ = process.wait();
    }
}

/// The server's own process, as it says.
fn pid(data: &Path) -> Option<i32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
