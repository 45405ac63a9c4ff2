//! A server that comes back from an outage with an older store.

use tracing::debug;

use super::super::connect::Server;
use super::super::failure::Failure;
use super::super::split::Items;
use super::{Phase, Progress, Watcher, version_and_next_page};

impl Watcher {
    /// Goes on from the last version seen, if the server has counted that far; one that has not would accept the watch and keep silent,
    /// while what was deleted from its store is served. It costs one request for one object, after an outage only.
    pub(super) async fn resume_unless_restored(&mut self, server: &Server) -> Result<Phase, Failure> {
        match self.version_of(server).await {
            Ok(version) if self.gone_back_to(&version).is_some() => {
                debug!("{} is at version {version}, before the last one seen: listing again", self.resource.stream);
                // A list not older than the last version would be refused.
                self.from_store = true;
                return Ok(Phase::Begin);
            }
            Ok(_) => {}
            Err(failure) if failure.is_the_servers() || failure.is_throttling() => return Err(failure),
            Err(Failure::Closed) => return Err(Failure::Closed),
            // Who may watch need not be allowed to ask this: the silence of the watch will tell.
            Err(failure) => debug!("version of {} is not known ({failure})", self.resource.stream),
        }
        let step = self.stream(server, Progress::Watching).await;
        // One that refuses the watch as well may only just have started, and is asked again.
        self.was_away &= step.is_err();
        step
    }

    /// How far the store of the server has counted.
    async fn version_of(&self, server: &Server) -> Result<String, Failure> {
        let mut answer = self.ask(server, &self.resource.version(), self.timing.answer).await?;
        let mut list = Items::default();
        while let Some(chunk) = answer.chunk().await? {
            list.feed(&chunk, |_| {})?;
        }
        Ok(version_and_next_page(list)?.0)
    }
}
