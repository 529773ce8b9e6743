//! What of etcdctl's outputs is not compared, and why. Ids, addresses and folders are not here: each side's own are replaced
//! by names before, so that what is shown must be the right one.

use consensus_proto::etcdserverpb::PutResponse;
use prost::Message as _;

pub(crate) struct Mask {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) apply: fn(&[u8]) -> String,
}

pub(crate) static MASKS: &[Mask] = &[
    Mask { name: "term", why: "how many elections there were is chance", apply: term },
    Mask { name: "size", why: "bytes on the disk are not the same data structures", apply: size },
    Mask { name: "index", why: "what is in the log beside requests differs", apply: index },
    Mask { name: "hash", why: "hashes are over what lies on the disk", apply: hash },
    Mask { name: "version", why: "ours says which version of the API it speaks", apply: version },
    Mask { name: "took", why: "time passes", apply: took },
    Mask { name: "order", why: "members are told in the order of their ids", apply: order },
    Mask { name: "width", why: "columns are as wide as the ids in them", apply: width },
    Mask { name: "status", why: "of the columns, the term and two indices", apply: status },
    Mask { name: "ttl", why: "time passes, and a second may end in between", apply: ttl },
    Mask { name: "lock", why: "keys of locks end with the id of a lease that nobody named", apply: lock },
    Mask {
        name: "cluster",
        why: "in a list of members within a line too, the order is that of ids",
        apply: cluster,
    },
    Mask { name: "keys", why: "etcd counts what it keeps of members as keys too", apply: keys },
    Mask { name: "panic", why: "etcdctl itself ends with a stack and addresses in it", apply: first_line },
    Mask { name: "protobuf", why: "the header has ids and the term in it, in bytes", apply: protobuf },
];

/// Other reasons to differ: the outputs do, and the test fails when they do not any more.
pub(crate) static DIFFERENT: &[(&str, &str)] = &[
    (
        "alarm-header",
        "etcd 3.4 forgets the header, for which etcdctl has no field then; later versions of etcd have it",
    ),
    ("learner", "a learner of ours serves clients as any member does; etcd's refuses most"),
    ("snapshot-auth", "etcd forgets to say this refusal in its own terms"),
    ("compacted-to-0", "etcd takes a compaction to revision 0, once: it changes nothing"),
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces the numbers behind labels.
fn numbers(output: &[u8], labels: &[&str]) -> String {
    let mut output = text(output);
    for label in labels {
        let parts: Vec<_> = output.split(label).map(str::to_owned).collect();
        let (first, rest) = parts.split_first().expect("a split gives one part at least");
        let masked = rest.iter().map(|part| {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            if rest.len() < part.len() { format!("{label}N{rest}") } else { format!("{label}{part}") }
        });
        output = first.clone() + &masked.collect::<String>();
    }
    output
}

fn term(output: &[u8]) -> String {
    numbers(output, &["\"raft_term\":", "\"raftTerm\":", "\"RaftTerm\" : "])
}

fn index(output: &[u8]) -> String {
    let labels = ["\"raftIndex\":", "\"raftAppliedIndex\":", "\"RaftIndex\" : ", "\"RaftAppliedIndex\" : "];
    numbers(output, &labels)
}

fn size(output: &[u8]) -> String {
    let labels = [
        "\"dbSize\":",
        "\"dbSizeInUse\":",
        "\"DBSize\" : ",
        "\"DBSizeInUse\" : ",
        "\"totalSize\":",
        "\"Size\" : ",
    ];
    let output = numbers(output, &labels);
    // As people read it: `20 kB`.
    let words: Vec<_> = output.split(' ').collect();
    let is_unit =
        |word: &str| ["B", "kB", "MB"].iter().any(|unit| word.trim_end_matches([',', '\n']) == *unit);
    let masked = words.iter().enumerate().map(|(n, word)| match words.get(n + 1) {
        Some(unit) if is_unit(unit) => "N",
        _ if is_unit(word) && n > 0 => word.trim_start_matches(['k', 'M']),
        _ => word,
    });
    masked.collect::<Vec<_>>().join(" ")
}

fn hash(output: &[u8]) -> String {
    let output = numbers(output, &["\"hash\":", "\"Hash\" : "]);
    // In what people read, it is the only one of these that is a long number.
    let is_hash = |word: &str| word.len() >= 5 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = output.split_inclusive([' ', ',', '\n']);
    words
        .map(|word| {
            let bare = word.trim_end_matches([' ', ',', '\n']);
            if is_hash(bare) { word.replace(bare, "HASH") } else { word.to_owned() }
        })
        .collect()
}

fn version(output: &[u8]) -> String {
    text(output).replace("3.4.23", "VERSION").replace("3.5.0", "VERSION").replace("VERSION ", "VERSION")
}

/// Every word that is a time, like `1.2ms`.
fn took(output: &[u8]) -> String {
    let output = text(output);
    let is_time = |word: &str| {
        let number = word.trim_end_matches('s').trim_end_matches(['m', 'µ']);
        number.len() < word.len() && number.parse::<f64>().is_ok()
    };
    let word = |word: &str| {
        let bare = word.trim_end_matches([' ', '"', '\n']);
        if is_time(bare) { word.replace(bare, "TIME") } else { word.to_owned() }
    };
    output.split_inclusive([' ', '"', '\n']).map(word).collect()
}

/// Sorted, whether they are lines, the lines of `-w fields` or lists in JSON.
fn order(output: &[u8]) -> String {
    let output = text(output);
    // Names in the place of numbers are no JSON.
    let quoted = ["MEMBER", "CLUSTER", "ALONE_CLUSTER"]
        .into_iter()
        .fold(output.clone(), |text, name| text.replace(&format!(":{name}"), &format!(":\"{name}")));
    let quoted = quoted.replace("_DECIMAL", "\"");
    if let Ok(mut json) = serde_json::from_str::<serde_json::Value>(&quoted) {
        let lists = match &mut json {
            serde_json::Value::Array(all) => vec![all],
            json => json.get_mut("members").and_then(|members| members.as_array_mut()).into_iter().collect(),
        };
        lists.into_iter().for_each(|list| list.sort_by_key(ToString::to_string));
        return json.to_string();
    }
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// `endpoint status`, with commas or as a table.
fn status(output: &[u8]) -> String {
    let output = text(output);
    let line = |line: &str| {
        let (separator, first) = if line.starts_with('|') { ("|", 7) } else { (", ", 6) };
        let columns = line.split(separator).enumerate();
        let masked = columns.map(|(n, column)| if (first..first + 3).contains(&n) { " N " } else { column });
        masked.collect::<Vec<_>>().join(separator) + "\n"
    };
    output.lines().map(line).collect()
}

/// The number before the size in `snapshot status`.
fn keys(output: &[u8]) -> String {
    let output = numbers(output, &["\"totalKey\":", "\"Keys\" : "]);
    let line = |line: &str| {
        let (separator, at) = if line.starts_with('|') { ("|", 3) } else { (", ", 2) };
        let columns = line.split(separator).enumerate();
        let is_number = |column: &str| column.trim().parse::<u64>().is_ok();
        let masked = columns.map(|(n, column)| if n == at && is_number(column) { " N " } else { column });
        masked.collect::<Vec<_>>().join(separator) + "\n"
    };
    output.lines().map(line).collect()
}

fn first_line(output: &[u8]) -> String {
    text(output).lines().next().unwrap_or_default().to_owned()
}

fn ttl(output: &[u8]) -> String {
    let output = numbers(output, &["remaining(", "\"ttl\":", "\"TTL\" : "]);
    // The columns of a table.
    output.lines().map(|line| line.replace("| 99 |", "| N |").replace("| 100 |", "| N |") + "\n").collect()
}

fn lock(output: &[u8]) -> String {
    let output = text(output);
    let words = output.split_inclusive(['/', '\n']);
    words
        .map(|word| {
            let bare = word.trim_end_matches(['/', '\n']);
            let is_id = bare.len() > 8 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_id { word.replace(bare, "LEASE") } else { word.to_owned() }
        })
        .collect()
}

fn cluster(output: &[u8]) -> String {
    let output = text(output);
    let line = |line: &str| match line.split_once("ETCD_INITIAL_CLUSTER=") {
        Some((_, list)) => {
            let mut members: Vec<_> = list.trim_matches('"').split(',').collect();
            members.sort_unstable();
            format!("ETCD_INITIAL_CLUSTER={}\n", members.join(","))
        }
        None => format!("{line}\n"),
    };
    output.lines().map(line).collect()
}

fn width(output: &[u8]) -> String {
    let output = text(output);
    let mut out = String::new();
    for letter in output.chars() {
        if !([' ', '-'].contains(&letter) && out.ends_with(letter)) {
            out.push(letter);
        }
    }
    out
}

/// All answers have their header as field 1: what is left is compared byte by byte.
fn protobuf(output: &[u8]) -> String {
    // The answer to a put is a header and nothing that has to be there: it takes any other's for that.
    let end = output.get(1).map_or(0, |length| 2 + usize::from(*length));
    let header = output.get(..end).and_then(|header| PutResponse::decode(header).ok()?.header);
    match header {
        Some(header) => format!("revision {} {:?}", header.revision, &output[end..]),
        None => text(output),
    }
}
