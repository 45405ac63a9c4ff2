#![allow(missing_docs)]
#[derive(Clone, Debug, Default)]
pub struct KubeOptions { pub kubeconfig: Option<std::path::PathBuf>, pub api_servers: Vec<String> }
#[derive(Clone)]
pub struct EventSink;
impl EventSink { pub fn warn(&self, _: &crate::model::ServiceKey, _: &str, _: String) {} }
