//! Links, addresses, routes and rules: rtnetlink, in the words of iproute2.

use crate::{Error, Namespace, Result, address::host_prefix};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::AddressHeaderFlags,
    link::{
        BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, LinkProtoInfoBridge, State,
    },
    route::RouteScope,
};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::DefaultNla,
};
use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

/// One route: `ip route replace TO [via VIA] dev DEV [src SRC] [table TABLE] [onlink]`.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) to: IpNet,
    /// Taken to be on the link, whatever the addresses of the interface say.
    pub(crate) via: Option<IpAddr>,
    pub(crate) device: String,
    pub(crate) source: Option<IpAddr>,
    pub(crate) table: u32,
}

/// An open netlink socket in one namespace.
pub(crate) struct Links(Handle);

/// The kernel's main routing table (`rt_tables`).
pub(crate) const MAIN_TABLE: u32 = 254;

/// Runs requests in a namespace, one after the other, over one socket.
pub(crate) fn links<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce(&Links) -> Result<T> + Send) -> Result<T> {
    let failed = |source| Error::Call { call: "open", subject: format!("a netlink socket in {}", namespace.name()), source };
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
            tokio::spawn(connection);
            work(&Links(handle)).await
        })
    })?
}

// === impl Route ===

impl Route {
    /// A route to an on-link network or host.
    pub(crate) fn direct(to: IpNet, device: &str) -> Self {
        Self { to, via: None, device: device.to_owned(), source: None, table: MAIN_TABLE }
    }

    /// A route over a neighbour.
    pub(crate) fn via(to: IpNet, via: IpAddr, device: &str) -> Self {
        Self { via: Some(via), ..Self::direct(to, device) }
    }

    /// Prefers a source address.
    pub(crate) fn from(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Puts the route elsewhere than in the main table.
    pub(crate) fn in_table(self, table: u32) -> Self {
        Self { table, ..self }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, via, device, source, table } = self;
        let optional = |word, address: Option<IpAddr>| address.map(|address| format!("{word} {address} ")).unwrap_or_default();
        write!(f, "{to} {}dev {device} {}table {table}", optional("via", *via), optional("src", *source))
    }
}

// === impl Links ===

impl Links {
    /// `ip link add NAME type veth peer name PEER netns FD`, and this end up. The other end is brought up from its home: asked for
    /// in the same request, the kernel opens it before the pair is linked and says ENOTCONN (`veth_newlink`).
    pub(crate) async fn add_veth(&self, name: &str, peer: &str, peers_home: &Namespace) -> Result<()> {
        let far = LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(peers_home.raw_fd()).build();
        let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .up();
        self.add(near.build(), "link add type veth", name).await
    }

    /// `ip link add NAME type bridge`, up. It forwards at once (no STP) and learns from traffic.
    pub(crate) async fn add_bridge(&self, name: &str) -> Result<()> {
        // An address of its own: otherwise it is the lowest of its ports', and a new port may change it. Every neighbour then sends
        // to an address that nobody has, for as long as it believes what it knows (NUD, up to 45 s).
        let bridge = LinkBridge::new(name).address(vec![0x02, 0x73, 0x68, 0x76, 0x00, 0x01]);
        self.add(bridge.build(), "link add type bridge", name).await
    }

    /// `ip link add NAME type dummy`, up.
    pub(crate) async fn add_dummy(&self, name: &str) -> Result<()> {
        self.add(LinkDummy::new(name).up().build(), "link add type dummy", name).await
    }

    /// Adds a link of any kind: `call` in iproute2's words.
    pub(crate) async fn add(&self, message: LinkMessage, call: &'static str, name: &str) -> Result<()> {
        self.0.link().add(message).execute().await.map_err(Error::netlink(call, name))
    }

    /// `ip link set NAME up` or `down`.
    pub(crate) async fn set_up(&self, name: &str, up: bool) -> Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name).await?);
        let message = if up { message.up() } else { message.down() }.build();
        self.0.link().change(message).execute().await.map_err(Error::netlink("link set", name))
    }

    /// Waits until an interface carries packets. A carrier that comes on is acted upon by a kernel worker (`linkwatch`), up to a
    /// second later on a busy machine; until then the interface, or the bridge it is a port of, drops what it is given.
    pub(crate) async fn await_carrier(&self, name: &str) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(10);
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut found = std::pin::pin!(self.0.link().get().match_name(name).execute());
            let link = found.try_next().await.map_err(Error::netlink("link show", name))?;
            if link.is_some_and(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up))) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::TooLate { what: format!("the carrier of {name}"), limit: LIMIT });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `ip link set NAME master BRIDGE`.
    pub(crate) async fn enslave(&self, name: &str, bridge: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).controller(self.index(bridge).await?).build();
        self.0.link().change(message).execute().await.map_err(Error::netlink("link set master", name))
    }

    /// `bridge link set dev NAME state 0` or `3`: a disabled port drops every frame, both ways, while its carrier stays up.
    ///
    /// It must be asked in the bridge's own family. Asked as `ip link set type bridge_slave` does, the kernel announces a change of
    /// the device afterwards, whereupon the bridge looks at the carrier and enables the port again (6.18, `br_port_carrier_check`).
    pub(crate) async fn set_port_forwarding(&self, name: &str, forwarding: bool) -> Result<()> {
        /// `IFLA_BRPORT_STATE`, `include/uapi/linux/if_link.h`.
        const PORT_STATE: u16 = 1;
        let state = if forwarding { BridgePortState::Forwarding } else { BridgePortState::Disabled };
        let setting = LinkProtoInfoBridge::Other(DefaultNla::new(PORT_STATE, vec![state.into()]));
        let message = LinkUnspec::new_with_index(self.index(name).await?)
            .interface_family(AddressFamily::Bridge)
            .append_extra_attribute(LinkAttribute::ProtoInfoBridge(vec![setting]))
            .build();
        self.0.link().set(message).execute().await.map_err(Error::netlink("bridge link set state", name))
    }

    /// `ip link set NAME type bridge_slave hairpin on`: frames may leave through the port they came by.
    pub(crate) async fn set_hairpin(&self, name: &str) -> Result<()> {
        let setting = InfoBridgePort::HairpinMode(true);
        let message = LinkBridgePort::new(self.index(name).await?).append_info_data(setting).build();
        self.0.link().set_port(message).execute().await.map_err(Error::netlink("link set hairpin", name))
    }

    /// `ip address replace ADDRESS dev NAME nodad`.
    pub(crate) async fn add_address(&self, name: &str, address: IpNet) -> Result<()> {
        let mut request = self.0.address().add(self.index(name).await?, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(Error::netlink("address add", format!("{address} dev {name}")))
    }

    /// `ip address del ADDRESS dev NAME`.
    pub(crate) async fn del_address(&self, name: &str, address: IpNet) -> Result<()> {
        let subject = format!("{address} dev {name}");
        let index = self.index(name).await?;
        let found: Vec<_> = self
            .0
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(address.addr())
            .execute()
            .try_collect()
            .await
            .map_err(Error::netlink("address show", &subject))?;
        for message in found {
            self.0.address().del(message).execute().await.map_err(Error::netlink("address del", &subject))?;
        }
        Ok(())
    }

    /// `ip route replace ...`.
    pub(crate) async fn add_route(&self, route: &Route) -> Result<()> {
        let subject = route.to_string();
        let index = self.index(&route.device).await?;
        let mut builder = RouteMessageBuilder::<IpAddr>::new().output_interface(index).table_id(route.table);
        // The destination comes first: it settles the message's family.
        builder = invalid(builder.destination_prefix(route.to.network(), route.to.prefix_len()), &subject)?;
        builder = match route.via {
            Some(via) => invalid(builder.gateway(via), &subject)?.onlink(),
            // For IPv4 an on-link destination is what scope link means; IPv6 knows no scopes.
            None if route.to.addr().is_ipv4() => builder.scope(RouteScope::Link),
            None => builder,
        };
        if let Some(source) = route.source {
            builder = invalid(builder.pref_source(source), &subject)?;
        }
        self.0.route().add(builder.build()).replace().execute().await.map_err(Error::netlink("route replace", subject))
    }

    /// `ip rule add iif NAME lookup TABLE`, in both families.
    pub(crate) async fn add_rule_for_input(&self, name: &str, table: u32) -> Result<()> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = self.0.rule().add().input_interface(name).table_id(table).priority(1000);
            let message = request.message_mut();
            message.header.family = family;
            message.header.action = netlink_packet_route::rule::RuleAction::ToTable;
            request.execute().await.map_err(Error::netlink("rule add iif", name))?;
        }
        Ok(())
    }

    /// All that the kernel tells of an interface.
    pub(crate) async fn attributes(&self, name: &str) -> Result<Vec<LinkAttribute>> {
        Ok(self.show(name).await?.attributes)
    }

    /// The interface index, asked each time: cheap, and never stale.
    pub(crate) async fn index(&self, name: &str) -> Result<u32> {
        Ok(self.show(name).await?.header.index)
    }

    async fn show(&self, name: &str) -> Result<LinkMessage> {
        let mut found = std::pin::pin!(self.0.link().get().match_name(name).execute());
        let link = found.try_next().await.map_err(Error::netlink("link show", name))?;
        link.ok_or_else(|| Error::Call {
            call: "link show",
            subject: name.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// The socket, for requests that only one caller needs.
    pub(crate) fn handle(&self) -> &Handle {
        &self.0
    }
}

/// The network that holds one address.
pub(crate) fn host_net(address: impl Into<IpAddr>) -> IpNet {
    let address = address.into();
    IpNet::new_assert(address, host_prefix(address))
}

fn invalid<T>(built: std::result::Result<T, impl fmt::Display>, route: &str) -> Result<T> {
    built.map_err(|reason| Error::Call {
        call: "route replace",
        subject: route.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, reason.to_string()),
    })
}
