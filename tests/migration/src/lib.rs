//! A guest that checks itself, two QEMUs in the lab's namespaces, and ways to move the guest from one to the other.

pub mod alone;
pub mod guest;
pub mod machine;
pub mod moving;
pub mod novacron;
pub mod workload;
