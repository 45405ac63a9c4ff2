//! UDP flows that conntrack still sends where no backend is (kube-proxy 5.1), looked for off the sync path.
//!
//! A UDP "connection" lives as long as its packets come: a client that never pauses would talk to a dead pod for ever. So after a
//! commit that changed a UDP Service port, the entries to its frontends whose reply does not come from a *serving* endpoint are
//! deleted, and the next packet is balanced afresh. Unlike kube-proxy 1.36: no endpoints and a deleted Service mean that no entry
//! is good (kubernetes#139628, #141371), a NodePort counts only at addresses where it is served, and a dump never delays a sync
//! (kubernetes#135323). A look that fails is repeated until it works ([`seeker`]).

mod counted;
mod left_behind;
mod seeker;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

use self::counted::Counted;
pub(super) use self::left_behind::LeftBehind;
use self::seeker::{FlowTable, Seeker};
use crate::health::ProxyHealth;
use crate::metrics::Metrics;
use crate::model::{Family, Protocol};
use crate::netlink::conntrack::{Conntrack, Flow, STATUS_DST_NAT, STATUS_SEEN_REPLY};
use crate::netlink::nft::DoorError;
use crate::table::{Delta, FrontendAddress, ServicePort, ServiceTable};

/// For each UDP frontend that changed: the endpoints to which a flow may still go, sorted. After rules were missing, also TCP
/// frontends, with none: of TCP only what nobody has answered yet is stale.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    frontends: HashMap<FrontendAddress, Arc<[SocketAddr]>>,
    node_port_addresses: Arc<HashSet<IpAddr>>,
    /// Where there is no frontend and there may have been one, in each family that was not looked at yet.
    vacancies: BTreeMap<Family, Vacancies>,
}

/// Addresses of the cluster's Services. A flow that is translated there, and no frontend's, is of a Service that went while nobody was
/// there to see it: a new one would be dropped or refused by our rules. (At other addresses it might be anybody's.)
#[derive(Clone, Debug, Default)]
struct Vacancies {
    cidrs: Vec<IpNet>,
    /// Other proxies' ClusterIPs, which are none of our business.
    foreign: HashSet<IpAddr>,
}

/// The mailbox of the thread that looks, which ends with the last of these. What queues up while a dump runs, or an outage, is
/// merged: at most the frontends of the table, and those that went since the last look that worked.
#[derive(Clone, Debug)]
pub struct StaleFlows {
    sender: Arc<Sender>,
}

/// Closes the mailbox when it is dropped.
#[derive(Debug, Default)]
struct Sender {
    mailbox: Arc<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    suspects: Suspects,
    /// Nothing will come in any more.
    closed: bool,
}

/// Every frontend there is: after the first load, and after rules were missing, entries may have begun without them; and those of
/// Services that went before this process began. `informed`: other proxies' Services are known.
pub(super) fn all(table: &ServiceTable, informed: bool) -> Suspects {
    let vacancies = if informed { vacancies(table) } else { BTreeMap::new() };
    let mut suspects = Suspects { node_port_addresses: node_port_addresses(table), vacancies, ..Suspects::default() };
    for port in table.ports() {
        suspects.add(port, true);
        suspects.add_unanswered(port);
    }
    suspects
}

/// The UDP frontends this delta touched, those that are gone included.
pub(super) fn changed(delta: &Delta, table: &ServiceTable) -> Suspects {
    let mut suspects = Suspects { node_port_addresses: node_port_addresses(table), ..Suspects::default() };
    for change in &delta.ports {
        for before in change.before.iter() {
            suspects.add(before, false);
        }
    }
    // After all the befores: a frontend that passed from one Service to another is judged by its new holder.
    for change in &delta.ports {
        for after in change.after.iter() {
            suspects.add(after, true);
        }
    }
    suspects
}

fn node_port_addresses(table: &ServiceTable) -> Arc<HashSet<IpAddr>> {
    let node = table.node();
    Arc::new(Family::ALL.iter().flat_map(|family| node.node_ports(*family).addresses.iter().copied()).collect())
}

fn vacancies(table: &ServiceTable) -> BTreeMap<Family, Vacancies> {
    let mut vacancies: BTreeMap<Family, Vacancies> = BTreeMap::new();
    for cidr in &table.node().service_cidrs {
        vacancies.entry(Family::of(cidr.addr())).or_default().cidrs.push(*cidr);
    }
    for (ip, _) in table.addresses().filter(|(_, used)| used.foreign) {
        if let Some(vacancies) = vacancies.get_mut(&Family::of(ip)) {
            vacancies.foreign.insert(ip);
        }
    }
    vacancies
}

impl Suspects {
    fn add(&mut self, port: &ServicePort, present: bool) {
        if port.id.protocol != Protocol::Udp {
            return;
        }
        // Beside the serving ones, whoever is given new flows now: a Service that publishes not-ready addresses has such backends.
        let mut alive: Vec<SocketAddr> = Vec::new();
        if present {
            alive.extend(
                port.serving.iter().copied().chain(port.cluster.iter().chain(port.local.iter()).map(|backend| backend.address)),
            );
            alive.sort_unstable();
            alive.dedup();
        }
        let alive: Arc<[SocketAddr]> = alive.into();
        for frontend in &port.frontends {
            self.frontends.insert(frontend.address, alive.clone());
        }
    }

    /// A SYN that came while there were no rules is remembered as not translated, and so are its retransmissions: without this the
    /// client would try in vain for two minutes.
    fn add_unanswered(&mut self, port: &ServicePort) {
        if port.id.protocol == Protocol::Tcp {
            self.frontends.extend(port.frontends.iter().map(|frontend| (frontend.address, Arc::default())));
        }
    }

    /// There is nothing to look for.
    #[must_use]
    fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.vacancies.is_empty()
    }

    /// Takes in what is known later, which counts where both say something.
    pub(super) fn merge(&mut self, later: Self) {
        if !later.is_empty() {
            self.frontends.extend(later.frontends);
            self.node_port_addresses = later.node_port_addresses;
            self.vacancies.extend(later.vacancies);
        }
    }

    /// What a dump can ask for one by one.
    fn kinds(&self) -> BTreeSet<(Family, Protocol)> {
        let vacant = self.vacancies.keys().map(|family| (*family, Protocol::Udp));
        self.frontends.keys().map(|frontend| (frontend.family(), frontend.protocol())).chain(vacant).collect()
    }

    /// Forgets what has been looked for.
    fn remove(&mut self, family: Family, protocol: Protocol) {
        self.frontends.retain(|frontend, _| (frontend.family(), frontend.protocol()) != (family, protocol));
        if protocol == Protocol::Udp {
            self.vacancies.remove(&family);
        }
    }

    /// The entry leads to no serving endpoint of the frontend that the client addressed; with TCP, to none at all, and nobody answered.
    #[must_use]
    fn is_stale(&self, flow: &Flow) -> bool {
        let (ip, port) = (flow.original.destination.ip(), flow.original.destination.port());
        let protocol = if flow.protocol == Protocol::Tcp.number() { Protocol::Tcp } else { Protocol::Udp };
        let began_without_rules = flow.reply.source == flow.original.destination && flow.status & STATUS_SEEN_REPLY == 0;
        if protocol == Protocol::Tcp && !began_without_rules {
            return false;
        }
        let at_ip = FrontendAddress::Ip { ip, protocol, port };
        let at_node = FrontendAddress::NodePort { family: Family::of(ip), protocol, port };
        let alive = self
            .frontends
            .get(&at_ip)
            .or_else(|| self.node_port_addresses.contains(&ip).then(|| self.frontends.get(&at_node)).flatten());
        match alive {
            Some(alive) => alive.binary_search(&flow.reply.source).is_err(),
            None => protocol == Protocol::Udp && flow.status & STATUS_DST_NAT != 0 && self.is_vacant(ip),
        }
    }

    fn is_vacant(&self, ip: IpAddr) -> bool {
        let holds =
            |vacancies: &Vacancies| vacancies.cidrs.iter().any(|cidr| cidr.contains(&ip)) && !vacancies.foreign.contains(&ip);
        self.vacancies.get(&Family::of(ip)).is_some_and(holds)
    }
}

impl StaleFlows {
    /// Starts the thread that looks; `health` hears of outages. When the last clone of this is dropped it looks once for what it has, and ends.
    ///
    /// # Errors
    /// No thread, or no netlink socket.
    pub fn spawn(metrics: Arc<Metrics>, health: Arc<ProxyHealth>) -> Result<Self, DoorError> {
        let mut seeker = Seeker::new(Counted::new(Conntrack::open()?, metrics), health);
        let flows = Self { sender: Arc::default() };
        let mailbox = flows.sender.mailbox.clone();
        std::thread::Builder::new()
            .name("stale-flows".into())
            .spawn(move || mailbox.serve(&mut seeker))
            .map_err(|source| DoorError::Open { call: "start the thread that looks for stale flows", source })?;
        Ok(flows)
    }

    /// Queues a look. Never waits for one.
    pub(super) fn look_for(&self, suspects: Suspects) {
        if !suspects.is_empty() {
            let mailbox = &self.sender.mailbox;
            mailbox.waiting().suspects.merge(suspects);
            mailbox.filled.notify_one();
        }
    }
}

#[cfg(test)]
impl StaleFlows {
    /// Nobody looks.
    pub(super) fn idle() -> Self {
        Self { sender: Arc::default() }
    }

    /// To which endpoints flows to this UDP frontend may go, if it waits to be looked for.
    pub(super) fn alive_at(&self, frontend: SocketAddr) -> Option<Vec<SocketAddr>> {
        let address = FrontendAddress::Ip { ip: frontend.ip(), protocol: Protocol::Udp, port: frontend.port() };
        self.sender.mailbox.waiting().suspects.frontends.get(&address).map(|alive| alive.to_vec())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.mailbox.waiting().closed = true;
        self.mailbox.filled.notify_one();
    }
}

impl Mailbox {
    /// Looks for what comes in, until it is closed.
    fn serve<T: FlowTable>(&self, seeker: &mut Seeker<T>) {
        let mut due = None;
        while let Some(suspects) = self.take(due) {
            seeker.take_in(suspects);
            due = seeker.look(Instant::now());
        }
    }

    /// What has come in, once something has, or at the time given whether it has or not. `None`: nothing has, and nothing will.
    fn take(&self, due: Option<Instant>) -> Option<Suspects> {
        let idle = |waiting: &mut Waiting| waiting.suspects.is_empty() && !waiting.closed;
        let waiting = self.waiting();
        let mut waiting = match due {
            None => self.filled.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now());
                self.filled.wait_timeout_while(waiting, left, idle).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let suspects = std::mem::take(&mut waiting.suspects);
        (!suspects.is_empty() || !waiting.closed).then_some(suspects)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
