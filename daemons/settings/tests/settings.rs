//! The sources, their order, what is refused and how that is said.

use std::time::Duration;

use dwcp_core::{CompressionAlgorithm, CompressionLevel, StreamsConfig, Zerocopy};
use novacron_settings::{Layers, MetricsSettings, Settings, SettingsError, key_names, variable};
use proptest::prelude::*;

fn file(text: &str) -> Result<Settings, SettingsError> {
    let mut layers = Layers::new("node-1");
    layers.file("n.yaml", text)?;
    layers.finish()
}

/// Everything but where it comes from.
fn values(settings: &Settings) -> String {
    let Settings { endpoint, listen, tls, metrics, drain_timeout, .. } = settings;
    format!("{:?}", (endpoint, listen, tls, metrics, drain_timeout))
}

fn var(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn nothing_set_gives_the_contracts_defaults() {
    for text in ["", "---\n", "# only a comment\n", "transport:\n", "transport:\n  streams:\nlisten: ~\n"] {
        let s = file(text).unwrap();
        let t = &s.endpoint.transport;
        assert_eq!(t.streams, StreamsConfig { min: 1, max: 256, initial: 2 }, "{text:?}");
        assert_eq!(t.frame_bytes_max, 256 << 10);
        assert_eq!(t.pacing_bytes_per_second, None);
        assert_eq!(t.zerocopy, Zerocopy::Auto);
        assert_eq!(s.endpoint.compression.algorithm, CompressionAlgorithm::Zstd);
        assert_eq!(s.endpoint.compression.level, CompressionLevel::Auto);
        assert_eq!(s.listen.to_string(), "127.0.0.1:8888");
        assert_eq!(s.drain_timeout, Duration::from_secs(30));
        assert_eq!(s.metrics, MetricsSettings::default());
        assert_eq!(s.tls, None);
    }
}

#[test]
fn a_later_source_wins() {
    let text = "compression:\n  algorithm: lz4\n  level: 3\nregion: file\n";
    let mut layers = Layers::new("node-1");
    layers.file("n.yaml", text).unwrap();
    let variables = [
        var("NOVACRON_COMPRESSION_LEVEL", "5"),
        var("NOVACRON_REGION", "env"),
        var("HOME", "/"),
        var("NOVACRON_API_SERVICE_HOST", "10.0.0.1"),
    ];
    let unknown = layers.env(variables).unwrap();
    layers.flag("--region", "region", "flag").unwrap();
    let s = layers.finish().unwrap();
    assert_eq!(s.endpoint.compression.algorithm, CompressionAlgorithm::Lz4);
    assert_eq!(s.endpoint.compression.level, CompressionLevel::Fixed(5));
    assert_eq!(s.endpoint.region.as_deref(), Some("flag"));
    assert_eq!(unknown, ["NOVACRON_API_SERVICE_HOST"]);
}

#[test]
fn one_bound_of_the_links_moves_the_unset_ones() {
    for (text, expected) in [
        ("min: 4", (4, 256, 4)),
        ("min: 300", (300, 300, 300)),
        ("max: 1", (1, 1, 1)),
        ("{min: 2, max: 8, initial: 8}", (2, 8, 8)),
    ] {
        let text = if text.starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
        let s = file(&format!("transport: {{streams: {text}}}")).unwrap().endpoint.transport.streams;
        assert_eq!((s.min, s.max, s.initial), expected, "{text}");
    }
}

#[test]
fn mistakes_name_key_and_line() {
    for (text, expected) in [
        (
            "transport:\n  strems:\n    max: 4\n",
            "n.yaml:3: transport.strems.max: no such setting; did you mean transport.streams.max?",
        ),
        ("lsiten: 1\n", "n.yaml:1: lsiten: no such setting; did you mean listen?"),
        (
            "congestion_control: bbr\n",
            "n.yaml:1: congestion_control: no such setting; did you mean transport.congestion_control?",
        ),
        ("zzz: 1\n", "n.yaml:1: zzz: no such setting"),
        ("transport: 5\n", "n.yaml:1: transport: no such setting"),
        ("zzz:\n", "n.yaml:1: zzz: no such setting"),
        ("region: a\n\nregion: b\n", "n.yaml:3: region: already set in line 1"),
        (
            "transport:\n  frame_bytes_max: 5 MiB\n",
            "n.yaml:2: transport.frame_bytes_max: \"5242880\" is not allowed, expected 4 KiB..=4 MiB",
        ),
        (
            "transport:\n  frame_bytes_max: 5 MB\n",
            "n.yaml:2: transport.frame_bytes_max: \"5 MB\" is not allowed, expected 4 KiB..=4 MiB",
        ),
        (
            "transport:\n  streams:\n    min: 0\n",
            "n.yaml:3: transport.streams.min: \"0\" is not allowed, expected 1..=1024",
        ),
        (
            "transport:\n  streams:\n    max: 2000\n",
            "n.yaml:3: transport.streams.max: \"2000\" is not allowed, expected min..=1024",
        ),
        (
            "transport: {streams: {min: 4, max: 2}}\n",
            "n.yaml:1: transport.streams.max: \"2\" is not allowed, expected min..=1024",
        ),
        (
            "transport:\n  idle_timeout: 60\n",
            "n.yaml:2: transport.idle_timeout: \"60\" is not allowed, expected off, or a number with ms, s, m or h, more than 0",
        ),
        (
            "compression:\n  level: 20\n",
            "n.yaml:2: compression.level: \"20\" is not allowed, expected auto or 1..=19",
        ),
        (
            "compression:\n  algorithm: gzip\n",
            "n.yaml:2: compression.algorithm: \"gzip\" is not allowed, expected zstd, lz4 or none",
        ),
        (
            "tls:\n  cert: a.pem\n",
            "default: tls.key: \"\" is not allowed, expected a path, since other tls settings are there",
        ),
        (
            "tls:\n  cert: c\n  key: k\n  ca: a\n  allow:\n    - node\n    - not*a*name\n",
            "n.yaml:5: tls.allow: \"not*a*name\" is not allowed, expected DNS names, *.suffix, URIs, URIs ending in /*, or IP addresses",
        ),
        ("tls:\n  allow: a\n", "n.yaml:2: tls.allow: \"a\" is not allowed, expected a list"),
        ("listen: [a]\n", "n.yaml:1: listen: \"a\" is not allowed, expected one value"),
        ("listen: &x 1\n", "n.yaml:1: anchors, aliases and tags are not understood here"),
        ("- a\n", "n.yaml:1: expected `setting: value`"),
        ("a: 1\n---\nb: 1\n", "n.yaml:2: a second document"),
    ] {
        let error = file(text).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text:?}");
    }
    for text in ["a: [1\n", "a: {\n", "\"", "a:\n\t- b\n", "? {a: b}\n: c\n"] {
        assert!(matches!(file(text), Err(SettingsError::Syntax { .. })), "{text:?}");
    }
}

#[test]
fn variables_and_flags_are_named_in_mistakes() {
    let mut layers = Layers::new("node-1");
    let error = layers.env([var("NOVACRON_LISTEN", "here")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable NOVACRON_LISTEN: listen: \"here\" is not allowed, expected ADDRESS:PORT"
    );
    let error = layers.flag("--level", "compression.level", "x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "flag --level: compression.level: \"x\" is not allowed, expected auto or 1..=19"
    );
}

#[test]
fn a_huge_file_is_refused() {
    let text = " ".repeat(Layers::FILE_BYTES_MAX + 1);
    assert!(matches!(file(&text), Err(SettingsError::TooLong { .. })));
}

#[test]
fn variable_names_are_distinct() {
    let mut variables: Vec<_> = key_names().map(variable).collect();
    variables.sort();
    let count = variables.len();
    variables.dedup();
    assert_eq!(variables.len(), count);
}

#[test]
fn everything_set_prints_and_reads_back() {
    let text = r#"
node_id: "a \"quoted\" \\ name\twith: everything #"
region: eu-1
listen: "[::1]:9999"
allow_plaintext: true
metrics: {listen: "[::1]:9101", allow_plaintext: true}
drain_timeout: 90s
transport:
  streams: {min: 2, max: 64, initial: 4}
  congestion_control: cubic
  frame_bytes_max: 1 MiB
  pacing_bytes_per_second: 12500000
  connection_window_bytes: 128MiB
  streams_open_max: 17
  resume_timeout: 1500ms
  idle_timeout: 2h
  keepalive_interval: 1m
  handshake_timeout: 3s
compression: {algorithm: lz4, level: 7}
tls:
  cert: "/c: d.pem"
  key: k.pem
  ca: ca.pem
  allow: ["*.example", b]
"#;
    let settings = file(text).unwrap();
    let printed = settings.to_yaml();
    let again = file(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.to_yaml(), printed);
    assert_eq!(values(&again), values(&settings));
    assert_eq!(again.tls.unwrap().allow, ["*.example", "b"]);
    assert_eq!(again.endpoint.transport.resume_timeout, Duration::from_millis(1500));
    let defaults = Layers::new("n").finish().unwrap();
    assert_eq!(values(&file(&defaults.to_yaml()).unwrap()), values(&defaults));
}

#[test]
fn printed_values_say_where_they_come_from() {
    let mut layers = Layers::new("node-1");
    layers.file("a\nb: 1.yaml", "transport:\n  streams:\n    max: 8\n").unwrap();
    layers.env([var("NOVACRON_METRICS_LISTEN", "127.0.0.1:9101")]).unwrap();
    layers.flag("--compression", "compression.algorithm", "lz4").unwrap();
    let settings = layers.finish().unwrap();
    let printed = settings.to_yaml_with_origins();
    for line in [
        "    max: 8  # a?b: 1.yaml:3",
        "  listen: \"127.0.0.1:9101\"  # environment variable NOVACRON_METRICS_LISTEN",
        "  algorithm: lz4  # flag --compression",
        "  level: auto  # default",
    ] {
        assert!(printed.lines().any(|l| l == line), "{line:?} is not in\n{printed}");
    }
    assert_eq!(values(&file(&printed).unwrap()), values(&settings));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = file(&text);
    }

    #[test]
    fn any_name_survives_printing(name in "\\PC{1,50}") {
        let settings = Layers::new(name.clone()).finish().unwrap();
        prop_assert_eq!(file(&settings.to_yaml()).unwrap().endpoint.node_id, name);
    }
}
