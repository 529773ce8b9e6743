//! Is a history of concurrent operations linearizable?
//!
//! It is if each operation can be given one moment between its call and its return so that, in the order of these moments,
//! all answers are what a sequential object answers (Herlihy and Wing, "Linearizability: a correctness condition for
//! concurrent objects", 1990). Owns histories, models of sequential objects, and the search for such an order. Deliberately
//! not here: clocks, threads, randomness, and where histories come from. Times are numbers, so that a simulator can record
//! as well as a test with real processes.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of the
//! configurations it has been in ("Testing for linearizability", 2017), for each key alone (Horn and Kroening, "Faster
//! linearizability checking via P-compositionality", 2015).
//!
//! ```
//! use linearizability::{History, Register, RegisterInput::*, RegisterOutput::*, Verdict, check};
//!
//! let mut history = History::default();
//! let write = history.call(1, "key", Write(7), 10);
//! history.returned(write, Written, 20);
//! let read = history.call(2, "key", Read, 30);
//! history.returned(read, Value(None), 40); // what was there before the write
//! let verdict = check(&Register::default(), history.operations(), 1_000);
//! assert!(matches!(verdict, Verdict::Violation(violation) if violation.key == "key"));
//! ```

mod check;
mod history;
mod models;
mod timeline;
mod verdict;
mod visited;

pub use check::check;
pub use history::{Answer, History, Operation, OperationId};
pub use models::{
    Model,
    etcd_key::{EtcdKey, EtcdKeyInput, EtcdKeyOutput, EtcdKeyState, Revision},
    register::{Register, RegisterInput, RegisterOutput},
    text::{Text, TextInput, TextOutput},
    unseen::merge_unseen_writes,
};
pub use verdict::{Verdict, Violation};
