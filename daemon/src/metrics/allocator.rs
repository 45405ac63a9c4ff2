//! Of the load balancer's allocation: MetalLB's metrics by their names, and what the controller writes.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::book::{Book, Labelled};
use crate::model::load_balancer::PoolCounts;
use crate::source::kube;

/// Metrics of whoever gives addresses to Services. Those of pools, and of how the configuration stands, are told only by the replica
/// that leads: MetalLB's alerts take a zero for a failure.
#[derive(Debug)]
pub struct AllocatorMetrics {
    /// 1 while this replica leads.
    pub(crate) leads: Gauge,
    /// Objects that came, changed or went.
    pub(crate) updates: Counter,
    /// Writes that failed.
    pub(crate) update_errors: Counter,
    /// By kind of object and outcome.
    pub(crate) writes: Labelled<2, Counter>,
    config_loaded: Labelled<0, Gauge>,
    config_stale: Labelled<0, Gauge>,
    pools: [PoolGauges; 3],
    occupied: Labelled<0, Gauge>,
    /// The watches of the replica that leads.
    watches: Mutex<Option<Arc<kube::Health>>>,
}

/// Addresses of one family, or of both.
#[derive(Debug)]
struct PoolGauges {
    total: Labelled<1, Gauge>,
    in_use: Labelled<1, Gauge>,
}

impl AllocatorMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let pools = [
            PoolGauges {
                total: book.labelled(
                    "metallb_allocator_addresses_total",
                    ["pool"],
                    "Number of usable IP addresses, per pool",
                    Gauge::default,
                ),
                in_use: book.labelled(
                    "metallb_allocator_addresses_in_use_total",
                    ["pool"],
                    "Number of IP addresses in use, per pool",
                    Gauge::default,
                ),
            },
            PoolGauges {
                total: book.labelled(
                    "metallb_allocator_ipv4_addresses_total",
                    ["pool"],
                    "Number of usable IPv4 addresses, per pool",
                    Gauge::default,
                ),
                in_use: book.labelled(
                    "metallb_allocator_ipv4_addresses_in_use_total",
                    ["pool"],
                    "Number of IPv4 addresses in use, per pool",
                    Gauge::default,
                ),
            },
            PoolGauges {
                total: book.labelled(
                    "metallb_allocator_ipv6_addresses_total",
                    ["pool"],
                    "Number of usable IPv6 addresses, per pool",
                    Gauge::default,
                ),
                in_use: book.labelled(
                    "metallb_allocator_ipv6_addresses_in_use_total",
                    ["pool"],
                    "Number of IPv6 addresses in use, per pool",
                    Gauge::default,
                ),
            },
        ];
        Self {
            pools,
            updates: book.one(
                "metallb_k8s_client_updates_total",
                "Objects that came, changed or went, as the controller was told",
                Counter::default,
            ),
            update_errors: book.one(
                "metallb_k8s_client_update_errors_total",
                "Writes of the controller that failed; they are repeated until one works",
                Counter::default,
            ),
            config_loaded: book.labelled(
                "metallb_k8s_client_config_loaded_bool",
                [],
                "1 once pools and Services have been listed; told by the replica that leads",
                Gauge::default,
            ),
            config_stale: book.labelled(
                "metallb_k8s_client_config_stale_bool",
                [],
                "1 while a pool is not used as it is now, since that is not valid; told by the replica that leads",
                Gauge::default,
            ),
            occupied: book.labelled(
                "sheave_controller_occupied_addresses",
                [],
                "Addresses that were to be given to a Service and are not, since another host of the LAN answers for them; told where the LAN \
                 is asked (run --controller)",
                Gauge::default,
            ),
            leads: book.one("sheave_controller_leads", "1 for the replica of the controller that leads, else 0", Gauge::default),
            writes: book.labelled(
                "sheave_controller_writes_total",
                ["resource", "outcome"],
                "Writes of the controller by resource and outcome: written, needless (it said so already, or is gone), conflict (decided \
                 again) or failed (repeated)",
                Counter::default,
            ),
            watches: Mutex::default(),
        }
    }

    /// Everything has been listed.
    pub(crate) fn loaded(&self) {
        self.config_loaded.of([]).set(1);
        self.config_stale.of([]).set(0);
    }

    /// So many addresses of pools are other hosts'.
    pub(crate) fn tell_occupied(&self, addresses: usize) {
        self.occupied.of([]).set(i64::try_from(addresses).unwrap_or(i64::MAX));
    }

    /// All pools there are, and whether one is not used as it is now.
    pub(crate) fn tell_pools<'p>(&self, pools: impl IntoIterator<Item = (&'p str, PoolCounts)>, stale: bool) {
        self.config_stale.of([]).set(stale.into());
        self.clear_pools();
        for (pool, counts) in pools {
            let PoolCounts { assigned_v4, assigned_v6, available_v4, available_v6 } = counts;
            let v4 = (assigned_v4, available_v4);
            let v6 = (assigned_v6, available_v6);
            let both = (assigned_v4.saturating_add(assigned_v6), available_v4.saturating_add(available_v6));
            for (gauges, (assigned, available)) in self.pools.iter().zip([both, v4, v6]) {
                gauges.total.of([pool]).set(assigned.saturating_add(available));
                gauges.in_use.of([pool]).set(assigned);
            }
        }
    }

    /// These watches are the controller's.
    pub(crate) fn follow(&self, watches: Arc<kube::Health>) {
        self.leads.set(1);
        *self.watches.lock().unwrap_or_else(PoisonError::into_inner) = Some(watches);
    }

    pub(super) fn watches(&self) -> Option<Arc<kube::Health>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This replica leads no more: it has nothing to tell of pools.
    pub(crate) fn silence(&self) {
        self.leads.set(0);
        self.config_loaded.clear();
        self.config_stale.clear();
        self.occupied.clear();
        self.clear_pools();
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn clear_pools(&self) {
        for PoolGauges { total, in_use } in &self.pools {
            total.clear();
            in_use.clear();
        }
    }
}
