//! What kustomize makes of a directory, as far as ours go: bases, resources, strategic merge patches.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::objects;

/// The fields of a kustomization.yaml that every kustomize from v2.0.3 to v5 takes; another one is an error.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    bases: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    patches_strategic_merge: Vec<String>,
}

/// The objects that `kubectl kustomize DIR` prints.
pub(crate) fn build(dir: &Path) -> anyhow::Result<Vec<Value>> {
    let path = dir.join("kustomization.yaml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let read: Kustomization = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    ensure!((&*read.api_version, &*read.kind) == ("kustomize.config.k8s.io/v1beta1", "Kustomization"), "{}", path.display());
    let mut built = Vec::new();
    for base in &read.bases {
        built.extend(build(&dir.join(base))?);
    }
    for file in &read.resources {
        let path = dir.join(file);
        ensure!(path.is_file(), "{}: v2.0.3 wants files under `resources`, and directories under `bases`", path.display());
        built.extend(objects(&path)?);
    }
    for file in &read.patches_strategic_merge {
        for patch in objects(&dir.join(file))? {
            let target = built.iter_mut().find(|object| identity(object) == identity(&patch));
            let target = target.with_context(|| format!("{file} patches what is not there"))?;
            ensure!(patch.get("$patch").is_none(), "{file}: v2.0.3 cannot delete an object by a patch");
            merge(target, &patch);
        }
    }
    Ok(built)
}

/// Kind, namespace and name.
pub(crate) fn identity(object: &Value) -> [&str; 3] {
    [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]].map(|text| text.as_str().unwrap_or_default())
}

/// A strategic merge: maps are merged, lists of things with names are merged by name, other lists are replaced.
fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (name, patch) in patch {
                match base.get_mut(name) {
                    Some(Value::Array(list)) => merge_list(list, patch, merge_key(name)),
                    Some(value) => merge(value, patch),
                    None => drop(base.insert(name.clone(), patch.clone())),
                }
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

fn merge_list(list: &mut Vec<Value>, patch: &Value, key: Option<&str>) {
    let (Some(key), Value::Array(patches)) = (key, patch) else {
        *list = patch.as_array().cloned().unwrap_or_default();
        return;
    };
    // What is new comes first, in the patch's order, as kustomize does it.
    let mut new = Vec::new();
    for patch in patches {
        let place = list.iter().position(|item| item[key] == patch[key]);
        match (place, patch["$patch"].as_str()) {
            (Some(place), Some("delete")) => drop(list.remove(place)),
            (Some(place), _) => merge(&mut list[place], patch),
            (None, _) => new.push(patch.clone()),
        }
    }
    list.splice(0..0, new);
}

/// `patchMergeKey` of the types in k8s.io/api/core/v1.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "volumes" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("containerPort"),
        _ => None,
    }
}
