//! Finds what can be used: devices, their active ports, and the RoCE v2 address to speak from. Opens devices.
//!
//! Ports with an InfiniBand link layer are left alone: no one here could test them.

use std::{
    ffi::CStr,
    fmt,
    net::{IpAddr, Ipv6Addr},
    ptr::NonNull,
    sync::Arc,
};

use super::{Gid, RdmaError, abi, library::Verbs};

/// Devices looked at, ports of each and addresses of each port.
const DEVICES_MAX: usize = 64;
const PORTS_MAX: u8 = 16;
const GIDS_MAX: u32 = 256;

/// A packet's largest payload on a path (`enum ibv_mtu`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u8);

impl Mtu {
    /// From its number in verbs, 1 (256 bytes) to 5 (4096 bytes).
    pub fn from_code(code: u8) -> Option<Self> {
        (1..=5).contains(&code).then_some(Self(code))
    }

    /// Its number in verbs.
    pub fn code(self) -> u8 {
        self.0
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        128 << self.0
    }
}

impl Gid {
    /// As an address; one that is mapped into IPv6 as what it is.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

/// An active port of a device, with the address to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The device's name, e.g. `mlx5_0`.
    pub device: String,
    /// Number of the port, from 1.
    pub number: u8,
    /// Index of the address in the port's table.
    pub gid_index: u8,
    /// The address.
    pub gid: Gid,
    /// What the port is set to now.
    pub mtu: Mtu,
}

impl Port {
    /// All that can be used: each RoCE v2 address of each active Ethernet port.
    ///
    /// # Errors
    /// No library, or the list of devices is not to be had. A device that does not open is left out.
    pub fn all() -> Result<Vec<Self>, RdmaError> {
        Ok(Self::scan()?.0)
    }

    /// The port to speak to a peer from: the one that has the address `local`, which a TCP connection to the peer has at
    /// this end; without one, the first that has an address valid beyond its link.
    pub fn find(local: Option<IpAddr>) -> Result<Self, RdmaError> {
        let (ports, devices) = Self::scan()?;
        choose(ports, local).ok_or(RdmaError::NoPort { devices })
    }

    fn scan() -> Result<(Vec<Self>, usize), RdmaError> {
        let list = DeviceList::new()?;
        let mut ports = Vec::new();
        for &device in list.devices() {
            if let Ok(context) = Context::open(list.verbs, device) {
                context.ports(&list.name(device), &mut ports);
            }
        }
        Ok((ports, list.count))
    }
}

fn choose(ports: Vec<Port>, local: Option<IpAddr>) -> Option<Port> {
    let is_link_local = |gid: &Gid| Ipv6Addr::from(gid.0).is_unicast_link_local();
    match local {
        Some(local) => ports.into_iter().find(|port| port.gid.ip() == local.to_canonical()),
        None => ports.into_iter().min_by_key(|port| is_link_local(&port.gid)),
    }
}

/// Why there is no list: without the kernel's side the library says that a call is not implemented.
fn no_list(error: RdmaError) -> RdmaError {
    match error {
        RdmaError::Call { errno: libc::ENOSYS, .. } => RdmaError::NoKernel,
        error => error,
    }
}

struct DeviceList {
    verbs: &'static Verbs,
    list: NonNull<*mut abi::Device>,
    count: usize,
}

impl DeviceList {
    fn new() -> Result<Self, RdmaError> {
        let verbs = Verbs::get()?;
        let mut count = 0;
        // SAFETY: `count` outlives the call.
        let list = unsafe { (verbs.get_device_list)(&raw mut count) };
        let list = NonNull::new(list).ok_or_else(|| no_list(RdmaError::last("ibv_get_device_list")))?;
        Ok(Self { verbs, list, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> &[*mut abi::Device] {
        // SAFETY: the library made an array of `count` pointers, which lives until it is freed in `drop`.
        unsafe { std::slice::from_raw_parts(self.list.as_ptr(), self.count.min(DEVICES_MAX)) }
    }

    fn name(&self, device: *mut abi::Device) -> String {
        // SAFETY: `device` is of this list; its name is a C string in it.
        let name = unsafe { CStr::from_ptr((self.verbs.get_device_name)(device)) };
        name.to_string_lossy().into_owned()
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: made by `ibv_get_device_list`, freed once. Devices that were opened stay valid.
        unsafe { (self.verbs.free_device_list)(self.list.as_ptr()) }
    }
}

/// An open device.
pub(crate) struct Context {
    pub(crate) verbs: &'static Verbs,
    pub(crate) raw: NonNull<abi::Context>,
}

// SAFETY: libibverbs may be called from any thread; the pointer is to what it keeps on the heap.
unsafe impl Send for Context {}
// SAFETY: as above; its functions lock what they change in a context.
unsafe impl Sync for Context {}

impl Context {
    fn open(verbs: &'static Verbs, device: *mut abi::Device) -> Result<Self, RdmaError> {
        // SAFETY: `device` is of a list that has not been freed yet.
        let raw = unsafe { (verbs.open_device)(device) };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("ibv_open_device"))?;
        Ok(Self { verbs, raw })
    }

    /// Opens the device of a port that was found before.
    pub(crate) fn of(port: &Port) -> Result<Arc<Self>, RdmaError> {
        let list = DeviceList::new()?;
        let found = list.devices().iter().find(|&&device| list.name(device) == port.device);
        let &device = found.ok_or_else(|| RdmaError::DeviceGone { device: port.device.clone() })?;
        Ok(Arc::new(Self::open(list.verbs, device)?))
    }

    fn ports(&self, device: &str, ports: &mut Vec<Port>) {
        let mut attr = abi::DeviceAttr::default();
        // SAFETY: an open device, and a structure of the right length that outlives the call.
        if unsafe { (self.verbs.query_device)(self.raw.as_ptr(), &raw mut attr) } != 0 {
            return;
        }
        for number in 1..=attr.phys_port_cnt.min(PORTS_MAX) {
            let mut port = abi::PortAttr::default();
            // SAFETY: as above; the library fills a prefix of the structure, and the rest is zero.
            if unsafe { (self.verbs.query_port)(self.raw.as_ptr(), number, &raw mut port) } != 0
                || port.state != abi::PORT_ACTIVE
                || port.link_layer != abi::LINK_LAYER_ETHERNET
            {
                continue;
            }
            let Some(mtu) = u8::try_from(port.active_mtu).ok().and_then(Mtu::from_code) else { continue };
            for index in 0..u32::try_from(port.gid_tbl_len).unwrap_or(0).min(GIDS_MAX) {
                let Some(gid) = self.roce_v2(number, index) else { continue };
                let gid_index = u8::try_from(index).expect("GIDS_MAX is a byte's range");
                ports.push(Port { device: device.to_owned(), number, gid_index, gid, mtu });
            }
        }
    }

    /// The entry of a port's table of addresses, if it is of the right kind.
    fn roce_v2(&self, port: u8, index: u32) -> Option<Gid> {
        let mut entry = abi::GidEntry::default();
        // SAFETY: an open device, and a structure of the length that is given, which outlives the call.
        let returned = unsafe {
            (self.verbs.query_gid_ex)(
                self.raw.as_ptr(),
                port.into(),
                index,
                &raw mut entry,
                0,
                size_of::<abi::GidEntry>(),
            )
        };
        (returned == 0 && entry.gid_type == abi::GID_TYPE_ROCE_V2 && entry.gid != Gid::default())
            .then_some(entry.gid)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; whatever was made in it holds it alive.
        unsafe { (self.verbs.close_device)(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(device: &str, ip: &str) -> Port {
        let ip: IpAddr = ip.parse().unwrap();
        let gid = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Port {
            device: device.into(),
            number: 1,
            gid_index: 0,
            gid: Gid(gid),
            mtu: Mtu::from_code(3).unwrap(),
        }
    }

    #[test]
    fn the_port_that_has_the_address_of_the_tcp_connection_is_taken_and_no_other() {
        let ports = || vec![port("a", "fe80::1"), port("b", "10.0.0.1"), port("c", "10.1.0.1")];
        let chosen = |local: &str| choose(ports(), Some(local.parse().unwrap())).map(|port| port.device);
        assert_eq!(chosen("10.1.0.1").as_deref(), Some("c"));
        assert_eq!(chosen("::ffff:10.0.0.1").as_deref(), Some("b"));
        assert_eq!(chosen("10.2.0.1"), None);
        assert_eq!(choose(ports(), None).unwrap().device, "b");
        assert_eq!(choose(vec![port("a", "fe80::1")], None).unwrap().device, "a");
        assert_eq!(choose(Vec::new(), None), None);
    }

    #[test]
    fn mtu_codes_are_those_of_verbs() {
        let bytes: Vec<_> = (0..=6).map(|code| Mtu::from_code(code).map(Mtu::bytes)).collect();
        assert_eq!(bytes, [None, Some(256), Some(512), Some(1024), Some(2048), Some(4096), None]);
    }

    /// Whatever this machine has, asking for it is answered.
    #[test]
    fn a_machine_without_rdma_says_what_is_missing() {
        match Port::find(None) {
            Ok(port) => assert!(!port.device.is_empty()),
            Err(RdmaError::NoLibrary { reason }) => assert!(reason.contains("libibverbs"), "{reason}"),
            Err(RdmaError::NoPort { .. }) => {}
            Err(error @ RdmaError::NoKernel) => assert!(error.to_string().contains("ib_uverbs"), "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
}
