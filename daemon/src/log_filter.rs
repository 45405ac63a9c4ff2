//! What is logged, changed while the process runs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::{EnvFilter, Registry, reload};

/// The log's filter. Clones are the same filter.
#[derive(Clone)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<String>>,
}

/// A filter that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    /// Neither a level nor directives.
    #[error(
        "{text:?}: {reason}; expected a level such as `debug`, directives such as `info,sheave::source=debug`, or klog's 0 to 10"
    )]
    Unreadable {
        /// What was given.
        text: String,
        /// What the parser says.
        reason: String,
    },
    /// Nobody logs any more.
    #[error("the log has ended: {0}")]
    Ended(#[from] reload::Error),
}

impl LogFilter {
    /// A filter with the layer that applies it.
    ///
    /// # Errors
    /// A text that is no filter.
    pub fn new(text: &str) -> Result<(Self, reload::Layer<EnvFilter, Registry>), LogFilterError> {
        let (filter, text) = parse(text)?;
        let (layer, handle) = reload::Layer::new(filter);
        Ok((Self { handle, current: Arc::new(Mutex::new(text)) }, layer))
    }

    /// The filter in force.
    #[must_use]
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it. Says what is in force now.
    ///
    /// # Errors
    /// A text that is no filter; the old one stays.
    pub fn set(&self, text: &str) -> Result<String, LogFilterError> {
        let (filter, text) = parse(text)?;
        self.handle.reload(filter)?;
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&text);
        tracing::info!(filter = text, "log filter changed");
        Ok(text)
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.current()).finish()
    }
}

/// A level, directives, or a number as klog has them: up to 3 is what an operator wants to know, 4 and 5 what somebody who looks
/// for an error wants, and from 6 on there is everything.
fn parse(text: &str) -> Result<(EnvFilter, String), LogFilterError> {
    let text = match text.trim().parse::<u8>() {
        Ok(0..=3) => "info",
        Ok(4..=5) => "debug",
        Ok(6..=10) => "trace",
        _ => text.trim(),
    };
    let unreadable = |reason: String| LogFilterError::Unreadable { text: text.to_owned(), reason };
    if text.is_empty() {
        return Err(unreadable("nothing is there".to_owned()));
    }
    // A lone word that is no level would be taken for the name of a target, and silence all others.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    if !text.contains(['=', ',', ':']) && !levels.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(unreadable("not a level".to_owned()));
    }
    let filter = EnvFilter::try_new(text).map_err(|error| unreadable(error.to_string()))?;
    Ok((filter, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn levels_directives_and_numbers_of_klog() {
        let (filter, layer) = LogFilter::new("info").unwrap();
        let _subscriber = tracing_subscriber::registry().with(layer);
        assert_eq!(filter.set("info,sheave::source=debug\n").unwrap(), "info,sheave::source=debug");
        assert_eq!(filter.set("4").unwrap(), "debug");
        assert_eq!(filter.set("9").unwrap(), "trace");
        assert_eq!(filter.set("2").unwrap(), "info");
        for nonsense in ["", "loud", "sheave=loud", "11"] {
            let error = filter.set(nonsense).unwrap_err().to_string();
            assert!(error.contains("expected a level"), "{error}");
        }
        assert_eq!(filter.current(), "info");
    }
}
