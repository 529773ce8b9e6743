//! What happens in a run.

/// A mistake that is made on purpose, and has to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A tombstone goes as soon as its own region has it.
    CollectsEarly,
    /// The same, and the region does not know that it has.
    CollectsSilently,
    /// A merge leaves the region's clock as it was.
    ForgetsClocks,
    /// After a change of leaders a region counts its last changes once more.
    ReusesDots,
    /// A delta counts as complete although one before it was lost.
    IgnoresGaps,
    /// A member takes its own time instead of the one in the log.
    ReadsItsClock,
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) regions: u32,
    /// Of the workload, in simulated milliseconds; faults end with it.
    pub(crate) duration_ms: u64,
    /// Changes by clients in that time.
    pub(crate) changes: u64,
    pub(crate) keys: u64,
    /// Between two regions, one way.
    pub(crate) delay_ms: u64,
    /// By how much a machine's clock is wrong at most.
    pub(crate) skew_ms: u64,
    pub(crate) has_faults: bool,
    /// Another region is added after a third of the time.
    pub(crate) joins: bool,
    /// The last of the first regions is removed after half of the time.
    pub(crate) removes: bool,
    pub(crate) topology: Shape,
    pub(crate) mistake: Option<Mistake>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Mesh,
    HubSpoke,
    Chain,
}

impl Plan {
    /// Three regions in trouble.
    pub(crate) fn faults(seed: u64) -> Self {
        Self {
            seed,
            regions: 3,
            duration_ms: 120_000,
            changes: 4_000,
            keys: 300,
            delay_ms: 100,
            skew_ms: 1_000,
            has_faults: true,
            joins: false,
            removes: false,
            topology: Shape::Mesh,
            mistake: None,
        }
    }
}
