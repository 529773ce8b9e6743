//! The table of guarded addresses, as `guard.bpf.c` looks into it: slots of 16 bytes, empty ones of zeroes. An address is at the
//! slot of its hash or, where others have that, at one of those that follow, and no slot in between is empty.

use std::{collections::BTreeMap, io, net::IpAddr};

use libbpf_rs::{MapCore, MapFlags};

use crate::{error::Error, stats};

/// Slots, four times as many as there may be addresses.
const SLOTS: u32 = 4096;
/// Slots at which an address may be.
const PROBES_MAX: u32 = 16;

type Address = [u8; 16];
const EMPTY: Address = [0; 16];

/// Makes the addresses in the table these. One that stays is found all the while, unless another takes its slot: it passes then, for
/// as long as that takes to write.
pub(crate) fn set(map: &impl MapCore, wanted: &[IpAddr]) -> Result<(), Error> {
    let failed = |call: &'static str| {
        move |error: libbpf_rs::Error| Error::Map { call, map: "addresses", source: io::Error::other(error) }
    };
    let wanted = table(wanted);
    let mut unwanted = Vec::new();
    for slot in 0..SLOTS {
        let has = map.lookup(&slot.to_ne_bytes(), MapFlags::ANY).map_err(failed("lookup"))?;
        let has = has.unwrap_or_default();
        match wanted.get(&slot) {
            Some(address) if has != address => {
                map.update(&slot.to_ne_bytes(), address, MapFlags::ANY).map_err(failed("update"))?;
            }
            None if has != EMPTY => unwanted.push(slot),
            _ => {}
        }
    }
    for slot in unwanted {
        map.update(&slot.to_ne_bytes(), &EMPTY, MapFlags::ANY).map_err(failed("update"))?;
    }
    Ok(())
}

/// What is at which slot.
fn table(addresses: &[IpAddr]) -> BTreeMap<u32, Address> {
    let mut table = BTreeMap::new();
    for address in addresses {
        let key = stats::key(*address);
        let mut places = (0..PROBES_MAX).map(|probe| (slot(&key) + probe) % SLOTS);
        match places.find(|place| table.get(place).is_none_or(|there| *there == key)) {
            Some(place) => drop(table.insert(place, key)),
            None => tracing::warn!(%address, "not guarded: too many addresses have its hash"),
        }
    }
    table
}

fn slot(address: &Address) -> u32 {
    let words = address.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    words.fold(0, |sum, word| sum ^ word).wrapping_mul(0x9E37_79B1) >> (32 - SLOTS.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ADDRESSES_MAX;

    #[test]
    fn as_many_as_there_may_be_have_their_places() {
        // Neighbours in networks of all lengths, as a node has them.
        for shift in 0..16 {
            let all =
                (0..ADDRESSES_MAX as u32).map(|n| IpAddr::from((0x0A00_0000 | n << shift).to_be_bytes()));
            let all: Vec<_> = all.collect();
            assert_eq!(table(&all).len(), all.len(), "{shift}");
            assert_eq!(table(&[&all[..], &all[..1]].concat()).len(), all.len(), "one has one place");
        }
    }
}
