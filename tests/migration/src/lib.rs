//! A guest that checks itself, two QEMUs in the lab's namespaces, and the commands that move it from one to the other.

pub mod guest;
pub mod machine;
pub mod moving;
pub mod novacron;
pub mod workload;
