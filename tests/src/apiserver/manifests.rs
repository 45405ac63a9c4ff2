//! Reading manifests: files of YAML documents, as `kubectl apply -f` takes them.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::status::Status;

/// Why a manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is not YAML.
    #[error("{} is not YAML: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The server refused an object.
    #[error("{} was refused", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The server's words.
        #[source]
        source: Box<Status>,
    },
}

/// All objects of a file, or of the `.yaml`, `.yml` and `.json` files of a directory in the order of their names. Lists are
/// taken apart, empty documents left out.
///
/// # Errors
/// Names the file that could not be read or parsed.
pub fn read(path: &Path) -> Result<Vec<(PathBuf, Value)>, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(failed)?;
        files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
        files.retain(|file| file.extension().is_some_and(|ext| matches!(ext.to_str(), Some("yaml" | "yml" | "json"))));
        files.sort();
    }
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|source| ManifestError::Read { path: file.clone(), source })?;
        let documents = documents(&text).map_err(|reason| ManifestError::Parse { path: file.clone(), reason })?;
        objects.extend(documents.into_iter().map(|object| (file.clone(), object)));
    }
    Ok(objects)
}

/// The objects of a text of YAML documents.
///
/// # Errors
/// Where the text is not YAML, and why.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut objects = Vec::new();
    for mut document in documents {
        match document["items"].take() {
            Value::Array(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => objects.extend(items),
            Value::Null if document.is_null() => {}
            items => {
                if !items.is_null() {
                    document["items"] = items;
                }
                if let Some(members) = document.as_object_mut() {
                    members.retain(|_, value| !value.is_null());
                }
                objects.push(document);
            }
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_comments() {
        let text = "# first\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- {kind: Node, metadata: {name: b}}\n- {kind: Node, metadata: {name: c}}\n";
        let names: Vec<String> =
            documents(text).unwrap().iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(documents("a: [").is_err());
    }
}
