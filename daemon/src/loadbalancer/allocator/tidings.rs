//! What the allocator has to say: statuses to be written, counts of pools, and Events in MetalLB's words.

use std::fmt;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::pools::Fault;
use crate::model::ObjectKey;
use crate::model::load_balancer::{IngressAddress, PoolCounts};

/// What one [`super::Allocator::settle`] comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// Statuses that have to be written, by key.
    pub services: Vec<StatusChange>,
    /// Pools of which something changed that their status or their condition says, by key.
    pub pools: Vec<PoolReport>,
    /// What has not been said before.
    pub events: Vec<Event>,
}

/// A Service whose status differs from what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// Which Service.
    pub service: ObjectKey,
    /// Its `metadata.uid`: another object of this name is not meant.
    pub uid: CompactString,
    /// What its status should say.
    pub wanted: WantedStatus,
}

/// All of `status.loadBalancer` of a Service, and our annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedStatus {
    /// `ingress`, in order. Empty: `status.loadBalancer` is cleared.
    pub ingress: SmallVec<[IngressAddress; 2]>,
    /// `metallb.io/ip-allocated-from-pool`; `None`: the annotation is removed.
    pub pool: Option<CompactString>,
}

/// How a pool stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReport {
    /// Which pool.
    pub pool: ObjectKey,
    /// What its status should say; `None` where no version of it is in force, and its status is left as it is.
    pub counts: Option<PoolCounts>,
    /// The status of the object says something else.
    pub write: bool,
    /// Which of its versions is in force.
    pub serving: Serving,
    /// What is wrong with the latest version, which is not in force then.
    pub faults: Vec<Fault>,
}

/// Which version of a pool is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// The latest.
    Latest,
    /// The latest is not valid; the one before that was, of this `metadata.generation`, stays.
    LastGood(i64),
    /// None: it never had a valid one. Services that hold addresses of it keep them.
    Nothing,
}

/// Something that a person should know of an object. Said once, and again only after it was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// About what.
    pub about: Subject,
    /// Its kind.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

/// The object of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A Service, with its UID.
    Service(ObjectKey, CompactString),
    /// An IPAddressPool, with its UID.
    Pool(ObjectKey, CompactString),
}

/// `reason` of an Event: MetalLB's where it has one for the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// An address was handed out.
    IpAllocated,
    /// What was held is not allowed any more.
    ClearAssignment,
    /// Nothing was handed out.
    AllocationFailed,
    /// What is asked for cannot be read; what is held stays.
    LoadBalancerFailed,
    /// One family of two was not to be had.
    AdditionalAssignFailed,
    /// `RequireDualStack` with one ClusterIP.
    NotEnoughClusterIps,
    /// There is no ClusterIP.
    NoClusterIpFamily,
    /// Annotations of the old prefix.
    DeprecatedAnnotation,
    /// sheave's own: another load balancer's class.
    OtherLoadBalancerClass,
    /// sheave's own: somebody else wrote the status.
    StatusOverwritten,
    /// sheave's own: an address of the Service or of the pool is in use elsewhere.
    AddressInUse,
    /// sheave's own: a version of a pool that is not used.
    InvalidPool,
}

impl Reason {
    /// As Kubernetes shows it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IpAllocated => "IPAllocated",
            Self::ClearAssignment => "ClearAssignment",
            Self::AllocationFailed => "AllocationFailed",
            Self::LoadBalancerFailed => "LoadBalancerFailed",
            Self::AdditionalAssignFailed => "AdditionalAssignFailed",
            Self::NotEnoughClusterIps => "not enough clusterips",
            Self::NoClusterIpFamily => "noclusterIPsIPFamily",
            Self::DeprecatedAnnotation => "deprecatedAnnotation",
            Self::OtherLoadBalancerClass => "OtherLoadBalancerClass",
            Self::StatusOverwritten => "StatusOverwritten",
            Self::AddressInUse => "AddressInUse",
            Self::InvalidPool => "InvalidPool",
        }
    }

    /// Type `Warning`, else `Normal`.
    #[must_use]
    pub fn is_warning(self) -> bool {
        match self {
            Self::IpAllocated | Self::ClearAssignment | Self::AdditionalAssignFailed | Self::OtherLoadBalancerClass => false,
            Self::AllocationFailed
            | Self::LoadBalancerFailed
            | Self::NotEnoughClusterIps
            | Self::NoClusterIpFamily
            | Self::DeprecatedAnnotation
            | Self::StatusOverwritten
            | Self::AddressInUse
            | Self::InvalidPool => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason and its words, before they are said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tiding {
    pub(super) reason: Reason,
    pub(super) text: String,
}

impl Tiding {
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// What holds of one object, and was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(Vec<Tiding>);

impl Told {
    /// `now` is all that holds; what of it is new. What is over may be said again another time.
    pub(super) fn update(&mut self, now: Vec<Tiding>) -> Vec<Tiding> {
        let news = now.iter().filter(|tiding| !self.0.contains(tiding)).cloned().collect();
        self.0 = now;
        news
    }
}
