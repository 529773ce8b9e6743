//! Differences that a comparison has found, until it is clear whether something was lost.
//!
//! Both sides may know a change and only one have it, without any loss: whoever told the other had something in its place, a register
//! with a later stamp, and that is still on its way there (REGIONS-4.2). What was found is merged at once; it was lost if
//! everything that anybody knew then has arrived, and nothing of it is in its place.

use super::{Local, Replicator, compare::in_leaf};
use crate::{
    items::Items,
    limits::WANTED_MAX,
    tree::{item_hash, key_hash},
    vector::{RegionId, VersionVector},
};

/// An item that differs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    pub(super) leaf: u16,
    pub(super) key_hash: u64,
    /// Hashes of the item here and there; 0: there was none.
    pub(super) here: u64,
    pub(super) there: u64,
}

/// What one comparison has found.
#[derive(Clone, Debug)]
pub(super) struct Suspects {
    region: RegionId,
    /// What anybody has told that it knows, at that time.
    need: VersionVector,
    differences: Vec<Difference>,
}

impl Replicator {
    /// Something differs from a region that knows `version`.
    pub(super) fn suspect<I>(
        &mut self,
        region: RegionId,
        version: &VersionVector,
        mut differences: Vec<Difference>,
        local: Local<'_, I>,
    ) {
        let mut need = self.rows.told();
        need.join(local.replica.version());
        need.join(version);
        if local.replica.version().includes(&need) && version.includes(&need) {
            return self.differs(region, differences.len());
        }
        let waiting: usize = self.suspects.iter().map(|suspects| suspects.differences.len()).sum();
        differences.truncate(WANTED_MAX.saturating_sub(waiting));
        if !differences.is_empty() {
            self.suspects.push(Suspects { region, need, differences });
        }
    }

    /// An interval has begun: is it clear by now? What a region that was removed has told of, and no member knows, never comes, and
    /// nothing is said of such a region any more.
    pub(super) fn judge<I: Items>(&mut self, local: Local<'_, I>) -> Result<(), I::Error> {
        let (version, members, told) =
            (local.replica.version(), local.replica.membership(), self.rows.told());
        self.suspects.retain(|suspects| members.contains(suspects.region));
        let has = |(region, counter): (RegionId, u64)| {
            version.get(region) >= counter
                || !members.contains(region) && version.get(region) >= told.get(region)
        };
        let is_clear = |suspects: &mut Suspects| suspects.need.iter().all(has);
        for Suspects { region, differences, .. } in self.suspects.extract_if(.., is_clear).collect::<Vec<_>>()
        {
            let mut lost = 0;
            for of_leaf in differences.chunk_by(|one, next| one.leaf == next.leaf) {
                let items = in_leaf(of_leaf[0].leaf, local.items)?;
                let now = |key| {
                    let item = items.iter().find(|(found, _)| key_hash(found) == key);
                    item.map(|(found, item)| item_hash(found, item)).filter(|now| *now != 0)
                };
                let is_lost =
                    |of: &&Difference| now(of.key_hash).is_some_and(|now| now == of.here || now == of.there);
                lost += of_leaf.iter().filter(is_lost).count();
            }
            self.differs(region, lost);
        }
        Ok(())
    }
}
