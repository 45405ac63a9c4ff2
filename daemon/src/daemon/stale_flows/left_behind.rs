//! What a process before this one served, from its rules, which ours are about to replace: of a Service that was deleted while nobody was
//! there to see it nothing else tells. Its NodePort, VIP or externalIP might be anybody's otherwise; where it had a frontend of ours, a
//! flow that is translated there is of that Service, and leads to a pod that has another owner by now, or none. One that is not translated
//! began before those rules, and loses nothing by being looked at afresh with its next packet.

use std::collections::BTreeSet;
use std::io;
use std::thread::JoinHandle;

use super::{Suspects, node_port_addresses};
use crate::daemon::report::with_causes;
use crate::migration::{Frontend, MigrationError, frontends_of_sheave};
use crate::model::Protocol;
use crate::netlink::nft::KernelNft;
use crate::table::{FrontendAddress, ServiceTable};

/// UDP frontends in the rules that this process found, once they are read: beside the first list of the API server, which takes longer.
#[derive(Debug)]
pub(in crate::daemon) struct LeftBehind {
    reader: JoinHandle<Result<BTreeSet<Frontend>, MigrationError>>,
}

impl LeftBehind {
    /// Begins to read. To be called before anything of ours is written.
    ///
    /// # Errors
    /// No thread.
    pub(in crate::daemon) fn read() -> io::Result<Self> {
        let read = || frontends_of_sheave(&mut KernelNft::open()?);
        Ok(Self { reader: std::thread::Builder::new().name("left-behind".into()).spawn(read)? })
    }

    /// Each with no endpoint to go to: what the table has at the same address, and is told later, counts. Waits for the reader.
    pub(in crate::daemon) fn suspects(self, table: &ServiceTable) -> Suspects {
        let read = self.reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let found = read.unwrap_or_else(|error| {
            // A table that cannot be read is replaced all the same; the ranges of ClusterIPs are known without it.
            tracing::warn!(
                error = with_causes(&error),
                "the rules that were here cannot be read: UDP flows to Services that were deleted meanwhile may stay"
            );
            BTreeSet::new()
        });
        let frontends = found.into_iter().filter_map(address).map(|frontend| (frontend, Vec::new().into())).collect();
        Suspects { frontends, node_port_addresses: node_port_addresses(table), ..Suspects::default() }
    }
}

/// One of UDP, as the table has it.
fn address(frontend: Frontend) -> Option<FrontendAddress> {
    let udp = Protocol::Udp;
    match frontend {
        Frontend::Address { ip, protocol, port } if protocol == udp.number() => {
            Some(FrontendAddress::Ip { ip, protocol: udp, port })
        }
        Frontend::NodePort { family, protocol, port } if protocol == udp.number() => {
            Some(FrontendAddress::NodePort { family, protocol: udp, port })
        }
        Frontend::Address { .. } | Frontend::NodePort { .. } => None,
    }
}
