//! The manifests: kustomize's and Helm's ways to the same objects, what those objects allow, and what is written about them.
//!
//! Neither kustomize nor helm is needed: what they print is committed (`manifests/kustomize/rendered`, `manifests/helm/rendered`), and
//! read here a second time from the sources. `SHEAVE_UPDATE=1` writes the chart's rendering anew; for kustomize that is
//! `kubectl kustomize manifests/kustomize/overlays/NAME > manifests/kustomize/rendered/NAME.yaml`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod alerts;
mod chart;
mod crds;
mod kustomization;
mod same;
mod security;
mod systemd;
mod template;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

/// The repository's root.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file or directory below `manifests/`.
fn manifests(path: &str) -> PathBuf {
    repository().join("manifests").join(path)
}

/// The objects of a file.
fn objects(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let documents = documents(&text).with_context(|| path.display().to_string())?;
    Ok(documents.into_iter().map(|(_, object)| object).collect())
}

/// The documents of a text that hold an object, each with its own text.
fn documents(text: &str) -> anyhow::Result<Vec<(String, Value)>> {
    let mut documents = Vec::new();
    for text in format!("\n{text}").split("\n---\n").map(|text| text.trim_matches('\n')) {
        let has_content = text.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        if has_content {
            documents.push((text.to_owned(), serde_saphyr::from_str(text)?));
        }
    }
    Ok(documents)
}
