//! A door with nothing behind it.

use std::time::Duration;

use sheave::netlink::nft::{
    Batch, ChainInfo, CommitError, CommitInfo, DoorError, NftDoor, OwnedElement, RuleInfo, SetInfo, TableInfo,
};

/// Takes every transaction and forgets it: what writing it costs is all there is to measure.
pub(crate) struct Nowhere;

impl NftDoor for Nowhere {
    fn commit(&mut self, batch: Batch) -> Result<CommitInfo, CommitError> {
        std::hint::black_box(&batch);
        Ok(CommitInfo { elements: batch.elements(), messages: batch.messages(), bytes: batch.len(), kernel: Duration::ZERO })
    }

    fn batch_limit(&self) -> usize {
        64 << 20
    }

    fn port_id(&self) -> u32 {
        0
    }

    fn has_destroy(&mut self) -> bool {
        true
    }

    fn generation(&mut self) -> Result<u32, DoorError> {
        Ok(0)
    }

    fn tables(&mut self) -> Result<Vec<TableInfo>, DoorError> {
        Ok(Vec::new())
    }

    fn sets(&mut self, _table: &str) -> Result<Vec<SetInfo>, DoorError> {
        Ok(Vec::new())
    }

    fn chains(&mut self, _table: &str) -> Result<Vec<ChainInfo>, DoorError> {
        Ok(Vec::new())
    }

    fn rules(&mut self, _table: &str) -> Result<Vec<RuleInfo>, DoorError> {
        Ok(Vec::new())
    }

    fn dump(&mut self, _table: &str, _set: &str) -> Result<Vec<OwnedElement>, DoorError> {
        Ok(Vec::new())
    }

    fn get(&mut self, _table: &str, _set: &str, _keys: &[&[u8]]) -> Result<Vec<OwnedElement>, DoorError> {
        Ok(Vec::new())
    }
}
