//! The tables of the specification are those of the code.

use dwcp_proto::{CloseCode, frame::FrameType, hello, limits};

const SPECIFICATION: &str = include_str!("../../../../docs/spec/dwcp-1.md");

/// The cells of the table in a clause, without its head.
fn table(clause: &str) -> Vec<Vec<&'static str>> {
    let begin = SPECIFICATION.find(&format!("\n- **{clause}** ")).expect("the clause exists");
    let clause = SPECIFICATION[begin..].split("\n- **").nth(1).expect("the clause itself");
    let rows = clause.lines().filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'));
    rows.skip(2).map(|row| row.split('|').map(str::trim).collect()).collect()
}

fn hex(cell: &str) -> u32 {
    u32::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{cell} is no number"))
}

// DWCP-3.9: no type is missing on either side, and what is reliable is.
#[test]
fn frame_types() {
    let rows = table("3.9");
    let known: Vec<u32> = FrameType::ALL.iter().map(|ty| *ty as u32).collect();
    assert_eq!(rows.iter().map(|row| hex(row[0])).collect::<Vec<_>>(), known);
    for row in rows {
        let ty = FrameType::from_wire(hex(row[0]) as u8).expect("a known type");
        assert_eq!(row[1].replace('_', ""), format!("{ty:?}").to_uppercase());
        assert_eq!(row[2] == "R", ty.is_reliable(), "{ty:?}");
    }
    for unknown in (0x14..=0xff).chain([0]) {
        assert_eq!(FrameType::from_wire(unknown), None);
    }
}

// DWCP-8.4
#[test]
fn close_codes() {
    let codes = [
        ("NONE", CloseCode::NONE),
        ("PROTOCOL_ERROR", CloseCode::PROTOCOL_ERROR),
        ("VERSION_UNSUPPORTED", CloseCode::VERSION_UNSUPPORTED),
        ("CHECKSUM_MISMATCH", CloseCode::CHECKSUM_MISMATCH),
        ("FRAME_TOO_LARGE", CloseCode::FRAME_TOO_LARGE),
        ("UNKNOWN_FRAME", CloseCode::UNKNOWN_FRAME),
        ("CREDIT_EXCEEDED", CloseCode::CREDIT_EXCEEDED),
        ("LIMIT_EXCEEDED", CloseCode::LIMIT_EXCEEDED),
        ("NOT_ALLOWED", CloseCode::NOT_ALLOWED),
        ("UNKNOWN_CONNECTION", CloseCode::UNKNOWN_CONNECTION),
        ("BUSY", CloseCode::BUSY),
        ("SHUTTING_DOWN", CloseCode::SHUTTING_DOWN),
        ("IDLE", CloseCode::IDLE),
        ("INTERNAL", CloseCode::INTERNAL),
    ];
    let mut said = Vec::new();
    for row in table("8.4") {
        for cells in [&row[..2], &row[3..]] {
            let name = cells[1].split(':').next().expect("a name");
            match cells[0].strip_prefix("from ") {
                Some(first) => assert_eq!(hex(first), CloseCode::APPLICATION),
                None if cells[0].is_empty() => {}
                None => said.push((name, CloseCode(hex(cells[0])))),
            }
        }
    }
    said.sort_by_key(|(_, code)| code.0);
    assert_eq!(said, codes);
    assert_eq!(CloseCode(0x1007).to_string(), "application code 7");
}

// DWCP-9.1: the values; that they hold is what the tests of each clause show.
#[test]
fn bounds() {
    let bounds = [
        ("FRAMES_OUT_OF_ORDER_MAX", limits::FRAMES_OUT_OF_ORDER_MAX as u64),
        ("FRAMES_IN_FLIGHT_MAX", limits::FRAMES_IN_FLIGHT_MAX as u64),
        ("BYTES_IN_FLIGHT_MAX", limits::BYTES_IN_FLIGHT_MAX as u64),
        ("STREAM_UNSENT_BYTES_MAX", limits::STREAM_UNSENT_BYTES_MAX as u64),
        ("CONNECTION_UNSENT_BYTES_MAX", limits::CONNECTION_UNSENT_BYTES_MAX as u64),
        ("MESSAGE_LEN_MAX", limits::MESSAGE_LEN_MAX as u64),
        ("MESSAGE_QUEUE_BYTES_MAX", limits::MESSAGE_QUEUE_BYTES_MAX as u64),
        ("BATCHED_MESSAGE_MAX", limits::BATCHED_MESSAGE_MAX as u64),
        ("MESSAGE_BATCH_BYTES", limits::MESSAGE_BATCH_BYTES as u64),
        ("MESSAGE_SEQUENCE_WINDOW", limits::MESSAGE_SEQUENCE_WINDOW),
        ("REQUESTS_IN_FLIGHT_MAX", limits::REQUESTS_IN_FLIGHT_MAX as u64),
        ("CODEC_RAW_LEN_MIN", u64::from(limits::CODEC_RAW_LEN_MIN)),
        ("HELLO_LEN_MAX", hello::HELLO_LEN_MAX as u64),
        ("DICTIONARIES_MAX", hello::DICTIONARIES_MAX as u64),
        ("NAME_LEN_MAX", hello::NAME_LEN_MAX as u64),
        ("CLOSE_TEXT_MAX", limits::CLOSE_TEXT_MAX as u64),
        ("LINKS_MAX", limits::LINKS_MAX as u64),
    ];
    let mut said = Vec::new();
    for row in table("9.1") {
        let constants = row[0].split(", ").map(|name| name.trim_matches('`'));
        let named = constants.filter(|name| name.contains('_') && name.to_uppercase() == **name);
        said.extend(named.zip(row[1].split(", ").map(bytes)));
    }
    assert_eq!(said, bounds);
}

fn bytes(cell: &str) -> u64 {
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    let unit = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => panic!("{cell} has no unit that is known here"),
    };
    number.parse::<u64>().unwrap_or_else(|_| panic!("{cell} is no number")) * unit
}
