//! Appends of many entries as several messages: raft-rs bounds the bytes of a message and not its entries.

use raft::eraftpb::{Message, MessageType};

/// The same message, or, of an append with more than `entries_max` entries, one after the other: each begins where the one before
/// it ends, as if the leader had sent it so.
pub(super) fn split(mut message: Message, entries_max: usize) -> Vec<Message> {
    let entries_max = entries_max.max(1);
    if message.get_msg_type() != MessageType::MsgAppend || message.entries.len() <= entries_max {
        return vec![message];
    }
    let mut rest = message.take_entries().into_vec();
    let mut messages = Vec::with_capacity(rest.len().div_ceil(entries_max));
    while !rest.is_empty() {
        let after = rest.split_off(entries_max.min(rest.len()));
        let Some(last) = rest.last().map(|last| (last.index, last.term)) else { break };
        let mut part = message.clone();
        part.set_entries(rest.into());
        messages.push(part);
        (message.index, message.log_term) = last;
        rest = after;
    }
    messages
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn append(entries: u64) -> Message {
        let entry = |index| Entry { index, term: 1 + index / 4, ..Entry::default() };
        let mut message = Message { index: 10, log_term: 3, term: 9, commit: 12, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries((11..11 + entries).map(entry).collect::<Vec<_>>().into());
        message
    }

    #[test]
    fn parts_follow_each_other() {
        for (entries, max, lengths) in [
            (0, 3, &[0][..]),
            (3, 3, &[3]),
            (4, 3, &[3, 1]),
            (9, 3, &[3, 3, 3]),
            (2, 1, &[1, 1]),
            (2, 0, &[1, 1]),
        ] {
            let whole = append(entries);
            let parts = split(whole.clone(), max);
            assert_eq!(parts.iter().map(|part| part.entries.len()).collect::<Vec<_>>(), lengths);
            let (mut index, mut term) = (whole.index, whole.log_term);
            for part in &parts {
                assert_eq!((part.index, part.log_term), (index, term), "it begins where the one before ends");
                assert_eq!((part.term, part.commit), (whole.term, whole.commit));
                if let Some(last) = part.entries.last() {
                    (index, term) = (last.index, last.term);
                }
            }
            let all: Vec<_> = parts.into_iter().flat_map(|mut part| part.take_entries().into_vec()).collect();
            assert_eq!(all, whole.entries.to_vec());
        }
    }

    #[test]
    fn other_messages_stay_as_they_are() {
        let mut message = append(9);
        message.set_msg_type(MessageType::MsgPropose);
        assert_eq!(split(message.clone(), 3), [message]);
    }
}
