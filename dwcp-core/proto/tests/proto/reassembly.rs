//! Streams come out right whatever the links do: any order, any repetition, any loss of links (DWCP-5.3, DWCP-6.3).

use crate::support::{CLIENT, NOW, Pair, SERVER, capabilities, data, frames, give, lone, read_all, write};
use bytes::Bytes;
use dwcp_proto::{
    ProtocolError,
    conn::{Event, LinkId, Read},
    frame::{Flags, FrameHeader, FrameType},
};
use proptest::prelude::*;

fn bytes_at(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|at| (at * 7 + at / 256) as u8).collect()
}

// DWCP-5.3, DWCP-5.4: what a receiver must refuse.
#[test]
fn frames_that_contradict_each_other() {
    let fin = |header: FrameHeader| FrameHeader { flags: Flags::default().with_fin(true), ..header };
    let reset = |offset| FrameHeader { offset, stream: 1, ..FrameHeader::new(FrameType::Reset) };
    type Frames = Vec<(FrameHeader, usize)>;
    let overlap: [(&str, Frames); 5] = [
        ("begins before what is here", vec![(data(1, 0), 10), (data(1, 5), 10)]),
        ("begins inside what waits", vec![(data(1, 20), 10), (data(1, 25), 10)]),
        ("ends inside what waits", vec![(data(1, 20), 10), (data(1, 15), 10)]),
        ("covers what waits", vec![(data(1, 20), 10), (data(1, 0), 40)]),
        ("same begin, other length", vec![(data(1, 20), 10), (data(1, 20), 9)]),
    ];
    for (what, frames) in overlap {
        let mut server = lone(&capabilities());
        let mut results = frames.iter().map(|&(header, len)| give(&mut server, header, &vec![0; len]));
        assert_eq!(results.next(), Some(Ok(())), "{what}");
        assert!(matches!(results.next(), Some(Err(ProtocolError::Invalid { .. }))), "{what}");
    }
    let final_size: [(&str, Frames); 6] = [
        ("data beyond the end", vec![(fin(data(1, 10)), 0), (data(1, 10), 1)]),
        ("another end", vec![(fin(data(1, 10)), 0), (fin(data(1, 9)), 0)]),
        ("an end before what is here", vec![(data(1, 0), 10), (fin(data(1, 9)), 0)]),
        ("a reset before what is here", vec![(data(1, 0), 10), (reset(9), 4)]),
        ("a reset at another end", vec![(fin(data(1, 10)), 0), (reset(11), 4)]),
        ("another reset", vec![(reset(11), 4), (reset(12), 4)]),
    ];
    for (what, frames) in final_size {
        let mut server = lone(&capabilities());
        let mut results = frames.iter().map(|&(header, len)| give(&mut server, header, &vec![0; len]));
        assert_eq!(results.next(), Some(Ok(())), "{what}");
        assert_eq!(results.next(), Some(Err(ProtocolError::FinalSize { stream: 1 })), "{what}");
    }
}

// DWCP-5.3: repetitions after the end, or of a stream that is long gone, are ignored.
#[test]
fn late_repetitions() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, b"data");
    pair.ends[CLIENT].stream_finish(id).unwrap();
    pair.ends[CLIENT].stream_stop(id, 1);
    let sent = frames(&mut pair.ends[CLIENT], 0);
    let server = &mut pair.ends[SERVER];
    for round in 0..3 {
        for (header, payload) in &sent {
            server.handle_frame(NOW, LinkId(0), header, payload.clone()).unwrap();
            server.assert_invariants();
        }
        let expected = if round == 0 { (b"data".to_vec(), Read::End) } else { (Vec::new(), Read::Closed) };
        assert_eq!(read_all(server, id), expected);
    }
    assert_eq!(server.unread_bytes(), 0);
}

proptest! {
    // DWCP-5.3: frames in any order, each any number of times, read in between or not.
    #[test]
    fn any_order_and_repetition(
        lens in prop::collection::vec(prop_oneof![1..5_usize, 1..3000_usize, 4000..5000_usize], 1..40),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..60),
    ) {
        let mut frames = Vec::new();
        let mut offset = 0;
        for len in lens {
            frames.push((data(1, offset as u64), bytes_at(offset, len)));
            offset += len;
        }
        frames.push((FrameHeader { flags: Flags::default().with_fin(true), ..data(1, offset as u64) }, vec![]));
        let mut server = lone(&capabilities());
        let mut read = Vec::new();
        let all = (0..frames.len()).rev().map(|at| (at, false));
        let picked: Vec<_> = order.iter().map(|(index, read)| (index.index(frames.len()), *read)).chain(all).collect();
        for (at, read_now) in picked {
            let (header, payload) = &frames[at];
            prop_assert_eq!(give(&mut server, *header, payload), Ok(()));
            prop_assert!(server.unread_bytes() <= capabilities().stream_window);
            if read_now {
                read.extend(read_all(&mut server, 1).0);
            }
        }
        let (rest, end) = read_all(&mut server, 1);
        read.extend(rest);
        prop_assert_eq!(read, bytes_at(0, offset));
        prop_assert!(matches!(end, Read::End | Read::Closed));
    }

    // DWCP-6.3, DWCP-7.2: links die with any part of their frames delivered and any part of those acknowledged.
    #[test]
    fn any_loss_of_links(
        rounds in prop::collection::vec((1..4_usize, 0..30_usize, any::<bool>(), 1..7_000_usize), 1..12),
    ) {
        let mut pair = Pair::new();
        let id = pair.ends[CLIENT].open_stream().unwrap();
        let (mut written, mut sent_messages, mut read, mut messages) = (0, 0_u32, Vec::new(), Vec::new());
        let mut take = |server: &mut dwcp_proto::conn::Connection, read: &mut Vec<u8>| {
            read.extend(read_all(server, 1).0);
            messages.extend(std::iter::from_fn(|| server.message_receive()).map(|message| message.payload));
        };
        for (link, (frames_max, delivered, acknowledge, len)) in (0..).zip(rounds) {
            for _ in 0..frames_max {
                write(&mut pair.ends[CLIENT], id, &bytes_at(written, len));
                written += len;
                let message = Bytes::copy_from_slice(&sent_messages.to_le_bytes());
                pair.ends[CLIENT].message_send(NOW, dwcp_proto::conn::Priority::Bulk, message.clone()).unwrap();
                sent_messages += 1;
            }
            for (header, payload) in frames(&mut pair.ends[CLIENT], link).into_iter().take(delivered) {
                pair.ends[SERVER].handle_frame(NOW, LinkId(link), &header, payload).unwrap();
            }
            take(&mut pair.ends[SERVER], &mut read);
            if acknowledge {
                pair.ends[SERVER].handle_timeout(NOW + std::time::Duration::from_secs(1));
                pair.send(SERVER, link);
                pair.deliver(SERVER, link);
            }
            pair.lose_link(link);
            pair.add_link(link + 1);
        }
        pair.ends[CLIENT].stream_finish(id).unwrap();
        pair.exchange();
        take(&mut pair.ends[SERVER], &mut read);
        prop_assert_eq!(read, bytes_at(0, written));
        let mut numbers: Vec<u32> =
            messages.iter().map(|m| u32::from_le_bytes(m.as_ref().try_into().unwrap())).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..sent_messages).collect::<Vec<_>>());
        pair.exchange_acks();
        prop_assert!(pair.events(CLIENT).contains(&Event::StreamAcknowledged(id)));
    }
}
