//! Backend sets: arrays with stable places, and the smallest change from one to the next.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::delta::{SetDelta, SlotWrite};
use super::types::{Backend, BackendId};

/// Backends with stable places: slot `i` is `slots()[i]`.
///
/// Adding appends; removing moves the last into the hole and shortens; so a change touches at most two slots, whatever the size.
/// A slot is not an identity: what outlives a packet keeps the backend's address and its `generation`.
///
/// Cheap to clone: two pointers. 28 bytes per backend.
#[derive(Clone, Default, PartialEq)]
pub struct BackendSet {
    /// By slot. Addresses are unique.
    slots: Arc<[Slot]>,
    /// Slots by ascending address: with it a change is found by a merge (a commit with 5,000 backends: 70 us; to sort them takes
    /// 190 us alone), and a backend by its address in a few steps.
    order: Arc<[u32]>,
}

/// One place in a [`BackendSet`]: who is there, and since when.
///
/// Packed: as a `SocketAddr`, a flag and a generation it would take twice its 24 bytes, and a node has up to a million of them. Zone and
/// flow label of an IPv6 address are not kept: an endpoint has neither.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// IPv4 as IPv4-mapped; [`Slot::V6`] tells the two apart, since an endpoint may have a mapped address of its own.
    ip: Ipv6Addr,
    /// Port in the upper 16 bits, [`Slot::V6`], [`Slot::LOCAL`], generation in the lower 46: at a thousand commits a second they
    /// last for two thousand years.
    rest: u64,
}

/// A set after a change, and what the change was.
#[derive(Debug, PartialEq)]
pub(super) struct SetChange {
    /// The set; shares its memory with the old one if nothing changed.
    pub(super) set: BackendSet,
    /// For the planes.
    pub(super) delta: SetDelta,
    /// Local backends that came (`true`), went or ceased to be local (`false`).
    pub(super) local: Vec<(IpAddr, bool)>,
}

const _: () = assert!(size_of::<Slot>() == 24, "250,000 of them are counted on to fit into 6 MB");

// === impl Slot ===

impl Slot {
    const PORT_SHIFT: u32 = 48;
    const V6: u64 = 1 << 47;
    const LOCAL: u64 = 1 << 46;
    const GENERATION: u64 = Self::LOCAL - 1;

    /// A backend that joined at this generation of the table.
    #[must_use]
    pub fn new(backend: Backend, generation: u64) -> Self {
        let (ip, family) = match backend.address.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 0),
            IpAddr::V6(ip) => (ip, Self::V6),
        };
        let local = if backend.local { Self::LOCAL } else { 0 };
        let port = u64::from(backend.address.port()) << Self::PORT_SHIFT;
        Self { ip, rest: port | family | local | (generation & Self::GENERATION) }
    }

    /// Who is there.
    #[must_use]
    pub fn backend(&self) -> Backend {
        Backend { address: self.address(), local: self.is_local() }
    }

    /// Its address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), (self.rest >> Self::PORT_SHIFT) as u16)
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        if self.rest & Self::V6 == 0 { self.ip.to_canonical() } else { IpAddr::V6(self.ip) }
    }

    /// It runs on this node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.rest & Self::LOCAL != 0
    }

    /// Generation of the table at which this backend joined the set. Leaving and coming back makes another identity.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.rest & Self::GENERATION
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> BackendId {
        BackendId { address: self.address(), generation: self.generation() }
    }

    /// Sorts as [`SocketAddr`] does.
    fn key(&self) -> (u64, u128, u64) {
        (self.rest & Self::V6, self.ip.to_bits(), self.rest >> Self::PORT_SHIFT)
    }
}

impl fmt::Debug for Slot {
    /// `10.0.0.1:80@7`, with `local` behind it if it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}{}", self.address(), self.generation(), if self.is_local() { " local" } else { "" })
    }
}

// === impl BackendSet ===

impl BackendSet {
    /// The places, in order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Number of backends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No backends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The backends in slot order, by value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Backend> {
        self.slots.iter().map(Slot::backend)
    }

    /// The backends by ascending address.
    pub fn sorted(&self) -> impl ExactSizeIterator<Item = Backend> {
        self.order.iter().map(|&slot| self.slots[slot as usize].backend())
    }

    /// The place of a backend, if it is in the set. Costs the logarithm of the size.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<(u32, &Slot)> {
        let key = Slot::new(Backend { address, local: false }, 0).key();
        let rank = self.order.binary_search_by_key(&key, |&slot| self.slots[slot as usize].key()).ok()?;
        let slot = self.order[rank];
        Some((slot, &self.slots[slot as usize]))
    }

    /// The set that holds exactly `wanted`, which is sorted by address without repetitions; whoever joins does so at `generation`.
    ///
    /// Backends that stay keep their identity, and their slot unless they are the last and a hole needs them. A change of `local`
    /// alone changes the slot's content but writes nothing: no plane keeps the flag, hairpins are told apart ([`super::Delta`]).
    /// With `r` backends removed and `a` added there are at most `max(a, 2r - a)` writes.
    pub(super) fn updated(&self, wanted: &[Backend], generation: u64) -> SetChange {
        let merge = Merge::of(self, wanted, generation);
        if merge.is_empty() {
            return SetChange { set: self.clone(), delta: SetDelta::default(), local: Vec::new() };
        }
        merge.place(self, wanted.len())
    }
}

impl fmt::Debug for BackendSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter()).finish()
    }
}

impl FromIterator<Slot> for BackendSet {
    /// A set with these places. Addresses have to be unique.
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let slots: Arc<[Slot]> = slots.into_iter().collect();
        let mut order: Vec<u32> = (0u32..).zip(slots.iter()).map(|(slot, _)| slot).collect();
        order.sort_unstable_by_key(|&slot| slots[slot as usize].key());
        Self { slots, order: order.into() }
    }
}

// === The difference between a set and what is wanted ===

/// Old set and wanted list, compared.
struct Merge {
    /// Slots by ascending address for the new set; [`Merge::NEW`] for those that join.
    order: Vec<u32>,
    /// Those that join, by ascending address.
    joining: Vec<Slot>,
    /// Places of those that leave.
    holes: Vec<u32>,
    /// Those whose `local` changed: the place and its new content.
    relabelled: Vec<(u32, Slot)>,
}

impl Merge {
    /// Not a slot: a set this large would take 100 GB.
    const NEW: u32 = u32::MAX;

    fn of(old: &BackendSet, wanted: &[Backend], generation: u64) -> Self {
        let mut merge = Self {
            order: Vec::with_capacity(wanted.len()),
            // At the least so many, and all of them where there was nobody.
            joining: Vec::with_capacity(wanted.len().saturating_sub(old.len())),
            holes: Vec::new(),
            relabelled: Vec::new(),
        };
        let mut present = old.order.iter().map(|&place| (place, &old.slots[place as usize])).peekable();
        for &backend in wanted {
            let joining = Slot::new(backend, generation);
            let key = joining.key();
            while let Some((place, _)) = present.next_if(|(_, slot)| slot.key() < key) {
                merge.holes.push(place);
            }
            let Some((place, slot)) = present.next_if(|(_, slot)| slot.key() == key) else {
                merge.order.push(Self::NEW);
                merge.joining.push(joining);
                continue;
            };
            merge.order.push(place);
            if slot.is_local() != backend.local {
                merge.relabelled.push((place, Slot::new(backend, slot.generation())));
            }
        }
        merge.holes.extend(present.map(|(place, _)| place));
        merge.holes.sort_unstable();
        merge
    }

    fn is_empty(&self) -> bool {
        self.joining.is_empty() && self.holes.is_empty() && self.relabelled.is_empty()
    }

    /// Fills holes with those that join, then with the last; what still joins is appended.
    fn place(mut self, old: &BackendSet, len: usize) -> SetChange {
        let mut slots = Vec::with_capacity(len.max(old.len()));
        slots.extend_from_slice(&old.slots);
        for &(place, slot) in &self.relabelled {
            slots[place as usize] = slot;
        }
        // Holes beyond the new end vanish by themselves.
        let inner = &self.holes[..self.holes.partition_point(|&hole| (hole as usize) < len)];
        let joined: Vec<u32> = inner.iter().copied().chain(index(old.len())..).take(self.joining.len()).collect();
        for (&place, &slot) in joined.iter().zip(&self.joining) {
            match slots.get_mut(place as usize) {
                Some(hole) => *hole = slot,
                None => slots.push(slot),
            }
        }
        let mut open = inner.iter().skip(joined.len());
        let mut relocate = |last: usize| {
            if self.holes.binary_search(&index(last)).is_ok() {
                return Self::NEW;
            }
            let hole = *open.next().expect("within the new length are as many open holes as there are backends beyond it");
            slots[hole as usize] = slots[last];
            hole
        };
        let relocated: Vec<u32> = (len..old.len()).map(&mut relocate).collect();
        slots.truncate(len);

        // Not to be written: a slot whose backend stays. So it is the holes, and what the array grew or shrank by.
        let writes = inner.iter().copied().chain(index(len.min(old.len()))..index(len.max(old.len())));
        let writes = writes.map(|slot| SlotWrite {
            slot,
            before: old.slots.get(slot as usize).map(Slot::backend),
            after: slots.get(slot as usize).map(Slot::backend),
        });
        let delta = SetDelta {
            writes: writes.collect(),
            added: self.joining.iter().map(Slot::id).collect(),
            removed: self.holes.iter().map(|&hole| old.slots[hole as usize].id()).collect(),
        };

        let mut joined = joined.into_iter();
        for place in &mut self.order {
            if *place == Self::NEW {
                *place = joined.next().expect("every backend that joins was given a place");
            } else if *place as usize >= len {
                *place = relocated[*place as usize - len];
            }
        }
        let local = self.local(old);
        SetChange { set: BackendSet { slots: slots.into(), order: self.order.into() }, delta, local }
    }

    /// What it means for hairpins.
    fn local(&self, old: &BackendSet) -> Vec<(IpAddr, bool)> {
        let joined = self.joining.iter().filter(|slot| slot.is_local()).map(|slot| (slot.ip(), true));
        let left = self.holes.iter().map(|&hole| &old.slots[hole as usize]);
        let left = left.filter(|slot| slot.is_local()).map(|slot| (slot.ip(), false));
        let relabelled = self.relabelled.iter().map(|(_, slot)| (slot.ip(), slot.is_local()));
        joined.chain(left).chain(relabelled).collect()
    }
}

/// The number of a slot.
fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a set of four billion backends would take 100 GB")
}

#[cfg(test)]
mod tests;
