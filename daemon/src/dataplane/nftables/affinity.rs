//! Session affinity: which learnt entries are dead, and taking them out without moving anybody else's clients.
//!
//! Packets write the affinity maps; the kernel cannot check there whether a backend still lives. So in the transaction that removes
//! a backend its frontends are *suspended*: their clients draw afresh. Afterwards, off the way of changes, the map is read, entries
//! of backends that left are deleted, and the frontends are sticky again; all other clients find what they had.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use nix::errno::Errno;

use crate::dataplane::{Commit, PlaneError};
use crate::model::Family;
use crate::netlink::nft::{Batch, CommitError, Element, OwnedElement};
use crate::table::{
    BackendSet, Detector, Frontend, FrontendAddress, NodeState, PortChange, PortId, Scope, ServicePort, ServiceTable,
};

use super::content::Changes;
use super::names::{Instances, Reach, SetId, SetKind, TABLE};
use super::render::{self, Record};
use super::transactions::Transactions;
use super::{NftablesPlane, error};

/// What is sticky, and what is still to be done about it.
#[derive(Default)]
pub(crate) struct Affinity {
    /// Who may serve the clients of each sticky frontend. Shares the table's arrays.
    sticky: HashMap<FrontendAddress, Backends>,
    /// Elements of the suspended sets.
    pub(super) suspended: BTreeSet<(SetId, Record)>,
    /// Frontends whose entries may be dead.
    swept: HashSet<FrontendAddress>,
    /// Families in which any entry may be dead.
    all: BTreeSet<Family>,
    /// Sources that are pods, where that can be told from the address; they are served by the cluster set whatever the policy.
    pods: Option<Arc<[IpNet]>>,
}

/// Who may serve the clients of a sticky frontend.
struct Backends {
    general: BackendSet,
    /// For a frontend split by source: who may serve clients from outside.
    outside: Option<BackendSet>,
}

/// Attempts to delete entries while others of them expire; each drops those that are gone.
const ATTEMPTS: usize = 8;

/// Entries deleted in one transaction.
const CHUNK: usize = 1_000;

impl NftablesPlane {
    pub(super) fn finish_affinity(&mut self) -> Result<Commit, PlaneError> {
        let Some(live) = &mut self.live else { return Ok(Commit::default()) };
        if live.affinity.is_settled() {
            return Ok(Commit::default());
        }
        let mut to = Transactions::new(&mut *self.door);
        for family in Family::ALL {
            let map = SetKind::Affinity.of(family);
            if live.affinity.has_work(family) {
                live.affinity.delete_dead(&mut to, map, &live.names)?;
            }
        }
        // One transaction each: a node drain suspends thousands, which is more than a small send buffer takes. What is done is done.
        while !live.affinity.suspended.is_empty() {
            let some: Vec<_> = live.affinity.suspended.iter().take(CHUNK).cloned().collect();
            let mut changes = Changes::default();
            for (set, record) in &some {
                changes.delete(*set, record);
            }
            super::apply::write_elements(&mut to.batch, &changes, |set| live.names.set(set));
            to.commit()?;
            for element in &some {
                live.affinity.suspended.remove(element);
                live.counts.entry(element.0).and_modify(|count| *count = count.saturating_sub(1));
            }
        }
        live.affinity.swept.clear();
        live.affinity.all.clear();
        Ok(to.account())
    }
}

impl Affinity {
    /// The sticky frontends of a whole table.
    pub(crate) fn of(table: &ServiceTable, spoiled: impl Fn(&PortId) -> bool) -> Self {
        let mut affinity = Self { pods: pods(table.node()), ..Self::default() };
        for port in table.ports().filter(|port| !spoiled(&port.id)) {
            affinity.admit(port);
        }
        affinity
    }

    /// Whether there is nothing left to do.
    pub(crate) fn is_settled(&self) -> bool {
        self.suspended.is_empty() && self.swept.is_empty() && self.all.is_empty()
    }

    /// Any entry of these families may be dead.
    pub(crate) fn sweep_all(&mut self, families: impl Iterator<Item = Family>) {
        self.all.extend(families);
    }

    /// Whether an element is in a suspended set.
    pub(crate) fn is_suspended(&self, set: SetId, record: &[u8]) -> bool {
        self.suspended.contains(&(set, Record::from_slice(record)))
    }

    /// Follows one Service port in what it had. Before [`Affinity::join`] with any: a frontend that moves from one port to another
    /// leaves and joins in either order, and whoever left last would take away what the other has.
    pub(crate) fn leave(
        &mut self,
        before: Option<&ServicePort>,
        after: Option<&ServicePort>,
        change: &PortChange,
        node: &NodeState,
    ) {
        self.pods = pods(node);
        let was = before.filter(|port| port.affinity.is_some());
        let is = after.filter(|port| port.affinity.is_some());
        for frontend in was.into_iter().flat_map(|port| &port.frontends) {
            self.sticky.remove(&frontend.address);
            let next = is.and_then(|port| port.frontends.iter().find(|next| next.address == frontend.address));
            let lost = |scope: Scope| match scope {
                Scope::Cluster => !change.cluster.removed.is_empty(),
                Scope::Local => !change.local.removed.is_empty(),
            };
            let same = next.is_some_and(|next| render::pools(next) == render::pools(frontend));
            if !same || render::pools(frontend).into_iter().any(|(_, scope)| lost(scope)) {
                self.swept.insert(frontend.address);
            }
        }
    }

    /// Follows one Service port in what it has; adds to `changes` the suspensions that have to be in the same transaction.
    pub(crate) fn join(&mut self, port: &ServicePort, node: &NodeState, changes: &mut Changes) {
        if port.affinity.is_none() {
            return;
        }
        self.admit(port);
        for frontend in port.frontends.iter().filter(|frontend| self.swept.contains(&frontend.address)) {
            for key in entry_frontends(frontend, node) {
                let element = (SetKind::Suspended.of(frontend.address.family()), key);
                if !self.suspended.contains(&element) {
                    changes.add(element.0, &element.1);
                    self.suspended.insert(element);
                }
            }
        }
    }

    fn admit(&mut self, port: &ServicePort) {
        if port.affinity.is_none() {
            return;
        }
        for frontend in &port.frontends {
            let general = port.set(frontend.scope()).clone();
            let outside = frontend.splits_by_source().then(|| port.local.clone());
            self.sticky.insert(frontend.address, Backends { general, outside });
        }
    }

    fn has_work(&self, family: Family) -> bool {
        self.all.contains(&family) || self.swept.iter().any(|frontend| frontend.family() == family)
    }

    /// Deletes the entries of a map whose backend left the frontend they are for.
    pub(crate) fn delete_dead(&self, to: &mut Transactions<'_>, map: SetId, names: &Instances) -> Result<(), PlaneError> {
        let name = names.set(map);
        let entries = to.door().dump(TABLE, &name).map_err(error::door)?;
        let dead: Vec<Vec<u8>> =
            entries.into_iter().filter(|entry| self.is_dead(map.family, entry)).map(|entry| entry.key).collect();
        for chunk in dead.chunks(CHUNK) {
            delete_where_there(to, &name, chunk)?;
        }
        Ok(())
    }

    /// Entries of frontends that are not being swept are left alone.
    fn is_dead(&self, family: Family, entry: &OwnedElement) -> bool {
        let parsed = || {
            let (client, key) = render::parse_address(family, &entry.key)?;
            let frontend = render::parse_frontend(family, Reach::Address, key)?;
            Some((client, frontend, render::parse_backend(family, entry.data.as_deref()?)?))
        };
        // Not ours: rules of ours cannot have written it.
        let Some((client, frontend, backend)) = parsed() else { return true };
        let (protocol, port) = (frontend.protocol(), frontend.port());
        let node_port = FrontendAddress::NodePort { family, protocol, port };
        let known = [frontend, node_port].into_iter().find(|address| self.sticky.contains_key(address));
        let swept = match known {
            Some(address) => self.swept.contains(&address),
            None => self.swept.contains(&frontend) || self.swept.contains(&node_port),
        };
        if !swept && !self.all.contains(&family) {
            return false;
        }
        !known.and_then(|address| self.sticky.get(&address)).is_some_and(|set| self.may_serve(set, client, backend))
    }

    fn may_serve(&self, set: &Backends, client: IpAddr, backend: SocketAddr) -> bool {
        let has = |backends: &BackendSet| backends.find(backend).is_some();
        let Some(outside) = &set.outside else { return has(&set.general) };
        // By interface nobody can say afterwards who a client was: it may have been a pod.
        let is_pod = self.pods.as_ref().is_none_or(|pods| pods.iter().any(|net| net.contains(&client)));
        has(outside) || (is_pod && has(&set.general))
    }
}

/// What a frontend is called in the keys of affinity entries: a NodePort has one name for each address of the node.
fn entry_frontends(frontend: &Frontend, node: &NodeState) -> Vec<Record> {
    match frontend.address {
        FrontendAddress::Ip { .. } => vec![render::frontend_key(frontend.address)],
        FrontendAddress::NodePort { family, protocol, port } => {
            let at = |ip: &IpAddr| render::frontend_key(FrontendAddress::Ip { ip: *ip, protocol, port });
            node.node_ports(family).addresses.iter().map(at).collect()
        }
    }
}

fn pods(node: &NodeState) -> Option<Arc<[IpNet]>> {
    match &node.detector {
        Detector::Cidrs(nets) => Some(nets.iter().copied().collect()),
        Detector::Off => Some(Arc::default()),
        Detector::Interface(_) | Detector::InterfacePrefix(_) => None,
    }
}

/// Entries expire by themselves, also between reading and deleting them. `destroy` does not mind; older kernels (before 6.3) refuse
/// the transaction and say which entry it was.
fn delete_where_there(to: &mut Transactions<'_>, map: &str, keys: &[Vec<u8>]) -> Result<(), PlaneError> {
    if to.door().has_destroy() {
        to.in_chunks(map, keys.iter().map(|key| Element::key(key)), Batch::destroy_elements)?;
        return to.commit();
    }
    let mut left: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for _ in 0..ATTEMPTS {
        let mut batch = Batch::new();
        // One message each: the kernel names one refused element for each message.
        for key in &left {
            batch.delete_elements(TABLE, map).push(Element::key(key));
        }
        match to.attempt(batch) {
            Ok(_) => return Ok(()),
            Err(CommitError::Refused { refusals }) if refusals.iter().all(|refusal| refusal.errno == Errno::ENOENT) => {
                let gone: HashSet<&[u8]> =
                    refusals.iter().filter_map(|refusal| Some(refusal.element.as_ref()?.key.as_slice())).collect();
                left.retain(|key| !gone.contains(key));
            }
            Err(refused) => return Err(error::commit(refused)),
        }
    }
    Err(PlaneError::Kernel { call: "delete", subject: format!("entries of {map}"), source: Errno::EAGAIN.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nft::{FakeNft, KernelNft, KernelNftOptions, NftDoor, SetFlags, SetSpec};
    use crate::netlink::testns::in_namespace;

    /// Entries of a map, some of which expire before they are deleted: the rest goes all the same, and every commit is in the account.
    fn deletes_what_is_there(door: &mut dyn NftDoor) {
        let mut batch = Batch::new();
        batch.add_table(TABLE, None);
        let flags = SetFlags { timeout: true, dynamic: true, ..SetFlags::default() };
        batch.add_set(TABLE, &SetSpec { name: "m".into(), key_len: 4, size: Some(1000), flags, ..SetSpec::default() });
        let key = |number: u32| number.to_be_bytes().to_vec();
        {
            let mut elements = batch.add_elements(TABLE, "m");
            for number in (0..100).filter(|number| number % 3 > 0) {
                elements.push(Element::key(&key(number)));
            }
        }
        door.commit(batch).unwrap();
        let before = door.generation().unwrap();
        let mut to = Transactions::new(door);
        delete_where_there(&mut to, "m", &(0..90).map(key).collect::<Vec<_>>()).unwrap();
        let commit = to.account();
        assert_eq!(door.dump(TABLE, "m").unwrap().len(), 6);
        assert_eq!(door.generation().unwrap().wrapping_sub(before), commit.transactions);
    }

    #[test]
    fn entries_that_expired_meanwhile_hold_up_no_others() {
        let fake = FakeNft::new();
        deletes_what_is_there(&mut fake.another());
        fake.without_destroy();
        crate::dataplane::nftables::cleanup(&mut fake.another()).unwrap();
        deletes_what_is_there(&mut fake.another());
        for probe_destroy in [true, false] {
            in_namespace(move || {
                let options = KernelNftOptions { probe_destroy, ..KernelNftOptions::default() };
                deletes_what_is_there(&mut KernelNft::open_with(options).unwrap());
            });
        }
    }
}
