//! Root qdiscs of interfaces, and whether the kernel has `fq`.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rustix::io::Errno;

use super::{Netlink, NetlinkError, Route, link::Link};

/// `TCA_FQ_QUANTUM` of linux/pkt_sched.h, a number of four bytes.
const FQ_QUANTUM: u16 = 3;

/// The qdisc at the root of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) kind: String,
    /// The kernel put it there by itself: it has no handle.
    pub(crate) default: bool,
}

impl Netlink {
    /// What is at the root of an interface, if anything is.
    pub(crate) fn root_qdisc(&mut self, link: &Link) -> Result<Option<Root>, NetlinkError> {
        let question = TcMessage::with_index(link.index as i32);
        let messages = self.list("list qdiscs", Route::GetQueueDiscipline(question))?;
        Ok(messages.into_iter().find_map(|message| match message {
            Route::NewQueueDiscipline(message)
                if message.header.index == link.index as i32 && message.header.parent == TcHandle::ROOT =>
            {
                let kind = message.attributes.into_iter().find_map(|attribute| match attribute {
                    TcAttribute::Kind(kind) => Some(kind),
                    _ => None,
                })?;
                Some(Root { kind, default: message.header.handle == TcHandle::UNSPEC })
            }
            _ => None,
        }))
    }

    /// Puts a qdisc at the root, with the kernel's settings for it.
    pub(crate) fn set_root_qdisc(&mut self, link: &Link, kind: &str) -> Result<(), NetlinkError> {
        let message = root(link, Some(kind));
        let what = format!("put the qdisc {kind} on {}", link.name);
        self.ask(&what, NLM_F_CREATE | NLM_F_REPLACE, Route::NewQueueDiscipline(message)).map(drop)
    }

    /// Removes the qdisc at the root: the kernel puts its default there.
    pub(crate) fn remove_root_qdisc(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let what = format!("put the default qdisc on {}", link.name);
        self.ask(&what, 0, Route::DelQueueDiscipline(root(link, None))).map(drop)
    }

    /// Whether the kernel has `fq`, as a module or built in. Nothing changes: it is asked to make one with options that
    /// no `fq` takes, on the loopback, and says first if it knows the name at all.
    pub(crate) fn has_fq(&mut self) -> Result<bool, NetlinkError> {
        let Some(loopback) = self.link("lo")? else { return Ok(false) };
        let mut message = root(&loopback, Some("fq"));
        let nonsense = TcOption::Other(DefaultNla::new(FQ_QUANTUM, Vec::new()));
        message.attributes.push(TcAttribute::Options(vec![nonsense]));
        match self.ask("tell whether it has fq", NLM_F_CREATE, Route::NewQueueDiscipline(message)) {
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
            Err(error) if matches!(error.errno(), Some(Errno::INVAL | Errno::RANGE)) => Ok(true),
            Err(error) => Err(error),
            // Never seen; then there is one on the loopback now.
            Ok(_) => self.remove_root_qdisc(&loopback).map(|()| true),
        }
    }
}

fn root(link: &Link, kind: Option<&str>) -> TcMessage {
    let mut message = TcMessage::with_index(link.index as i32);
    message.header.parent = TcHandle::ROOT;
    message.attributes.extend(kind.map(|kind| TcAttribute::Kind(kind.to_owned())));
    message
}
