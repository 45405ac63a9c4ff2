//! Mending what somebody else changed.

use std::net::IpAddr;

use crate::dataplane::{Commit, Damage, DamagedElement, PlaneError};
use crate::netlink::nft::{Element, OwnedElement};
use crate::table::{FrontendAddress, ServiceTable};

use super::content::Content;
use super::load::content_of;
use super::names::{Reach, SetId, SetKind, TABLE};
use super::render::{self, Record};
use super::transactions::Transactions;
use super::{Live, NftablesPlane, error};

impl NftablesPlane {
    pub(super) fn repair_damage(&mut self, damage: &Damage, table: &ServiceTable) -> Result<Commit, PlaneError> {
        let Damage::Elements(elements) = damage else { return self.load_table(table) };
        let Some(live) = self.live.take() else { return self.load_table(table) };
        let placed: Option<Vec<(SetId, &DamagedElement)>> =
            elements.iter().map(|element| live.set_named(&element.set).map(|set| (set, element))).collect();
        match placed {
            Some(placed) if placed.len() <= Damage::MOST_ELEMENTS => {
                let commit = live.mend(Transactions::new(&mut *self.door), &placed, table)?;
                self.live = Some(live);
                Ok(commit)
            }
            // A set that we do not have was changed: whose is it, and what else is there?
            _ => self.load_table(table),
        }
    }
}

impl Live {
    fn set_named(&self, name: &str) -> Option<SetId> {
        self.features.sets().find(|set| self.names.set(*set) == name)
    }

    /// Compares each element with what the table says, whatever was reported about it: reports may be old.
    fn mend(
        &self,
        mut to: Transactions<'_>,
        damaged: &[(SetId, &DamagedElement)],
        table: &ServiceTable,
    ) -> Result<Commit, PlaneError> {
        let mut rewritten: Vec<SetId> = Vec::new();
        for (set, element) in damaged {
            let shape = set.shape();
            let name = self.names.set(*set);
            if set.kind == SetKind::Affinity {
                // Packets write it, and it may lose entries at any time.
                continue;
            }
            if shape.interval || shape.range {
                // An element is half an interval, or not found by its key: these sets are short and written whole.
                if !rewritten.contains(set) {
                    rewritten.push(*set);
                    to.batch.flush_set(TABLE, &name);
                    for (_, column) in content_of(*set, table, &self.spoiled).into_columns() {
                        to.add(&name, column.elements());
                    }
                }
                continue;
            }
            let present = to.door().get(TABLE, &name, &[&element.key]).map_err(error::door)?;
            let wanted = self.wanted(*set, &element.key, table);
            let wanted = wanted.as_deref().map(|record| shape.element(record));
            let matches = |there: &OwnedElement, wanted: &Element<'_>| there.data.as_deref() == wanted.data;
            match (present.first(), wanted) {
                (None, None) => {}
                (Some(there), Some(wanted)) if matches(there, &wanted) => {}
                (there, wanted) => {
                    if there.is_some() {
                        to.batch.delete_elements(TABLE, &name).push(Element::key(&element.key));
                    }
                    if let Some(wanted) = wanted {
                        to.batch.add_elements(TABLE, &name).push(wanted);
                    }
                }
            }
        }
        to.commit()?;
        Ok(to.account())
    }

    /// The element that a set should have under this key.
    fn wanted(&self, set: SetId, key: &[u8], table: &ServiceTable) -> Option<Record> {
        let mut content = Content::default();
        let mut put = |candidate: SetId, record: &[u8]| {
            if candidate == set && record.starts_with(key) {
                content.push(candidate, record);
            }
        };
        let address = || render::parse_address(set.family, key).map(|(ip, _)| ip);
        match set.kind {
            SetKind::ServiceIps | SetKind::ClusterIps | SetKind::Foreign | SetKind::Vips => {
                let ip: IpAddr = address()?;
                render::address(ip, table.address(ip), &mut put);
            }
            SetKind::Hairpin => {
                let ip = address().filter(|ip| table.hairpins().any(|hairpin| hairpin == *ip))?;
                render::hairpin(ip, &mut put);
            }
            SetKind::NodeIps => render::node_addresses(table.node(), &mut put),
            SetKind::Suspended => return self.affinity.is_suspended(set, key).then(|| Record::from_slice(key)),
            SetKind::Endpoints(pool) => {
                let (frontend, _) = key.split_at_checked(key.len().checked_sub(4)?)?;
                self.render_holder(set, pool.reach(), frontend, table, &mut put)?;
            }
            SetKind::Class(pool, _) => self.render_holder(set, pool.reach(), key, table, &mut put)?,
            SetKind::Sticky(reach, _)
            | SetKind::ExternalCluster(reach)
            | SetKind::ExternalLocal(reach)
            | SetKind::Reject(reach)
            | SetKind::Drop(reach) => self.render_holder(set, reach, key, table, &mut put)?,
            SetKind::Ranged | SetKind::Special => self.render_holder(set, Reach::Address, key, table, &mut put)?,
            SetKind::Affinity | SetKind::Pods | SetKind::ServiceCidrs | SetKind::Ranges => return None,
        }
        let (_, column) = content.into_columns().next()?;
        column.records().next().map(Record::from_slice)
    }

    fn render_holder(
        &self,
        set: SetId,
        reach: Reach,
        key: &[u8],
        table: &ServiceTable,
        put: &mut impl render::Sink,
    ) -> Option<()> {
        let frontend: FrontendAddress = render::parse_frontend(set.family, reach, key)?;
        let port = table.holder(&frontend).filter(|port| !self.spoiled.contains_key(&port.id))?;
        render::port(port, put);
        Some(())
    }
}
