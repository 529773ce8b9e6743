//! `novacron api|vm|migration|job|schedule` against the API of `novacron up`, and one with a login.

use std::{fs, net::TcpStream, process::Stdio};

use serde_json::{Value, json};

use crate::{
    support::{Process, beside, clean, errors, pass_on, wait_until},
    up::{Ports, Up, printed, run_at},
};

/// The lines of a table behind its head, without the blanks between columns.
fn rows(table: &str) -> Vec<String> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_else(|| panic!("{name}: {of}"))
}

#[test]
fn the_api_is_asked_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::start(folder.path(), Ports::new());
    wait_until("both agents are entered", || {
        up.json(&["api", "get", "/api/v1/nodes"])["items"].as_array().expect("a list").len() == 2
    });
    virtual_machines(&up);
    let done = migrations(&up);
    jobs(&up, &done);
    schedules(&up);
    cluster(&up);
    mistakes(&up);
}

fn virtual_machines(up: &Up) {
    let new = [
        "vm",
        "create",
        "db-1",
        "--region",
        "region-2",
        "--image",
        "images/x.img",
        "--memory",
        "1GiB",
        "--cpus",
        "3",
    ];
    assert_eq!(rows(&up.ok(&new)), ["db-1 region-2 - 3 1.00 GiB running images/x.img"]);
    assert!(up.fails(&new, 4).contains("There is such a resource already"));
    let at = up.json(&[
        "vm",
        "create",
        "db-2",
        "--region",
        "region-1",
        "--image",
        "y",
        "--memory",
        "512MiB",
        "--node",
        "agent-1",
        "--stopped",
    ]);
    assert_eq!(
        (&at["node"], &at["desired_state"], &at["memory_bytes"]),
        (&json!("agent-1"), &json!("stopped"), &json!(512 << 20))
    );
    assert_eq!(up.json(&["vm", "get", "db-2"]), at);
    let names = |args: &[&str]| {
        let found = up.json(args);
        found.as_array().expect("a list").iter().map(|vm| text(vm, "name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["vm", "list"]), ["db-1", "db-2", "sample"]);
    assert_eq!(names(&["vm", "list", "--region", "region-2"]), ["db-1"]);
    assert_eq!(rows(&up.ok(&["vm", "list", "--region", "nowhere"])), [""; 0]);
    assert_eq!(up.ok(&["vm", "remove", "db-2"]), "");
    assert!(up.fails(&["vm", "get", "db-2"], 1).contains("there is no VM \"db-2\""));
    assert!(up.fails(&["vm", "remove", "db-2"], 1).contains("db-2"));
}

/// The id of one that was done.
fn migrations(up: &Up) -> String {
    let begun = up.json(&["migration", "start", "sample", "agent-2", "--no-wait"]);
    let id = text(&begun, "id");
    let told = up.ok(&["migration", "watch", id]);
    assert!(
        told.lines().last().unwrap_or_default().starts_with("sample from agent-1 to agent-2 done: "),
        "{told}"
    );
    // The end was told before: it is shown as it is.
    assert!(up.ok(&["migration", "watch", id]).contains("done"));
    let shown = up.json(&["migration", "get", id]);
    assert_eq!((&shown["state"], &shown["created_by"]), (&json!("done"), &json!("local")));
    assert!(
        rows(&up.ok(&["migration", "list"]))[0]
            .starts_with(&format!("{id} sample from agent-1 to agent-2 done"))
    );
    assert!(up.fails(&["migration", "cancel", id], 4).contains("it is done"));
    assert!(up.fails(&["migration", "start", "absent", "agent-2"], 2).contains("there is no \"absent\""));
    assert!(up.fails(&["migration", "start", "sample", "nowhere"], 2).contains("nowhere"));
    // Nothing has this VM's data.
    let said = up.fails(&["migration", "start", "db-1", "agent-2", "--from", "agent-1"], 1);
    assert!(said.contains("it is failed: "), "{said}");
    id.to_owned()
}

fn jobs(up: &Up, done: &str) {
    // The API has no command for these: they are made by schedules, and by other programs.
    let all = up.json(&["job", "list"]);
    let all = all.as_array().expect("a list");
    assert_eq!(all.iter().map(|job| text(job, "state")).collect::<Vec<_>>(), ["done", "failed"]);
    assert_eq!(up.json(&["job", "list", "--recent"]).as_array(), Some(all));
    assert_eq!(up.json(&["job", "get", done]), all[0]);
    assert!(up.ok(&["job", "watch", done]).contains("done"));
    let failed = text(&all[1], "id");
    assert!(up.fails(&["job", "watch", failed], 1).contains("it is failed: "));
    assert!(up.fails(&["job", "cancel", failed], 4).contains("The job has ended"));
    assert!(up.fails(&["job", "get", "absent"], 1).contains("there is no job"));
    assert!(up.fails(&["migration", "get", "absent"], 1).contains("there is no migration"));
}

fn schedules(up: &Up) {
    let moved = [
        "schedule",
        "create",
        "yearly",
        "--cron",
        "0 0 29 2 *",
        "--time-zone",
        "Europe/Berlin",
        "--regions",
        "region-1,region-2",
        "--move-region",
        "region-1",
        "region-2",
    ];
    assert!(up.ok(&moved).contains("move_region from region-1 to region-2"));
    assert!(up.fails(&moved, 4).contains("There is such a resource already"));
    let migrating = up.json(&[
        "schedule",
        "create",
        "evening",
        "--cron",
        "0 20 * * mon-fri",
        "--regions",
        "*",
        "--migrate",
        "sample",
        "--to",
        "agent-1",
        "--missed",
        "once",
        "--suspended",
    ]);
    assert_eq!(
        (&migrating["missed"], &migrating["suspended"], &migrating["time_zone"]),
        (&json!("once"), &json!(true), &json!("UTC"))
    );
    let listed = rows(&up.ok(&["schedule", "list"]));
    assert_eq!(listed.len(), 2);
    assert!(
        listed[0].starts_with("evening ") && listed[0].contains("sample to agent-1 suspended"),
        "{listed:?}"
    );
    assert_eq!(up.json(&["schedule", "resume", "evening"])["suspended"], false);
    assert_eq!(up.json(&["schedule", "suspend", "evening"])["suspended"], true);
    assert_eq!(up.json(&["schedule", "get", "evening"])["suspended"], true);
    assert!(
        up.fails(
            &[
                "schedule",
                "create",
                "wrong",
                "--cron",
                "61 * * * *",
                "--regions",
                "*",
                "--migrate",
                "sample",
                "--to",
                "agent-1"
            ],
            2
        )
        .contains("cron")
    );
    for name in ["yearly", "evening"] {
        up.ok(&["schedule", "remove", name]);
    }
    assert_eq!(up.json(&["schedule", "list"]), json!([]));
}

fn cluster(up: &Up) {
    assert_eq!(up.json(&["api", "health"])["store_answers"], true);
    let members = rows(&up.ok(&["api", "members"]));
    assert_eq!(members.iter().filter(|line| line.contains(" leader ")).count(), 1, "{members:?}");
    assert_eq!(members.len(), 3);
    let regions = up.json(&["api", "regions"]);
    let counts: Vec<_> = regions
        .as_array()
        .expect("a list")
        .iter()
        .map(|region| (text(region, "name"), &region["vms"], &region["nodes"]))
        .collect();
    assert_eq!(counts, [("region-1", &json!(0), &json!(1)), ("region-2", &json!(2), &json!(1))]);
    let transfers = rows(&up.ok(&["api", "transfers"]));
    assert!(
        transfers.iter().any(|line| line.starts_with("agent-1 ") && line.contains(" send agent-2 done 80")),
        "{transfers:?}"
    );
    let id = up.json(&["api", "transfers"])[0]["transfer"]["id"].to_string();
    // It has ended; the agent says so.
    up.fails(&["api", "cancel-transfer", "agent-1", &id], 4);
    up.fails(&["api", "cancel-transfer", "nowhere", "1"], 1);
    let audit = up.json(&["api", "audit"]);
    let resources: Vec<_> =
        audit.as_array().expect("a list").iter().map(|record| text(record, "resource")).collect();
    assert!(
        resources.contains(&"/api/v1/vms/db-2") && resources.contains(&"/api/v1/schedules/yearly"),
        "{resources:?}"
    );
    assert_eq!(up.json(&["api", "get", "/api/v1/vms/db-1"])["cpus"], 3);
    assert_eq!(up.json(&["api", "tokens"]), json!([]));
}

fn mistakes(up: &Up) {
    up.fails(&["vm", "create", "Upper", "--region", "r", "--image", "x", "--memory", "1GiB"], 2);
    up.fails(&["vm", "create", "x", "--region", "r", "--image", "x", "--memory", "much"], 2);
    up.fails(&["api", "get", "/api/v1/nothing"], 1);
    let nobody = ports::free(1)[0];
    let output = run_at(nobody, &["vm", "list"], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains(&nobody.to_string()));
}

#[test]
fn who_asks_logs_in_with_a_token() {
    let Some(program) = beside("novacron-api") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::start(&folder.path().join("up"), Ports::new());
    let port = ports::free(1)[0];
    let members: Vec<_> = up.endpoints.split(',').map(|member| format!("http://{member}")).collect();
    let mut command = std::process::Command::new(program);
    clean(&mut command);
    command.env("RUST_LOG", "warn").args([
        "--auth-tokens",
        "true",
        "--metrics-listen",
        "off",
        "--replica",
        "b",
    ]);
    command.args(["--store-endpoints", &members.join(","), "--data-dir"]).arg(folder.path().join("api"));
    let first = command.args(["--create-token", "first"]).output().expect("it runs");
    let first = printed(&["--create-token"], first);
    let args: Vec<_> =
        command.get_args().take_while(|arg| *arg != "--create-token").map(ToOwned::to_owned).collect();
    let mut serving = std::process::Command::new(command.get_program());
    clean(&mut serving);
    serving.env("RUST_LOG", "warn").args(args).args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut process =
        Process::spawn(serving.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
    pass_on(process.errors_reader());
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());

    let file = folder.path().join("token");
    fs::write(&file, &first).expect("written");
    let file = file.to_str().expect("text");
    let ask = |args: &[&str]| printed(args, run_at(port, &[args, &["--token-file", file]].concat(), &[]));
    let output = run_at(port, &["vm", "list"], &[]);
    assert_eq!(output.status.code(), Some(4), "{}", errors(&output));
    assert!(errors(&output).contains("--token-file, NOVACRON_API_TOKEN"), "{}", errors(&output));
    // A token of another's, which may do less.
    let token = ask(&["api", "create-token", "desk", "viewer@region-1", "--days", "1"]);
    let token = token.trim();
    let limited = |args: &[&str]| run_at(port, args, &[("NOVACRON_API_TOKEN", token)]);
    assert!(rows(&printed(&[], limited(&["vm", "list"])))[0].starts_with("sample region-1"));
    let refused = limited(&["vm", "remove", "sample"]);
    assert_eq!(refused.status.code(), Some(4), "{}", errors(&refused));
    let listed = rows(&ask(&["api", "tokens"]));
    let desk = listed.iter().find(|line| line.ends_with("desk viewer@region-1")).expect("it is listed");
    ask(&["api", "revoke-token", desk.split(' ').next().expect("an id")]);
    assert_eq!(limited(&["vm", "list"]).status.code(), Some(4));
    // It is nothing that the API could be asked for.
    let wrong = run_at(port, &["api", "create-token", "x", "viewer"], &[]);
    assert!(
        wrong.status.code() == Some(2) && errors(&wrong).contains("expected ROLE@REGION"),
        "{}",
        errors(&wrong)
    );
}
