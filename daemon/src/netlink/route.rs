//! rtnetlink: the addresses of this node, and the events that say they have changed.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;

/// Every address of every interface in this network namespace, loopback and link-local ones included.
pub type LocalAddresses = BTreeSet<IpAddr>;

/// The kernel answers a dump at once. One that has lost a part of its answer (`ENOBUFS`) would be waited for without end.
const ANSWER: Duration = Duration::from_secs(5);

/// The kernel did not say which addresses there are.
#[derive(Debug, thiserror::Error)]
#[error("{call} through rtnetlink: {source}")]
pub struct RouteError {
    call: &'static str,
    #[source]
    source: io::Error,
}

/// A socket that is subscribed to changes of addresses, of the network namespace of the thread that opened it.
pub struct AddressSocket {
    handle: Handle,
    /// Whatever was told without being asked for. The queue behind it has no bound (rtnetlink's choice), so it is read also while
    /// something else is waited for, and given up with the connection.
    events: BoxStream<'static, ()>,
    /// Something was told that [`Self::changed`] has not passed on.
    told: bool,
    connection: JoinHandle<()>,
}

impl RouteError {
    pub(crate) fn new(call: &'static str, source: io::Error) -> Self {
        Self { call, source }
    }
}

impl AddressSocket {
    /// Subscribes. What changes from here on is told by [`Self::changed`].
    ///
    /// # Errors
    /// No socket.
    pub fn open() -> Result<Self, RouteError> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, events) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| RouteError::new("subscribe to address changes", source))?;
        Ok(Self { handle, events: events.map(drop).boxed(), told: false, connection: tokio::spawn(connection) })
    }

    /// The addresses there are.
    ///
    /// # Errors
    /// The kernel's, or no answer. The socket is of no more use then.
    pub async fn list(&mut self) -> Result<LocalAddresses, RouteError> {
        let listed = tokio::time::timeout(ANSWER, addresses(&self.handle));
        let (events, told) = (&mut self.events, &mut self.told);
        let reading = async {
            while let Some(()) = events.next().await {
                *told = true;
            }
        };
        let listed = tokio::select! {
            biased;
            () = reading => Err(io::ErrorKind::UnexpectedEof.into()),
            listed = listed => match listed {
                Ok(listed) => listed.map_err(io::Error::other),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
        };
        listed.map_err(|source| {
            self.close();
            RouteError::new("list addresses", source)
        })
    }

    /// Waits for a change, or for the news that some were lost. A burst (an interface with many addresses comes up) is one change.
    ///
    /// # Errors
    /// The socket failed: no more will come from it.
    pub async fn changed(&mut self) -> Result<(), RouteError> {
        if !std::mem::take(&mut self.told) && self.events.next().await.is_none() {
            self.close();
            return Err(RouteError::new("wait for address changes", io::ErrorKind::UnexpectedEof.into()));
        }
        while let Some(Some(())) = self.events.next().now_or_never() {}
        Ok(())
    }

    /// Nobody reads any more, so nothing may be queued any more.
    fn close(&mut self) {
        self.connection.abort();
        self.events = stream::empty().boxed();
    }
}

impl Drop for AddressSocket {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A dummy interface and what is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dummy {
    /// Its number.
    pub index: u32,
    /// Its addresses.
    pub addresses: LocalAddresses,
}

/// The dummy interface of this name, if there is one. An interface of that name and another kind is somebody else's.
///
/// # Errors
/// See [`RouteError`].
pub async fn dummy(name: &str) -> Result<Option<Dummy>, RouteError> {
    let failed = |error| RouteError { call: "find interface", source: io::Error::other(error) };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| RouteError { call: "find interface", source })?;
    let connection = tokio::spawn(connection);
    let found = match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(found) => found,
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => None,
        Err(error) => return Err(failed(error)),
    };
    let is_dummy = |link: &LinkMessage| {
        link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Dummy)),
            _ => false,
        })
    };
    let Some(link) = found.filter(is_dummy) else { return Ok(None) };
    let index = link.header.index;
    let addresses = addresses_of(&handle, Some(index)).await.map_err(failed)?;
    connection.abort();
    Ok(Some(Dummy { index, addresses }))
}

/// Deletes an interface with its addresses; one that is not there is deleted already.
///
/// # Errors
/// See [`RouteError`].
pub async fn delete_interface(index: u32) -> Result<(), RouteError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|source| RouteError { call: "delete interface", source })?;
    let connection = tokio::spawn(connection);
    let outcome = match handle.link().del(index).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
        other => other.map_err(|error| RouteError { call: "delete interface", source: io::Error::other(error) }),
    };
    connection.abort();
    outcome
}

async fn addresses(handle: &Handle) -> Result<LocalAddresses, rtnetlink::Error> {
    addresses_of(handle, None).await
}

async fn addresses_of(handle: &Handle, interface: Option<u32>) -> Result<LocalAddresses, rtnetlink::Error> {
    let mut found = LocalAddresses::new();
    let mut request = handle.address().get();
    if let Some(index) = interface {
        request = request.set_link_index_filter(index);
    }
    let mut dump = request.execute();
    while let Some(message) = dump.try_next().await? {
        // IFA_LOCAL is ours; IFA_ADDRESS is the peer's on a point-to-point link, and ours where there is no IFA_LOCAL (IPv6).
        let mut local = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) if local.is_none() => local = Some(*ip),
                _ => {}
            }
        }
        found.extend(local);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::netlink::testns::in_namespace;

    fn add(address: &str) {
        let output = Command::new("ip").args(["address", "add", address, "dev", "lo"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn in_a_runtime(test: impl AsyncFnOnce() + Send) {
        in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        });
    }

    #[test]
    fn what_is_told_during_a_list_is_one_change_and_waits_in_no_queue() {
        in_a_runtime(async || {
            let mut socket = AddressSocket::open().unwrap();
            // Told before the list's answer, through the same socket.
            add("192.0.2.1/32");
            add("192.0.2.2/32");
            assert_eq!(socket.list().await.unwrap().len(), 2);
            assert_eq!(socket.events.next().now_or_never(), None);
            assert!(socket.changed().now_or_never().is_some_and(|changed| changed.is_ok()));
            assert!(socket.changed().now_or_never().is_none(), "told once");
        });
    }

    #[test]
    fn a_socket_that_failed_queues_nothing_more() {
        in_a_runtime(async || {
            let mut socket = AddressSocket::open().unwrap();
            add("192.0.2.1/32");
            socket.changed().await.unwrap();
            // A handle whose connection is gone: the list fails, and events would go on coming.
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            drop(connection);
            socket.handle = handle;
            socket.list().await.unwrap_err();
            assert_eq!(socket.events.next().now_or_never(), Some(None));
            assert!((&mut socket.connection).await.unwrap_err().is_cancelled());
            socket.changed().await.unwrap_err();
        });
    }
}
