//! Alarms that members raise, and what is refused meanwhile.

use std::collections::BTreeSet;

use consensus_disk::{Batch, Disk, Order};
use consensus_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, RequestOp, TxnRequest, alarm_request::AlarmAction, request_op,
};

use crate::{StoreError, keys::META};

const PREFIX: &[u8] = b"alarm";
const END: &[u8] = b"alarn";

/// Who has raised what. On the disk as well, because a member that starts again must refuse what the others refuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    raised: BTreeSet<(i32, u64)>,
}

fn key(kind: i32, member: u64) -> Vec<u8> {
    [PREFIX, &kind.to_be_bytes(), &member.to_be_bytes()].concat()
}

impl Alarms {
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, StoreError> {
        let mut alarms = Self::default();
        let mut damaged = false;
        disk.scan(META, PREFIX, Some(END), Order::Ascending, &mut |key, _| {
            let numbers = key[PREFIX.len()..].split_first_chunk::<4>();
            match numbers.and_then(|(kind, member)| Some((kind, member.try_into().ok()?))) {
                Some((kind, member)) => {
                    alarms.raised.insert((i32::from_be_bytes(*kind), u64::from_be_bytes(member)));
                }
                None => damaged = true,
            }
            std::ops::ControlFlow::Continue(())
        })?;
        if damaged { Err(StoreError::Damaged { what: "alarm" }) } else { Ok(alarms) }
    }

    /// Raises or ends one, or says which there are; gives back those that it is about.
    pub(crate) fn apply(&mut self, request: &AlarmRequest, batch: &mut Batch) -> Vec<AlarmMember> {
        let (kind, member) = (request.alarm, request.member_id);
        let alarm = AlarmMember { member_id: member, alarm: kind };
        match request.action() {
            AlarmAction::Get => self.list(kind),
            // Nothing to raise.
            AlarmAction::Activate if kind == i32::from(AlarmType::None) => Vec::new(),
            AlarmAction::Activate => {
                if self.raised.insert((kind, member)) {
                    batch.put(META, key(kind, member), []);
                }
                vec![alarm]
            }
            AlarmAction::Deactivate => {
                if !self.raised.remove(&(kind, member)) {
                    return Vec::new();
                }
                batch.delete(META, key(kind, member));
                vec![alarm]
            }
        }
    }

    /// Those of one kind, or all.
    pub(crate) fn list(&self, kind: i32) -> Vec<AlarmMember> {
        let all = kind == i32::from(AlarmType::None);
        let of_kind = self.raised.iter().filter(|(raised, _)| all || *raised == kind);
        of_kind.map(|(alarm, member_id)| AlarmMember { member_id: *member_id, alarm: *alarm }).collect()
    }

    pub(crate) fn is_raised(&self, kind: AlarmType) -> bool {
        self.raised.iter().any(|(raised, _)| *raised == i32::from(kind))
    }
}

/// Whether a transaction could need more room.
pub fn needs_room(request: &TxnRequest) -> bool {
    let needs = |op: &RequestOp| match &op.request {
        Some(request_op::Request::RequestPut(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => needs_room(nested),
        _ => false,
    };
    request.success.iter().chain(&request.failure).any(needs)
}
