//! Tuning a real kernel, in a network namespace of its own.

use std::fs;

use dwcp_node::tune::{self, Item, Outcome, Settings};

mod support;

fn sysctl(name: &str) -> String {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).expect(name).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn outcome(reports: &[tune::Report], name: &str) -> Outcome {
    let item = Item::Sysctl(name.to_owned());
    reports.iter().find(|report| report.item == item).unwrap_or_else(|| panic!("{name}")).outcome.clone()
}

#[test]
fn settings_of_a_namespace_are_set_and_put_back() {
    let Some(namespace) = support::namespace() else { return };
    namespace.ip(&["link add v0 type veth peer name v1", "link set v0 up"]).expect("a veth pair");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("tune.json");
    namespace.enter(|| {
        let names = [
            "net.ipv4.tcp_rmem",
            "net.ipv4.tcp_wmem",
            "net.ipv4.ip_forward",
            "net.ipv4.tcp_congestion_control",
            // What the kernel overwrites with forwarding.
            "net.ipv4.conf.all.accept_redirects",
            "net.ipv4.conf.default.forwarding",
            "net.ipv4.conf.v0.forwarding",
            "net.ipv4.conf.v1.forwarding",
        ];
        // A host that was hardened, and one interface of it that forwards for somebody else.
        for (name, value) in [("conf/all/accept_redirects", "0"), ("conf/v1/forwarding", "1")] {
            fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect(name);
        }
        let before = names.map(sysctl);
        let settings = Settings {
            interfaces: vec!["v0".into(), "none0".into()],
            buffer_bytes_max: 128 << 20,
            forwarding: true,
        };
        let plan = tune::plan(&settings);
        assert_eq!(names.map(sysctl), before, "a plan changes nothing");
        assert!(matches!(outcome(&plan, "net.ipv4.ip_forward"), Outcome::WouldSet { .. }), "{plan:?}");

        let reports = tune::apply(&settings, &state).expect("applied");
        for report in &reports {
            eprintln!("{report}");
        }
        assert_eq!(sysctl("net.ipv4.ip_forward"), "1");
        assert_eq!(sysctl("net.ipv4.conf.v0.forwarding"), "1");
        assert_eq!(sysctl("net.ipv4.tcp_rmem"), "4096 131072 134217728");
        assert!(matches!(outcome(&reports, "net.ipv4.tcp_wmem"), Outcome::Set { .. }));
        let gone =
            reports.iter().find(|report| report.item == Item::RootQdisc("none0".into())).expect("reported");
        assert!(matches!(&gone.outcome, Outcome::Cannot { .. }), "{gone}");
        // One that another kernel may have, and this one or this namespace may not: either way it is told.
        outcome(&reports, "net.core.default_qdisc");
        assert!(state.exists());

        for report in tune::restore(&state).expect("restored") {
            assert!(matches!(report.outcome, Outcome::Restored { .. }), "{report}");
        }
        assert_eq!(names.map(sysctl), before);
        assert!(!state.exists());
    });
}

#[test]
fn a_kernel_without_fq_says_so_and_one_with_it_gets_it_back_out() {
    let Some(namespace) = support::namespace() else { return };
    namespace.ip(&["link add v0 type veth peer name v1", "link set v0 up"]).expect("a veth pair");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("tune.json");
    namespace.enter(|| {
        let settings = Settings { interfaces: vec!["v0".into()], ..Settings::default() };
        let reports = tune::apply(&settings, &state).expect("applied");
        let fq = reports.iter().find(|report| report.item == Item::RootQdisc("v0".into())).expect("reported");
        match &fq.outcome {
            Outcome::Cannot { reason } => assert!(reason.contains("no fq"), "{reason}"),
            Outcome::Set { from, to } => assert_eq!((from.as_str(), to.as_str()), ("default noqueue", "fq")),
            other => panic!("{other}"),
        }
        let restored = tune::restore(&state).expect("restored");
        assert!(
            restored.iter().all(|report| matches!(report.outcome, Outcome::Restored { .. })),
            "{restored:?}"
        );
    });
}

#[test]
fn a_qdisc_that_somebody_has_put_there_is_left() {
    let Some(namespace) = support::namespace() else { return };
    namespace.ip(&["link add v0 type veth peer name v1", "link set v0 up"]).expect("a veth pair");
    let mut tc = std::process::Command::new("tc");
    tc.args(["qdisc", "add", "dev", "v0", "root", "tbf", "rate", "1gbit", "burst", "64kb", "limit", "1mb"]);
    let added = namespace.enter(|| {
        namespace.confine(&mut tc);
        tc.status().is_ok_and(|status| status.success())
    });
    if !added {
        eprintln!("SKIP: this kernel or machine has no tbf to stand for somebody's qdisc");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    namespace.enter(|| {
        let settings = Settings { interfaces: vec!["v0".into()], ..Settings::default() };
        let plan = tune::plan(&settings);
        let qdisc = plan.iter().find(|report| report.item == Item::RootQdisc("v0".into())).expect("reported");
        assert!(matches!(qdisc.outcome, Outcome::Cannot { .. }), "{qdisc}");
        tune::restore(&folder.path().join("none")).expect("there is nothing to put back");
    });
}
