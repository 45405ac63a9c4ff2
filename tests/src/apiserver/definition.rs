//! Custom resources from their CustomResourceDefinitions.

use serde_json::Value;

use super::manifests;
use super::resource::Resource;
use super::schema::Schema;

/// Those that sheave ships: what a test is served is what a cluster would register.
const METALLB: [&str; 4] = [
    include_str!("../../../manifests/crds/ipaddresspools.yaml"),
    include_str!("../../../manifests/crds/l2advertisements.yaml"),
    include_str!("../../../manifests/crds/servicel2statuses.yaml"),
    include_str!("../../../manifests/crds/configurationstates.yaml"),
];

/// A CustomResourceDefinition that does not say what it must.
#[derive(Debug, thiserror::Error)]
#[error("the CustomResourceDefinition has no {field}")]
pub struct DefinitionError {
    /// What is missing.
    pub field: &'static str,
}

impl Resource {
    /// The resource that a CustomResourceDefinition registers, in its first version.
    ///
    /// # Errors
    /// A name, the scope or the version's schema is missing.
    pub fn of_definition(definition: &Value) -> Result<Self, DefinitionError> {
        let text =
            |pointer: &'static str| definition.pointer(pointer).and_then(Value::as_str).ok_or(DefinitionError { field: pointer });
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            return Err(DefinitionError { field: "schema" });
        }
        let namespaced = text("/spec/scope")? == "Namespaced";
        let status = version["subresources"]["status"].is_object();
        let (group, plural, kind) = (text("/spec/group")?, text("/spec/names/plural")?, text("/spec/names/kind")?);
        let row = Self::custom(group, text("/spec/versions/0/name")?, plural, kind, namespaced, status);
        Ok(Self { schema: Some(Schema::new(schema.clone())), ..row })
    }

    /// MetalLB's objects, as far as sheave has to do with them.
    #[must_use]
    pub fn metallb() -> Vec<Self> {
        let definitions = METALLB.iter().flat_map(|text| manifests::documents(text).expect("it is YAML, a test has read it"));
        definitions.map(|definition| Self::of_definition(&definition).expect("it is a definition, a test has read it")).collect()
    }
}
