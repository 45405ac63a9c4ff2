//! What is refused before anything is begun: something that is asked for cannot be.

use std::fmt;

/// Why it cannot be. The bench then ends with [`Refusal::EXIT_CODE`], as it does for an option that it does not know.
#[derive(Debug)]
pub(crate) struct Refusal(anyhow::Error);

impl Refusal {
    /// As clap has it.
    pub(crate) const EXIT_CODE: u8 = 2;

    /// For `map_err` on whatever was found out before the beginning.
    pub(crate) fn of(why: impl Into<anyhow::Error>) -> anyhow::Error {
        Self(why.into()).into()
    }

    /// Whether an error is one, whatever was said of it since.
    pub(crate) fn is_behind(error: &anyhow::Error) -> bool {
        error.chain().any(<dyn std::error::Error>::is::<Self>)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With all causes: they are not in this error's own chain.
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_refusal_stays_one_when_more_is_said_of_it() {
        let refused = Err::<(), _>(Refusal::of(anyhow!("cause").context("too large"))).context("compare").unwrap_err();
        assert!(Refusal::is_behind(&refused));
        assert_eq!(format!("{refused:#}"), "compare: too large: cause");
        assert!(!Refusal::is_behind(&anyhow!("it broke")));
    }
}
