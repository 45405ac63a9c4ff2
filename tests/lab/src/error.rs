//! What can go wrong while a network is built or used. An unreachable peer is not an error: that is an [`Outcome`](crate::Outcome).

use std::io;

/// Shorthand for results of the lab.
pub type Result<T> = std::result::Result<T, Error>;

/// The lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{call} {subject}")]
    Call {
        /// The call as `man 2` names it, or what was being done.
        call: &'static str,
        /// What it was done to.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a request about links, addresses, routes or rules.
    #[error("{call} {subject}")]
    Netlink {
        /// The request, in iproute2's words.
        call: &'static str,
        /// What it was about.
        subject: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A text that should be an address is none.
    #[error("`{text}` is not {expected}")]
    Address {
        /// The text.
        text: String,
        /// What was expected, with an example.
        expected: &'static str,
    },
    /// This user may not make namespaces here.
    #[error(
        "may not create a network namespace ({call}): run as root, or allow user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces>0)"
    )]
    NotAllowed {
        /// The call that was refused.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A client expected an answer and got something else.
    #[error("expected an answer, got: {0}")]
    NoAnswer(Box<crate::Outcome>),
    /// An event did not come in time.
    #[error("{what} did not happen within {limit:?}")]
    TooLate {
        /// What was awaited.
        what: String,
        /// How long.
        limit: std::time::Duration,
    },
}

impl Error {
    /// For `map_err`: names the call and what it was done to.
    pub(crate) fn call(call: &'static str, subject: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Call { call, subject: subject.to_string(), source }
    }

    /// For `map_err` on nix's calls.
    pub(crate) fn errno(call: &'static str, subject: impl ToString) -> impl FnOnce(nix::Error) -> Self {
        move |errno| Self::Call { call, subject: subject.to_string(), source: errno.into() }
    }

    /// For `map_err` on netlink requests.
    pub(crate) fn netlink(call: &'static str, subject: impl ToString) -> impl FnOnce(rtnetlink::Error) -> Self {
        move |source| Self::Netlink { call, subject: subject.to_string(), source }
    }
}
