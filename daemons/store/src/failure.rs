//! How members fail to answer, and what became of the request then.

use std::{error::Error, fmt};

use tonic::{Code, Status};

/// Answers of etcd and of our members that mean: nothing was done, and another member, or the same one soon, may do it.
const NOTHING_DONE: [&str; 4] = [
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: rpc not supported for learner",
];

/// What became of a request that was not answered as wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None: another member may do it.
    Nothing,
    /// The connection was lost, or time ran out: it may have been done.
    Unknown,
    /// The store will not do it, whichever member is asked.
    Refused,
}

/// How one member failed to answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which member, as it was named.
    pub endpoint: String,
    /// In words.
    pub message: String,
    /// Of gRPC.
    pub code: Code,
    /// What became of the request.
    pub effect: Effect,
    /// The member is there and may do it soon, when there is a leader again.
    pub may_pass: bool,
}

impl Failure {
    /// It cannot be reached.
    pub fn unreachable(endpoint: &str, message: String) -> Self {
        let endpoint = endpoint.to_owned();
        Self { endpoint, message, code: Code::Unavailable, effect: Effect::Nothing, may_pass: false }
    }

    /// It was asked, and nothing came.
    pub fn silent(endpoint: &str, message: String) -> Self {
        let endpoint = endpoint.to_owned();
        Self { endpoint, message, code: Code::DeadlineExceeded, effect: Effect::Unknown, may_pass: false }
    }

    /// It answered with this.
    pub fn of_status(endpoint: &str, status: &Status) -> Self {
        let (code, endpoint) = (status.code(), endpoint.to_owned());
        // What a member says has no source: such a status was made on this side, when the connection was lost.
        if status.source().is_some() {
            let message = root_cause(status);
            return Self { endpoint, message, code, effect: Effect::Unknown, may_pass: false };
        }
        let effect = match code {
            _ if NOTHING_DONE.contains(&status.message()) => Effect::Nothing,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Effect::Unknown,
            _ => Effect::Refused,
        };
        let message = match status.message() {
            "" => code.description().to_owned(),
            said => printable(said.strip_prefix("etcdserver: ").unwrap_or(said)),
        };
        Self { endpoint, message, code, effect, may_pass: effect != Effect::Refused }
    }

    /// The connection is of no use any more.
    pub fn is_of_connection(&self) -> bool {
        self.effect != Effect::Refused && !self.may_pass
    }

    /// The members could do it at another time, as they are: of a learner that has not enough of the log, or a change that
    /// waits for another one.
    pub fn is_not_yet(&self) -> bool {
        self.code == Code::FailedPrecondition
    }

    /// It is about who asks.
    pub fn is_of_access(&self) -> bool {
        matches!(self.code, Code::PermissionDenied | Code::Unauthenticated)
            || self.message.starts_with("authentication failed")
            || self.message == "user name is empty"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.message)
    }
}

/// A request that the store did not carry out, or of which nobody knows.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// A member said no, and the others would as well.
    Refused {
        /// The request.
        what: &'static str,
        /// What the member said.
        failure: Failure,
    },
    /// A request that must not be repeated has got no answer.
    Unknown {
        /// The request.
        what: &'static str,
        /// How it got no answer.
        failure: Failure,
    },
    /// None of the members did it; all have been asked.
    NoMember {
        /// The request.
        what: &'static str,
        /// Of each member.
        failures: Vec<Failure>,
    },
}

impl StoreError {
    /// Whether it is not about who asks, or what, but about members that may be back soon.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoMember { .. })
    }

    /// Whether the store does not let this user do it.
    pub fn is_of_access(&self) -> bool {
        matches!(self, Self::Refused { failure, .. } if failure.is_of_access())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { what, failure } => write!(f, "{what}: {failure}"),
            Self::Unknown { what, failure } => {
                write!(f, "{what}: {failure}; it may have been done all the same: look before you repeat it")
            }
            Self::NoMember { what, failures } => {
                let each: Vec<_> = failures.iter().map(ToString::to_string).collect();
                write!(f, "{what}: no member does it: {}", each.join("; "))
            }
        }
    }
}

impl Error for StoreError {}

/// What others say may have anything in it: control characters are not passed on to a terminal.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// The last of an error's causes: those before it only say in which layer it was.
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    printable(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_request_is_known_from_the_answer() {
        let effect = |status: Status| Failure::of_status("a:1", &status).effect;
        assert_eq!(effect(Status::unavailable("etcdserver: no leader")), Effect::Nothing);
        assert_eq!(effect(Status::resource_exhausted("etcdserver: too many requests")), Effect::Nothing);
        assert_eq!(effect(Status::unavailable("etcdserver: request timed out")), Effect::Unknown);
        assert_eq!(effect(Status::invalid_argument("etcdserver: key is not provided")), Effect::Refused);
        let mut lost = Status::unknown("transport error");
        lost.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
        let lost = Failure::of_status("a:1", &lost);
        assert_eq!((lost.effect, lost.may_pass), (Effect::Unknown, false));
        assert_eq!(lost.to_string(), "a:1: connection reset");
    }

    #[test]
    fn errors_say_what_and_where() {
        let failure = Failure::of_status("a:1", &Status::invalid_argument("etcdserver: user name is empty"));
        let error = StoreError::Refused { what: "put", failure };
        assert!(error.is_of_access());
        assert_eq!(error.to_string(), "put: a:1: user name is empty");
    }
}
