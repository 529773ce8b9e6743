//! `Guard`: one interface that is guarded. Attaching, taking over, replacing and detaching; what its maps say.

use std::{
    cell::RefCell,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use libbpf_rs::{Link, MapCore, MapFlags, Program, RingBufferBuilder, query::LinkTypeInfo};

use crate::{
    addresses, capabilities,
    config::{ADDRESSES_MAX, Config, Mode, QUEUES_MAX},
    error::Error,
    folder::Folder,
    interface::{self, Attached},
    program::{self, Maps, OpenGuardSkel},
    stats::{self, Action, Event, Peer, Totals},
    whose,
};

/// A guard of one interface. Dropping it leaves the program attached: [`Guard::detach`] ends it.
#[derive(Debug)]
pub struct Guard {
    interface: String,
    mode: Mode,
    native_refused: Option<io::Error>,
    folder: Folder,
    maps: Maps,
}

/// A new attachment.
struct Attachment {
    mode: Mode,
    native_refused: Option<io::Error>,
}

impl Guard {
    /// Guards an interface. If a guard of an earlier process is pinned, its program is replaced by one with these settings
    /// without a gap, and counters, buckets and flows go on; another `mode` than the one it has is a new attachment. Without a
    /// mode it stays where it is, also where the driver would take it by now: [`Guard::native_refused`] tells.
    ///
    /// # Errors
    /// [`Error`] says what is missing or in the way. Nothing has changed then, unless another mode was asked for and the
    /// interface refused it: then it has no program.
    pub fn attach(interface: &str, config: &Config) -> Result<Self, Error> {
        config.check()?;
        capabilities::check()?;
        let index = interface::index(interface)?;
        let folder = Folder::open(&config.root, interface)?;
        match attach_in(&folder, interface, index, config) {
            Ok((attachment, maps)) => Ok(Self {
                interface: interface.to_owned(),
                mode: attachment.mode,
                native_refused: attachment.native_refused,
                folder,
                maps,
            }),
            Err(error) => {
                folder.remove_if_unused();
                Err(error)
            }
        }
    }

    /// Detaches the program and removes all pins, counters included.
    ///
    /// # Errors
    /// [`Error::Link`] or [`Error::Folder`] if the kernel refuses.
    pub fn detach(self) -> Result<(), Error> {
        if let Some(link) = self.folder.link()? {
            detach(&link, &self.interface)?;
        }
        self.folder.remove()
    }

    /// Whether the interface of this name has the program still. It has not if the interface was removed, also if there is
    /// another of its name, or if somebody has detached the program.
    ///
    /// # Errors
    /// [`Error::Link`] or [`Error::Folder`] if the kernel does not say.
    pub fn is_attached(&self) -> Result<bool, Error> {
        let Ok(index) = interface::index(&self.interface) else { return Ok(false) };
        let attached = interface::attached(index).map_err(of_link("query", &self.interface))?;
        let (Some(attached), Some(link)) = (attached, self.folder.link()?) else { return Ok(false) };
        let info = link.info().map_err(|error| of_link("query", &self.interface)(io::Error::other(error)))?;
        Ok(attached.id == info.prog_id)
    }

    /// Where the program runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Why the program does not run in the driver, unless [`Config::mode`] wants that: what this process was told, or the one
    /// whose program it has taken over.
    pub fn native_refused(&self) -> Option<&io::Error> {
        self.native_refused.as_ref()
    }

    /// Counts by action, since the guard was first attached.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn totals(&self) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        for action in Action::ALL {
            let key = u32::from(action as u8).to_ne_bytes();
            let shares =
                self.maps.totals.lookup_percpu(&key, MapFlags::ANY).map_err(failed("lookup", "totals"))?;
            for share in shares.unwrap_or_default() {
                stats::add_count(&share, &mut totals.0[action as usize]).expect("the program's own value");
            }
        }
        Ok(totals)
    }

    /// Counts of one source since it came, or came back: those that have been silent longest are forgotten for others.
    /// `None`: it is not known.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn peer(&self, address: IpAddr) -> Result<Option<Peer>, Error> {
        let key = stats::key(address);
        let shares = self.maps.peers.lookup_percpu(&key, MapFlags::ANY).map_err(failed("lookup", "peers"))?;
        let Some(shares) = shares else { return Ok(None) };
        let mut packets = [0; Action::ALL.len()];
        for share in shares {
            for (at, sum) in packets.iter_mut().enumerate() {
                *sum += stats::u64_at(&share, at * 8).expect("the program's own value");
            }
        }
        Ok(Some(Peer { address, packets }))
    }

    /// Hands over the drops that were sampled since the last call, and waits for the first if there are none. For a thread
    /// that does nothing else, with a timeout of about a second.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn poll_events(&self, timeout: Duration, mut take: impl FnMut(Event)) -> Result<(), Error> {
        let take = RefCell::new(|bytes: &[u8]| stats::event(bytes).into_iter().for_each(&mut take));
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.maps.events, |bytes| {
                take.borrow_mut()(bytes);
                0
            })
            .map_err(failed("open", "events"))?;
        let ring = builder.build().map_err(failed("open", "events"))?;
        ring.poll(timeout).map_err(failed("poll", "events"))
    }

    /// Names the destination addresses that are guarded from now on; those of the settings are no more.
    ///
    /// # Errors
    /// [`Error::Setting`] for more than [`ADDRESSES_MAX`], [`Error::Map`] if the kernel refuses.
    pub fn set_addresses(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        if addresses.len() > ADDRESSES_MAX {
            return Err(Error::Setting { setting: "addresses", allowed: "at most 1024 addresses" });
        }
        addresses::set(&self.maps.addresses, addresses)
    }

    /// Makes datagrams of a flow go to the AF_XDP socket of the queue they arrive on, and to the kernel's UDP where there
    /// is none.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, for instance beyond [`crate::FLOWS_MAX`].
    pub fn add_flow(&self, flow: u64) -> Result<(), Error> {
        self.maps.flows.update(&flow.to_ne_bytes(), &[1], MapFlags::ANY).map_err(failed("update", "flows"))
    }

    /// Ends that; a flow that is not known is none.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn remove_flow(&self, flow: u64) -> Result<(), Error> {
        let key = flow.to_ne_bytes();
        match self.maps.flows.delete(&key) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(failed("delete", "flows")(error))
            }
            _ => Ok(()),
        }
    }

    /// Ends that for all flows, also those of a process that was killed.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn clear_flows(&self) -> Result<(), Error> {
        // Taken first: the kernel begins again from the front after a key that is gone.
        let known: Vec<_> = self.maps.flows.keys().filter_map(|key| key.try_into().ok()).collect();
        known.into_iter().try_for_each(|key| self.remove_flow(u64::from_ne_bytes(key)))
    }

    /// Names the AF_XDP socket of a receive queue, which has to be bound to that queue. The kernel forgets it when it is
    /// closed.
    ///
    /// # Errors
    /// [`Error::Setting`] for a queue from [`QUEUES_MAX`] on, [`Error::Map`] if the kernel refuses.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        if queue >= QUEUES_MAX {
            return Err(Error::Setting { setting: "queue", allowed: "below 64" });
        }
        let (key, value) = (queue.to_ne_bytes(), socket.as_raw_fd().to_ne_bytes());
        self.maps.sockets.update(&key, &value, MapFlags::ANY).map_err(failed("update", "sockets"))
    }
}

/// What is pinned for an interface.
enum Pinned {
    Nothing,
    /// A link that guards it.
    Usable(Link, Mode),
    /// A link whose interface is gone, or that is of another mode than is wanted.
    Replaceable(Link),
}

fn attach_in(
    folder: &Folder,
    interface: &str,
    index: i32,
    config: &Config,
) -> Result<(Attachment, Maps), Error> {
    let pinned = pinned(folder, interface, index, config.mode)?;
    let first = match &pinned {
        Pinned::Usable(_, mode) => *mode,
        _ => config.mode.unwrap_or(Mode::Native),
    };
    // An interface takes no native program beside a generic one, so trying again would leave it without any for a moment.
    let earlier = match (&pinned, config.mode) {
        (Pinned::Usable(_, Mode::Generic), None) => Some(refused_earlier(folder)),
        _ => None,
    };
    let (native_refused, maps) = match load_in(folder, interface, index, config, first, pinned) {
        Err(Error::Attach { source, .. }) if config.mode.is_none() => {
            folder.keep_refusal(&source)?;
            let maps = load_in(folder, interface, index, config, Mode::Generic, Pinned::Nothing)?;
            (Some(source), maps)
        }
        result => (earlier, result?),
    };
    folder.remove_other_maps()?;
    let mode = if native_refused.is_some() { Mode::Generic } else { first };
    Ok((Attachment { mode, native_refused }, maps))
}

/// Why a guard that is taken over is generic.
fn refused_earlier(folder: &Folder) -> io::Error {
    const AGAIN: &str = "native is tried again when that guard has been detached";
    match folder.refusal() {
        Some(refusal) => {
            let text = format!("{refusal}, when the interface was first guarded: {AGAIN}");
            io::Error::new(refusal.kind(), text)
        }
        None => {
            let text = format!("an earlier process has guarded the interface generically: {AGAIN}");
            io::Error::new(io::ErrorKind::AlreadyExists, text)
        }
    }
}

/// Loads the program for a mode, and puts it where the pinned one is or ought to be.
fn load_in(
    folder: &Folder,
    interface: &str,
    index: i32,
    config: &Config,
    mode: Mode,
    pinned: Pinned,
) -> Result<Maps, Error> {
    let share = |open: &mut OpenGuardSkel<'_>| program::share_maps(open, &folder.maps());
    let attach_new =
        |program: &Program<'_>| folder.pin(&attach_link(folder, interface, index, mode, program)?);
    let ((), maps) = program::load(config, mode, share, |program, _| match pinned {
        Pinned::Usable(mut link, _) => {
            link.update_prog(program).map_err(|error| of_link("update", interface)(io::Error::other(error)))
        }
        Pinned::Replaceable(link) => {
            detach(&link, interface)?;
            folder.unpin()?;
            attach_new(program)
        }
        Pinned::Nothing => attach_new(program),
    })?;
    Ok(maps)
}

/// Refuses if the interface has a program that is not the pinned link's.
fn pinned(folder: &Folder, interface: &str, index: i32, wanted: Option<Mode>) -> Result<Pinned, Error> {
    let attached = interface::attached(index).map_err(of_link("query", interface))?;
    let Some(link) = folder.link()? else {
        return attached
            .map_or(Ok(Pinned::Nothing), |attached| Err(occupied(folder, interface, index, attached)));
    };
    let info = link.info().map_err(|error| of_link("query", interface)(io::Error::other(error)))?;
    // The kernel takes the link from an interface that goes.
    let is_detached = matches!(&info.info, LinkTypeInfo::Xdp(of) if of.ifindex == 0);
    match attached {
        Some(attached) if attached.id == info.prog_id => Ok(match wanted {
            Some(wanted) if wanted != attached.mode => Pinned::Replaceable(link),
            _ => Pinned::Usable(link, attached.mode),
        }),
        Some(attached) if is_detached => Err(occupied(folder, interface, index, attached)),
        None if is_detached => Ok(Pinned::Replaceable(link)),
        _ => Err(Error::OtherNamespace { interface: interface.to_owned(), folder: folder.path().to_owned() }),
    }
}

fn attach_link(
    folder: &Folder,
    interface: &str,
    index: i32,
    mode: Mode,
    program: &Program<'_>,
) -> Result<OwnedFd, Error> {
    interface::attach(index, program.as_fd(), mode).map_err(|source| match interface::attached(index) {
        // It came after this guard had looked.
        Ok(Some(attached)) => occupied(folder, interface, index, attached),
        _ => Error::Attach { interface: interface.to_owned(), mode, source },
    })
}

fn detach(link: &Link, interface: &str) -> Result<(), Error> {
    link.detach().map_err(|error| of_link("detach", interface)(io::Error::other(error)))
}

fn occupied(folder: &Folder, interface: &str, index: i32, attached: Attached) -> Error {
    let present = whose::of(attached, interface, index, folder.root());
    Error::Occupied { interface: interface.to_owned(), present }
}

fn of_link(call: &'static str, interface: &str) -> impl FnOnce(io::Error) -> Error {
    let interface = interface.to_owned();
    move |source| Error::Link { call, interface, source }
}

fn failed(call: &'static str, map: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Error {
    move |error| Error::Map { call, map, source: io::Error::other(error) }
}
