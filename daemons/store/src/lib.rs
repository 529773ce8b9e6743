//! Members of a store over gRPC: where they are, TLS, login, and the next member where one does not answer.
//!
//! A request goes to the next member if the one before did nothing. If that is not known, only a request that is safe to
//! repeat does. Works with etcd's members, too. Deliberately not here: what requests mean, flags and files.

mod client;
mod endpoint;
mod failure;

pub use client::{Client, ENDPOINTS_MAX};
pub use endpoint::{ANSWER_BYTES_MAX, Authorized, Endpoint, EndpointError, Link, Options, Token, User};
pub use failure::{Effect, Failure, StoreError, printable, root_cause};
