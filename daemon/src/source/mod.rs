//! Where objects come from: an API server (`kube`) or a directory of manifests. Both say the same things in the same words.

pub mod decode;
pub mod kube;
pub mod manifests;

use std::fmt;

use crate::model::load_balancer::{AddressPool, Advertisement, NamespaceLabels, PeerNode};
use crate::model::{EndpointSlice, Node, ObjectKey, Service, ServiceCidr};

/// What a source tells the sync loop. A compact value without Kubernetes types, so that it could travel between machines.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A complete list of this kind begins. Objects of the kind that are not applied before [`Change::Listed`] are gone then,
    /// and not a moment earlier: until that the old ones stay in force.
    Listing(Kind),
    /// An object is there, or has changed.
    Applied(Object),
    /// An object is gone, or has left the selector (which a watch reports in the same way).
    Deleted(Kind, ObjectKey),
    /// The complete list of this kind has been delivered.
    Listed(Kind),
    /// What belongs together, and is one commit: what differs in a directory of manifests from how it was. Between the slice that
    /// loses an endpoint and the one that gets it, the endpoint is not gone.
    Together(Vec<Change>),
    /// Everything up to here has been delivered. After the commit that includes it the loop reports the mark, in the log and to
    /// subscribers: a manifests directory marks each load with its digest, a watch its bookmarks with their resourceVersion.
    Mark(Mark),
}

/// The kinds of object a source delivers. Whoever receives more kinds than it has a use for passes over the others: a directory of
/// manifests tells everything it holds to everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Services that are ours to serve.
    Service,
    /// Services labelled `service.kubernetes.io/service-proxy-name`: somebody else's to serve. Their ClusterIPs are kept so that
    /// the drop of unallocated ServiceCIDR addresses leaves them alone; nothing else is read of them.
    ForeignService,
    /// EndpointSlices.
    EndpointSlice,
    /// Our own Node.
    Node,
    /// ServiceCIDRs.
    ServiceCidr,
    /// Any Node, our own too, as a candidate for announcing.
    Peer,
    /// Namespaces, of which only the labels are read.
    Namespace,
    /// IPAddressPools of MetalLB's.
    AddressPool,
    /// L2Advertisements of MetalLB's.
    Advertisement,
}

impl fmt::Display for Kind {
    /// As Kubernetes calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service | Self::ForeignService => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node | Self::Peer => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Namespace => "Namespace",
            Self::AddressPool => "IPAddressPool",
            Self::Advertisement => "L2Advertisement",
        })
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Ours to serve.
    Service(Box<Service>),
    /// Another proxy's.
    ForeignService(Box<Service>),
    /// Endpoints.
    EndpointSlice(Box<EndpointSlice>),
    /// Our own Node.
    Node(Box<Node>),
    /// A ServiceCIDR.
    ServiceCidr(Box<ServiceCidr>),
    /// Any Node.
    Peer(Box<PeerNode>),
    /// A Namespace.
    Namespace(Box<NamespaceLabels>),
    /// A pool of addresses.
    AddressPool(Box<AddressPool>),
    /// Which pools are announced, by whom.
    Advertisement(Box<Advertisement>),
}

/// A point in a source's stream of changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Which stream: `manifests`, `services`, `endpointslices`.
    pub stream: &'static str,
    /// The point in it: a digest or a resourceVersion.
    pub point: String,
}
