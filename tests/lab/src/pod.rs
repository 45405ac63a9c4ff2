//! A pod on a wire of its own.

use crate::{
    Host, Namespace, Result,
    address::twin,
    link::{Links, Route, host_net, links},
    topology::defaults,
};
use ipnet::IpNet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The host's end of every pod link; a pod has no other neighbour.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Makes a pod on a node: a veth called `wire` there, with host routes.
pub(crate) fn hang_on(node: &Host, name: &str, address: Ipv4Addr, wire: &str) -> Result<Namespace> {
    let pod = Namespace::new(name)?;
    links(node, async |links| {
        links.add_veth(wire, "eth0", &pod).await?;
        links.add_address(wire, IpNet::new_assert(GATEWAY_V6.into(), 64)).await?;
        for (to, source) in [(host_net(address), node.ipv4().into()), (host_net(twin(address)), node.ipv6().into())] {
            links.add_route(&Route::direct(to, wire).from(source)).await?;
        }
        Ok(())
    })?;
    links(&pod, async |links| {
        links.set_up("eth0", true).await?;
        links.await_carrier("eth0").await?;
        for own in [host_net(address), host_net(twin(address))] {
            links.add_address("eth0", own).await?;
        }
        // The node answers ARP for any address it has, on any interface; NDP is stricter, hence the link-local one.
        for (to, _) in defaults(node.ipv4()) {
            let via = if to.addr().is_ipv4() { node.ipv4().into() } else { GATEWAY_V6.into() };
            links.add_route(&Route::via(to, via, "eth0")).await?;
        }
        Ok(())
    })?;
    links(node, async |links| links.await_carrier(wire).await)?;
    Ok(pod)
}

/// The way to a pod, over the node that it lives on.
pub(crate) async fn add_route(links: &Links, device: &str, pod: Ipv4Addr, home: Ipv4Addr) -> Result<()> {
    for (to, via) in [(host_net(pod), home.into()), (host_net(twin(pod)), twin(home).into())] {
        links.add_route(&Route::via(to, via, device)).await?;
    }
    Ok(())
}
