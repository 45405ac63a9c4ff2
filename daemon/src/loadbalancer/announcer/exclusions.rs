//! Interfaces that never announce, by name: MetalLB's list and its file format (ConfigMap `metallb-excludel2`, `excludel2.yaml`).

use std::io::{self, Read as _};
use std::path::Path;

use regex::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::regular_file;

/// MetalLB's own list: what container runtimes, virtual machines and network plugins make.
pub const DEFAULT: [&str; 14] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo$",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^nodelocaldns.*",
    "^lxc.*",
];

/// Patterns in one file. Nobody has as many; matching is linear in them.
const MOST: usize = 256;
/// Memory of all patterns together, compiled: one like `x{1000}{1000}` is refused in place of made.
const LARGEST: usize = 1 << 20;
/// Brackets within brackets.
const DEEPEST: u32 = 64;

/// Names that are excluded. A pattern may match anywhere in a name, as in Go: `eth` excludes `veth0`.
#[derive(Clone, Debug)]
pub struct Exclusions(RegexSet);

/// A list of patterns that cannot be used. The one used before stays.
#[derive(Debug, thiserror::Error)]
pub enum ExclusionError {
    /// It cannot be read.
    #[error("cannot be read")]
    File(#[source] io::Error),
    /// No YAML, or another shape.
    #[error("announcedInterfacesToExclude: {0}")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// More than 256.
    #[error("announcedInterfacesToExclude: {0} patterns, at most {MOST} are taken")]
    TooMany(usize),
    /// A pattern is wrong, or too large.
    #[error("announcedInterfacesToExclude: {0}")]
    Pattern(#[source] Box<regex::Error>),
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "announcedInterfacesToExclude", default)]
    patterns: Vec<String>,
}

impl Exclusions {
    /// Compiles patterns (RE2's syntax, as far as `regex` shares it).
    ///
    /// # Errors
    /// Too many, too large, or one that is wrong.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, ExclusionError> {
        if patterns.len() > MOST {
            return Err(ExclusionError::TooMany(patterns.len()));
        }
        let set = RegexSetBuilder::new(patterns).size_limit(LARGEST).dfa_size_limit(LARGEST).nest_limit(DEEPEST).build();
        set.map(Self).map_err(|error| ExclusionError::Pattern(Box::new(error)))
    }

    /// Reads a file of `excludel2.yaml`'s format.
    ///
    /// # Errors
    /// See [`ExclusionError`].
    pub fn read(path: &Path) -> Result<Self, ExclusionError> {
        let mut yaml = String::new();
        // As many patterns as are taken, each as long as a name of an interface can sensibly be asked for.
        let file = regular_file::open(path).map_err(ExclusionError::File)?;
        file.take(LARGEST as u64).read_to_string(&mut yaml).map_err(ExclusionError::File)?;
        Self::parse(&yaml)
    }

    /// Reads `excludel2.yaml`. A file without the key excludes nothing, and so does an empty one.
    ///
    /// # Errors
    /// See [`ExclusionError`].
    pub fn parse(yaml: &str) -> Result<Self, ExclusionError> {
        let file: Option<File> = serde_saphyr::from_str(yaml).map_err(|error| ExclusionError::Yaml(Box::new(error)))?;
        Self::new(&file.map(|file| file.patterns).unwrap_or_default())
    }

    /// The pattern that excludes an interface of this name.
    #[must_use]
    pub fn pattern(&self, name: &str) -> Option<&str> {
        let first = self.0.matches(name).into_iter().next()?;
        self.0.patterns().get(first).map(String::as_str)
    }
}

impl Default for Exclusions {
    /// [`DEFAULT`].
    fn default() -> Self {
        Self::new(&DEFAULT).unwrap_or_else(|_| Self(RegexSet::empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_keeps_network_cards() {
        let exclusions = Exclusions::default();
        for name in ["eth0", "ens3", "enp1s0f0", "bond0", "br0", "bond0.100", "wlan0", "lo0", "team0"] {
            assert_eq!(exclusions.pattern(name), None, "{name}");
        }
        for name in ["lo", "docker0", "cni0", "cali12ab", "veth99", "kube-ipvs0", "flannel.1", "tunl0", "lxcbr0", "dummy1"] {
            assert!(exclusions.pattern(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_file_is_read_as_metallb_reads_it() {
        let exclusions = Exclusions::parse("announcedInterfacesToExclude: [\"^eth\", 'wg.$']\n").unwrap();
        assert_eq!(exclusions.pattern("eth0"), Some("^eth"));
        assert_eq!(exclusions.pattern("my-wg0"), Some("wg.$"));
        assert_eq!(exclusions.pattern("veth0"), None, "what the file says is all");
        for empty in ["", "{}", "announcedInterfacesToExclude: []"] {
            assert_eq!(Exclusions::parse(empty).unwrap().pattern("lo"), None, "{empty:?}");
        }
    }

    #[test]
    fn a_file_is_read_and_one_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("excludel2.yaml");
        assert!(matches!(Exclusions::read(&path), Err(ExclusionError::File(_))));
        std::fs::write(&path, "announcedInterfacesToExclude: [^wg]\n").unwrap();
        assert_eq!(Exclusions::read(&path).unwrap().pattern("wg0"), Some("^wg"));
        assert!(matches!(Exclusions::read(directory.path()), Err(ExclusionError::File(_))));
    }

    #[test]
    fn what_is_wrong_or_without_bounds_is_refused() {
        for (yaml, words) in [
            ("announcedInterfacesToExclude: eth0", "announcedInterfacesToExclude"),
            ("announcedInterfacesToExclude: ['(']", "unclosed group"),
            ("announcedInterfacesToExclude: ['(x{1000}){1000}']", "size limit"),
            (": [", "announcedInterfacesToExclude"),
        ] {
            let error = Exclusions::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(words), "{yaml}: {error}");
        }
        let many = vec!["x"; MOST + 1];
        assert!(Exclusions::new(&many).unwrap_err().to_string().contains("257 patterns"));
    }
}
