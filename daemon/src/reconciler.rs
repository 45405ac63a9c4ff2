//! From changes to a delta, without IO: index, policy and table as one piece.
//!
//! ```text
//! Change ─► Index ─► dirty Services ─► policy ─► ServiceTable ─► Delta
//! ```
//! The sync loop drives it with what the sources send and hands the outcome to a plane. The property tests drive it with random
//! changes: what they prove, they prove of the code that runs.

use crate::model::{Dirty, Index, ObjectProblem, ServiceKey};
use crate::policy::{self, Context, Seniority};
use crate::source::Change;
use crate::table::{Committed, NodeState, ServiceTable};

/// Owns the objects and the table, and knows what has to be decided anew.
#[derive(Debug, Default)]
pub struct Reconciler {
    index: Index,
    table: ServiceTable,
    context: Context,
    /// Policy's context changed: every Service is evaluated again.
    all_dirty: bool,
}

/// Whether anybody wants the delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A plane follows the table by its deltas: one commit, one delta.
    Delta,
    /// A plane will load the table as a whole. At a cold start the delta would be larger than the table itself, so the table commits
    /// every few hundred Services and only the notices are kept (docs/decisions/service-table.md).
    Load,
}

/// What became of everything that was dirty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reconciled {
    /// Services that went through policy.
    pub services: usize,
    /// What the table made of them. With [`Purpose::Load`] the delta is that of the last commit alone, and of no use.
    pub committed: Committed,
}

/// Services evaluated between two commits of the table while it is being filled.
const SERVICES_PER_COLD_COMMIT: usize = 256;

impl Reconciler {
    /// Nothing known, nothing wanted.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context, ..Self::default() }
    }

    /// The objects.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The desired state, as of the last [`Reconciler::reconcile`].
    #[must_use]
    pub fn table(&self) -> &ServiceTable {
        &self.table
    }

    /// What policy is told about the node.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Folds in one change; a mark changes nothing here. See [`Index::apply`].
    pub fn apply(&mut self, change: Change) {
        self.index.apply(change);
    }

    /// Problems of objects not reported before. See [`Index::take_problems`].
    pub fn take_problems(&mut self) -> Vec<ObjectProblem> {
        self.index.take_problems()
    }

    /// What has changed since the last call. If it is the Node or the ServiceCIDRs, [`Reconciler::set_node`] comes before
    /// [`Reconciler::reconcile`].
    pub fn take_dirty(&mut self) -> Dirty {
        self.index.take_dirty()
    }

    /// What policy and planes are told about the node. Costs nothing where it says what it said before; another context makes every
    /// Service be evaluated again.
    pub fn set_node(&mut self, context: Context, state: NodeState) {
        if context != self.context {
            self.context = context;
            self.all_dirty = true;
        }
        // A stage that another one has overtaken must not win, so an unchanged state is staged as well; the table sees the difference.
        self.table.set_node(state);
    }

    /// Some Service has to go through policy. Addresses of the node do not: they are the planes' inputs as they are.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.all_dirty || self.index.is_dirty()
    }

    /// Takes what is dirty through policy into the table. `committed` sees every commit of the table, and the table after it.
    pub fn reconcile(
        &mut self,
        dirty: Dirty,
        purpose: Purpose,
        mut committed: impl FnMut(&Committed, &ServiceTable),
    ) -> Reconciled {
        for key in dirty.foreign {
            let addresses = self.index.foreign_service(&key).map(|service| service.cluster_ips.to_vec());
            self.table.set_foreign(key, addresses.unwrap_or_default());
        }
        let mut services: Vec<ServiceKey> = dirty.services.into_keys().collect();
        if std::mem::take(&mut self.all_dirty) {
            // Those that are gone are dirty, and in the list already; twice is harmless.
            services.extend(self.index.services().map(|service| service.key.clone()));
        }
        let at_once = match purpose {
            Purpose::Delta => services.len().max(1),
            Purpose::Load => SERVICES_PER_COLD_COMMIT,
        };
        let mut commit = |table: &mut ServiceTable| {
            let outcome = table.commit();
            committed(&outcome, table);
            outcome
        };
        let (mut raised, mut cleared, mut checks, mut tenancies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut chunks = services.chunks(at_once).peekable();
        while let Some(chunk) = chunks.next() {
            chunk.iter().for_each(|key| self.decide(key));
            if chunks.peek().is_some() {
                let outcome = commit(&mut self.table);
                raised.extend(outcome.notices_raised);
                cleared.extend(outcome.notices_cleared);
                checks.extend(outcome.health_checks);
                tenancies.extend(outcome.tenancies);
            }
        }
        // Also where no Service is dirty: foreign Services and the node may be.
        let outcome = commit(&mut self.table);
        raised.extend(outcome.notices_raised);
        cleared.extend(outcome.notices_cleared);
        checks.extend(outcome.health_checks);
        tenancies.extend(outcome.tenancies);
        let committed = Committed {
            delta: outcome.delta,
            notices_raised: raised,
            notices_cleared: cleared,
            health_checks: checks,
            tenancies,
        };
        Reconciled { services: services.len(), committed }
    }

    /// One Service through policy.
    fn decide(&mut self, key: &ServiceKey) {
        let service = self.index.service(key);
        let desired =
            service.map(|service| (policy::desired(service, self.index.slices(key), &self.context), Seniority::of(service)));
        let check = service.and_then(|service| policy::health_check(service, self.index.slices(key), &self.context));
        self.table.set_service(key.clone(), desired);
        let tenancy = service.and_then(|service| policy::tenancy(service, self.index.slices(key)));
        self.table.set_health_check(key, check);
        self.table.set_tenancy(key, tenancy);
    }
}
