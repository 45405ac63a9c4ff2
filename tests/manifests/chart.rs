//! The Helm chart, rendered.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::documents;
use crate::template::{Input, Template};

/// The chart's directory with its values.
pub(crate) struct Chart {
    dir: PathBuf,
    pub(crate) values: Value,
}

/// One object of a release.
pub(crate) struct Rendered {
    /// The template it comes from.
    source: String,
    text: String,
    pub(crate) object: Value,
}

impl Chart {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(dir.join("values.yaml"))?;
        Ok(Self { dir: dir.to_owned(), values: serde_saphyr::from_str(&text)? })
    }

    /// `Chart.yaml`.
    pub(crate) fn metadata(&self) -> anyhow::Result<Value> {
        Ok(serde_saphyr::from_str(&fs::read_to_string(self.dir.join("Chart.yaml"))?)?)
    }

    /// `helm template sheave DIR --namespace kube-system --values OVERRIDES`: in the order of installation, hooks at the end.
    pub(crate) fn render(&self, overrides: &Value) -> anyhow::Result<Vec<Rendered>> {
        let mut objects = Vec::new();
        for entry in fs::read_dir(self.dir.join("templates"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let source = format!("sheave/templates/{name}");
                let text = self.template(&name, overrides)?;
                for (text, object) in documents(&text).with_context(|| format!("{source}:\n{text}"))? {
                    objects.push(Rendered { source: source.clone(), text, object });
                }
            }
        }
        objects.sort_by_key(|rendered| {
            let kind = rendered.object["kind"].as_str().unwrap_or_default();
            // Helm's InstallOrder, as far as it concerns us; kinds it does not know come last.
            let order = [
                "ServiceAccount",
                "ConfigMap",
                "ClusterRole",
                "ClusterRoleBinding",
                "Role",
                "RoleBinding",
                "DaemonSet",
                "Deployment",
            ];
            let place = order.iter().position(|&known| known == kind).unwrap_or(order.len());
            (rendered.is_hook(), place, rendered.object["metadata"]["name"].to_string())
        });
        Ok(objects)
    }

    /// The text of one template.
    pub(crate) fn template(&self, name: &str, overrides: &Value) -> anyhow::Result<String> {
        let mut values = self.values.clone();
        overlay(&mut values, overrides);
        let chart = self.metadata()?;
        let root = json!({
            "Values": values,
            "Chart": { "Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"] },
            "Release": { "Name": "sheave", "Namespace": "kube-system", "Service": "Helm" },
        });
        let file = |name: &str| fs::read_to_string(self.dir.join(name)).with_context(|| name.to_owned());
        let text = fs::read_to_string(self.dir.join("templates").join(name))?;
        let rendered = Template::parse(&text).and_then(|template| template.render(&Input { root: &root, file: &file }));
        rendered.with_context(|| format!("templates/{name}"))
    }
}

impl Rendered {
    pub(crate) fn is_hook(&self) -> bool {
        self.object["metadata"]["annotations"].get("helm.sh/hook").is_some()
    }

    /// As `helm template` prints it.
    pub(crate) fn print(&self) -> String {
        format!("---\n# Source: {}\n{}\n", self.source, self.text)
    }
}

/// Values over values, as `--values` does it: maps are merged, everything else is replaced.
fn overlay(values: &mut Value, overrides: &Value) {
    match (values, overrides) {
        (Value::Object(values), Value::Object(overrides)) => {
            for (name, value) in overrides {
                overlay(values.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (values, overrides) => *values = overrides.clone(),
    }
}
