//! Families of generic netlink, which the kernel numbers as it starts.

use netlink_packet_generic::{
    GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::{Netlink, NetlinkError};

impl Netlink {
    /// For families of generic netlink.
    pub(crate) fn generic() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_GENERIC)
    }

    /// The number of a family; none if the kernel does not have it. Asking loads its module, where that may be done.
    pub(crate) fn family(&mut self, name: &str) -> Result<Option<u16>, NetlinkError> {
        let question = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
        });
        let answers = match self.ask(&format!("tell of the family {name}"), 0, question) {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.into_iter().flat_map(|answer| answer.payload.nlas).find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(id),
            _ => None,
        }))
    }
}
