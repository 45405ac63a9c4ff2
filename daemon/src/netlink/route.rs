//! rtnetlink: the addresses of this node, followed by events.
//!
//! kube-proxy looks at interface addresses once an hour; a NodePort on a new address is dead until then. Here every event leads to
//! a fresh look, so that a lost or coalesced event can never leave a wrong picture.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Every address of every interface in this network namespace, loopback and link-local ones included.
pub type LocalAddresses = BTreeSet<IpAddr>;

/// The kernel did not say which addresses there are.
#[derive(Debug, thiserror::Error)]
#[error("{call} through rtnetlink: {source}")]
pub struct RouteError {
    call: &'static str,
    #[source]
    source: io::Error,
}

/// Follows the node's addresses until cancelled. The first value is there when this returns.
///
/// # Errors
/// No rtnetlink socket, or the first dump failed. Later failures are retried at the next event, and logged.
pub async fn watch_addresses(cancel: CancellationToken) -> Result<watch::Receiver<LocalAddresses>, RouteError> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&groups)
        .map_err(|source| RouteError { call: "subscribe to address changes", source })?;
    let connection = tokio::spawn(connection);
    // Subscribed before the first look: a change in between is seen twice rather than never.
    let (sender, receiver) = watch::channel(addresses(&handle).await?);

    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                event = events.next() => if event.is_none() { break },
            }
            // A burst (an interface with many addresses comes up) is one look.
            while let Some(Some(_)) = futures_util::FutureExt::now_or_never(events.next()) {}
            match addresses(&handle).await {
                Ok(now) => {
                    sender.send_if_modified(|known| {
                        let changed = *known != now;
                        *known = now;
                        changed
                    });
                }
                Err(error) => tracing::warn!(%error, "addresses of this node not re-read, the last known stay in force"),
            }
        }
        connection.abort();
    });
    Ok(receiver)
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
    let addresses = addresses_of(&handle, Some(index)).await?;
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

async fn addresses(handle: &rtnetlink::Handle) -> Result<LocalAddresses, RouteError> {
    addresses_of(handle, None).await
}

async fn addresses_of(handle: &rtnetlink::Handle, interface: Option<u32>) -> Result<LocalAddresses, RouteError> {
    let mut found = LocalAddresses::new();
    let mut request = handle.address().get();
    if let Some(index) = interface {
        request = request.set_link_index_filter(index);
    }
    let mut dump = request.execute();
    let failed = |error| RouteError { call: "list addresses", source: io::Error::other(error) };
    while let Some(message) = dump.try_next().await.map_err(failed)? {
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
