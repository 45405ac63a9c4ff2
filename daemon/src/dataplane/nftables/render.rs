//! Pure: from Service ports and the node's state to elements. Load, apply and repair all say the same, because all ask here.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::model::{Family, Protocol, TrafficPolicy};
use crate::table::{
    AddressUse, Backend, Detector, Frontend, FrontendAddress, NodeState, PortChange, Scope, ServicePort, Verdict,
};

use super::content::Changes;
use super::names::{Pool, Reach, SetId, SetKind};
use super::skeleton::class_of;

/// The bytes of one element as [`super::sets::Shape`] has them.
pub(crate) type Record = SmallVec<[u8; 80]>;

/// Where rendered elements go.
pub(crate) trait Sink {
    fn put(&mut self, set: SetId, record: &[u8]);

    /// The elements of all slots of a frontend's set, for who need not be told the set with every one.
    fn put_slots(&mut self, mut slots: SlotRecord, backends: impl ExactSizeIterator<Item = Backend>) {
        for (place, backend) in (0_u32..).zip(backends) {
            self.put(slots.set(), slots.at(place, backend));
        }
    }
}

impl<F: FnMut(SetId, &[u8])> Sink for F {
    fn put(&mut self, set: SetId, record: &[u8]) {
        self(set, record);
    }
}

/// All elements of a Service port.
pub(crate) fn port(port: &ServicePort, sink: &mut impl Sink) {
    for frontend in &port.frontends {
        marks(port, frontend, sink);
        for (pool, scope) in pools(frontend) {
            sink.put_slots(SlotRecord::new(frontend, pool), port.set(scope).iter());
        }
    }
}

/// The elements of a frontend whose number does not depend on its backends.
fn marks(port: &ServicePort, frontend: &Frontend, sink: &mut impl Sink) {
    let Frontend { address, kind: _, policy, source_ranges } = frontend;
    let (family, reach, key) = (address.family(), reach(*address), frontend_key(*address));
    let mut put = |kind: SetKind| sink.put(kind.of(family), &key);
    for (pool, scope) in pools(frontend) {
        if let Some(class) = class_of(port.set(scope).len()) {
            put(SetKind::Class(pool, class));
        }
    }
    match port.verdict(frontend) {
        Verdict::Forward => {}
        Verdict::Reject => put(SetKind::Reject(reach)),
        Verdict::Drop => put(SetKind::Drop(reach)),
    }
    if frontend.is_external() {
        match policy {
            TrafficPolicy::Cluster => put(SetKind::ExternalCluster(reach)),
            TrafficPolicy::Local => put(SetKind::ExternalLocal(reach)),
        }
    }
    if let Some(timeout) = port.affinity {
        put(SetKind::Sticky(reach, timeout));
    }
    if reach == Reach::Address && (port.affinity.is_some() || frontend.splits_by_source()) {
        put(SetKind::Special);
    }
    if let Some(ranges) = source_ranges.as_deref().filter(|_| reach == Reach::Address) {
        put(SetKind::Ranged);
        for net in ranges.iter().filter(|net| Family::of(net.addr()) == family) {
            let mut record = key.clone();
            push_address(&mut record, net.network());
            record.extend_from_slice(&key);
            push_address(&mut record, net.broadcast());
            sink.put(SetKind::Ranges.of(family), &record);
        }
    }
}

/// Which endpoint maps a frontend draws from, and what is in them.
pub(crate) fn pools(frontend: &Frontend) -> SmallVec<[(Pool, Scope); 2]> {
    let (general, local) = match reach(frontend.address) {
        Reach::Address => (Pool::Main, Pool::Local),
        Reach::NodePort => (Pool::Node, Pool::NodeLocal),
    };
    let mut pools = SmallVec::new();
    pools.push((general, frontend.scope()));
    if frontend.splits_by_source() {
        pools.push((local, Scope::Local));
    }
    pools
}

/// What of a Service port is another in the kernel. Cost: its frontends, and the slots that changed.
///
/// `before` and `after` are what the kernel has and shall have, which is not the table's view for a port that did not fit.
pub(crate) fn port_change(before: Option<&ServicePort>, after: Option<&ServicePort>, change: &PortChange, changes: &mut Changes) {
    let marks_of = |port: Option<&ServicePort>| {
        let mut records: Vec<(SetId, Record)> = Vec::new();
        for (port, frontend) in port.into_iter().flat_map(|port| port.frontends.iter().map(move |frontend| (port, frontend))) {
            marks(port, frontend, &mut |set: SetId, record: &[u8]| records.push((set, Record::from_slice(record))));
        }
        records.sort_unstable();
        records
    };
    let (old, new) = (marks_of(before), marks_of(after));
    for (set, record) in old.iter().filter(|record| new.binary_search(record).is_err()) {
        changes.delete(*set, record);
    }
    for (set, record) in new.iter().filter(|record| old.binary_search(record).is_err()) {
        changes.add(*set, record);
    }

    let old = before.map_or(&[][..], |port| &port.frontends);
    let new = after.map_or(&[][..], |port| &port.frontends);
    let find = |list: &[Frontend], address| list.binary_search_by(|frontend| frontend.address.cmp(&address)).ok();
    for frontend in old {
        let next = find(new, frontend.address).map(|place| &new[place]);
        for (pool, scope) in pools(frontend) {
            let next_scope = next.and_then(|next| pools(next).iter().find(|(p, _)| *p == pool).map(|(_, scope)| *scope));
            let mut slots = SlotRecord::new(frontend, pool);
            match next_scope {
                // The usual case: the same set, some slots of it rewritten.
                Some(next_scope) if next_scope == scope => {
                    let delta = if scope == Scope::Cluster { &change.cluster } else { &change.local };
                    for write in &delta.writes {
                        slots.write(write.slot, write.before, write.after, changes);
                    }
                }
                // Another set under the same key, or none.
                _ => {
                    let old = before.map(|port| port.set(scope).slots()).unwrap_or_default();
                    let new = next_scope.and_then(|scope| after.map(|port| port.set(scope).slots())).unwrap_or_default();
                    for (place, index) in (0_u32..).zip(0..old.len().max(new.len())) {
                        let backend = |slots: &[crate::table::Slot]| slots.get(index).map(crate::table::Slot::backend);
                        slots.write(place, backend(old), backend(new), changes);
                    }
                }
            }
        }
    }
    for frontend in new {
        let held = find(old, frontend.address).map(|place| pools(&old[place])).unwrap_or_default();
        for (pool, scope) in pools(frontend).into_iter().filter(|(pool, _)| held.iter().all(|(p, _)| p != pool)) {
            let mut slots = SlotRecord::new(frontend, pool);
            for (place, backend) in (0_u32..).zip(after.into_iter().flat_map(|port| port.set(scope).iter())) {
                slots.write(place, None, Some(backend), changes);
            }
        }
    }
}

/// The elements of one address.
pub(crate) fn address(ip: IpAddr, used: AddressUse, sink: &mut impl Sink) {
    let AddressUse { service, cluster_ip, foreign, pool_vip } = used;
    let record = address_key(ip);
    for (wanted, kind) in [
        (service, SetKind::ServiceIps),
        (cluster_ip, SetKind::ClusterIps),
        (foreign, SetKind::Foreign),
        (pool_vip, SetKind::Vips),
    ] {
        if wanted {
            sink.put(kind.of(Family::of(ip)), &record);
        }
    }
}

/// The element by which a local endpoint reaches itself.
pub(crate) fn hairpin(ip: IpAddr, sink: &mut impl Sink) {
    let mut record = address_key(ip);
    push_address(&mut record, ip);
    sink.put(SetKind::Hairpin.of(Family::of(ip)), &record);
}

/// The addresses at which NodePorts are served.
pub(crate) fn node_addresses(node: &NodeState, sink: &mut impl Sink) {
    for family in Family::ALL {
        for ip in node.node_ports(family).addresses.iter().filter(|ip| Family::of(**ip) == family) {
            sink.put(SetKind::NodeIps.of(family), &address_key(*ip));
        }
    }
}

/// The networks of pods and of ServiceCIDRs, as interval sets have them.
pub(crate) fn networks(node: &NodeState, sink: &mut impl Sink) {
    if let Detector::Cidrs(pods) = &node.detector {
        intervals(SetKind::Pods, pods.iter().copied(), sink);
    }
    intervals(SetKind::ServiceCidrs, node.service_cidrs.iter().copied(), sink);
}

/// Two elements for each interval, its first address and, marked, the first beyond it; the last interval of all has no end. Merged
/// first, because the kernel refuses overlaps.
fn intervals(kind: SetKind, nets: impl Iterator<Item = IpNet>, sink: &mut impl Sink) {
    for net in IpNet::aggregate(&nets.collect()) {
        let set = kind.of(Family::of(net.addr()));
        let mut open = address_key(net.network());
        open.push(0);
        sink.put(set, &open);
        let beyond = match net.broadcast() {
            IpAddr::V4(last) => u32::from(last).checked_add(1).map(|beyond| IpAddr::V4(beyond.into())),
            IpAddr::V6(last) => u128::from(last).checked_add(1).map(|beyond| IpAddr::V6(beyond.into())),
        };
        if let Some(beyond) = beyond {
            let mut close = address_key(beyond);
            close.push(1);
            sink.put(set, &close);
        }
    }
}

/// Whether a frontend has an address of its own.
pub(crate) fn reach(address: FrontendAddress) -> Reach {
    match address {
        FrontendAddress::Ip { .. } => Reach::Address,
        FrontendAddress::NodePort { .. } => Reach::NodePort,
    }
}

/// `address . protocol . port`, or `protocol . port` for a NodePort.
pub(crate) fn frontend_key(address: FrontendAddress) -> Record {
    let mut key = address.ip().map(address_key).unwrap_or_default();
    key.extend_from_slice(&[address.protocol().number(), 0, 0, 0]);
    push_port(&mut key, address.port());
    key
}

/// Reads what [`frontend_key`] wrote. `None` for bytes that are no frontend.
pub(crate) fn parse_frontend(family: Family, reach: Reach, key: &[u8]) -> Option<FrontendAddress> {
    let (ip, rest) = match reach {
        Reach::Address => parse_address(family, key).map(|(ip, rest)| (Some(ip), rest))?,
        Reach::NodePort => (None, key),
    };
    let [number, 0, 0, 0, high, low, 0, 0] = *rest else { return None };
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)?;
    let port = u16::from_be_bytes([high, low]);
    Some(match ip {
        Some(ip) => FrontendAddress::Ip { ip, protocol, port },
        None => FrontendAddress::NodePort { family, protocol, port },
    })
}

/// Reads an address at the start of a key.
pub(crate) fn parse_address(family: Family, key: &[u8]) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::V4 => key.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest)),
        Family::V6 => key.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest)),
    }
}

/// Reads `address . port` as endpoint maps and affinity maps give it.
pub(crate) fn parse_backend(family: Family, data: &[u8]) -> Option<SocketAddr> {
    let (ip, rest) = parse_address(family, data)?;
    let [high, low, 0, 0] = *rest else { return None };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

fn address_key(ip: IpAddr) -> Record {
    let mut key = Record::new();
    push_address(&mut key, ip);
    key
}

fn push_address(key: &mut Record, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => key.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => key.extend_from_slice(&ip.octets()),
    }
}

fn push_port(key: &mut Record, port: u16) {
    key.extend_from_slice(&port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
}

/// Elements `frontend . slot : backend` of one frontend: the key is written once, slot and backend again and again.
pub(crate) struct SlotRecord {
    set: SetId,
    record: Record,
    key: usize,
}

impl SlotRecord {
    fn new(frontend: &Frontend, pool: Pool) -> Self {
        let record = frontend_key(frontend.address);
        Self { set: SetKind::Endpoints(pool).of(frontend.address.family()), key: record.len(), record }
    }

    pub(crate) fn set(&self) -> SetId {
        self.set
    }

    /// The element of one slot. What follows the key is appended in one piece, a load being mostly this.
    pub(crate) fn at(&mut self, slot: u32, backend: Backend) -> &[u8] {
        let mut rest = [0; 4 + 16 + 4];
        rest[..4].copy_from_slice(&slot.to_ne_bytes());
        let port = match backend.address.ip() {
            IpAddr::V4(ip) => {
                rest[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                rest[4..20].copy_from_slice(&ip.octets());
                20
            }
        };
        rest[port..port + 2].copy_from_slice(&backend.address.port().to_be_bytes());
        self.record.truncate(self.key);
        self.record.extend_from_slice(&rest[..port + 4]);
        &self.record
    }

    /// The same key with other data is refused by the kernel (`EEXIST`): the old element goes, the new one comes.
    fn write(&mut self, slot: u32, before: Option<Backend>, after: Option<Backend>, changes: &mut Changes) {
        if before.map(|backend| backend.address) == after.map(|backend| backend.address) {
            return;
        }
        let set = self.set;
        if let Some(before) = before {
            changes.delete(set, self.at(slot, before));
        }
        if let Some(after) = after {
            changes.add(set, self.at(slot, after));
        }
    }
}
