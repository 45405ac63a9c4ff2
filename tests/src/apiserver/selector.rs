//! Label and field selectors, as the query of a list or a watch writes them.

use super::resource::Resource;
use super::status::Status;
use super::store::Stored;

/// What a list or a watch selects. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

/// One comma-separated part of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    /// Also true where the label is absent, as Kubernetes defines it.
    NotIn(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Both selectors of a query; an absent one is an empty string.
    ///
    /// # Errors
    /// 400 for a selector that cannot be parsed, and for a field that this resource does not select by.
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = split_requirements(labels).into_iter().map(parse_requirement).collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| parse_field(resource, part))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(super) fn matches(&self, object: &Stored) -> bool {
        let labels = self.labels.iter().all(|requirement| requirement.holds(object.label(&requirement.key)));
        // A selectable field that an object does not have is the empty string: `spec.clusterIP!=None` lets ExternalName through.
        labels && self.fields.iter().all(|f| (object.field(&f.field).unwrap_or("") == f.value) == f.equal)
    }
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        match (&self.test, label) {
            (Test::Exists, label) => label.is_some(),
            (Test::Absent, label) => label.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
            (Test::In(values), Some(label)) => values.iter().any(|value| value == label),
            (Test::NotIn(values), Some(label)) => !values.iter().any(|value| value == label),
        }
    }
}

/// Splits at the commas outside of parentheses.
fn split_requirements(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

fn parse_requirement(part: &str) -> Result<Requirement, Status> {
    let unparsable = || Status::bad_request(format!("unable to parse requirement: {part:?}"));
    let (key, test) = if let Some(key) = part.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Test::In(vec![value.trim().to_owned()]))
    } else if let Some(head) = part.strip_suffix(')') {
        let (head, set) = head.split_once('(').ok_or_else(unparsable)?;
        let values = set.split(',').map(|value| value.trim().to_owned()).collect();
        match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => (key, Test::In(values)),
            Some((key, "notin")) => (key, Test::NotIn(values)),
            _ => return Err(unparsable()),
        }
    } else {
        (part, Test::Exists)
    };
    let key = key.trim();
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || !key.chars().all(valid) {
        return Err(unparsable());
    }
    Ok(Requirement { key: key.to_owned(), test })
}

fn parse_field(resource: &Resource, part: &str) -> Result<FieldRequirement, Status> {
    let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
        (field, value, false)
    } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (field, value, true)
    } else {
        return Err(Status::bad_request(format!("invalid selector: {part:?}; can't understand {part:?}")));
    };
    let common = matches!(field, "metadata.name" | "metadata.namespace");
    if !common && !resource.fields.iter().any(|(known, _)| *known == field) {
        return Err(Status::bad_request(format!(
            "Unable to find {:?} that match label selector \"\", field selector {part:?}: field label not supported: {field}",
            format!("{}, Resource={}", resource.api_version(), resource.plural),
        )));
    }
    Ok(FieldRequirement { field: field.to_owned(), value: value.to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn services() -> Resource {
        Resource::all_builtin().into_iter().find(|r| r.plural == "services").unwrap()
    }

    fn object(labels: &serde_json::Value, cluster_ip: &str) -> Stored {
        let value =
            json!({"metadata": {"name": "web", "namespace": "shop", "labels": labels}, "spec": {"clusterIP": cluster_ip}});
        Stored::new(&services(), 1, &value)
    }

    fn selects(labels: &str, fields: &str, object: &Stored) -> bool {
        Selector::parse(&services(), labels, fields).unwrap().matches(object)
    }

    #[test]
    fn every_form_of_label_selector_means_what_kubernetes_says() {
        let web = object(&json!({"app": "web", "tier": "front"}), "10.96.0.9");
        for (selector, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web", true),
            ("app==web", true),
            ("app=api", false),
            ("app!=api", true),
            ("other!=x", true),
            ("app in (api, web)", true),
            ("app in (api)", false),
            ("app notin (api,db)", true),
            ("other notin (api)", true),
            ("other in (api)", false),
            ("app in (api,web),tier=front,!other", true),
            ("app in (api,web),tier=back", false),
            ("service.kubernetes.io/service-proxy-name", false),
        ] {
            assert_eq!(selects(selector, "", &web), expected, "{selector}");
        }
    }

    #[test]
    fn fields_compare_as_text_and_an_absent_one_is_empty() {
        let web = object(&json!({}), "10.96.0.9");
        let headless = object(&json!({}), "None");
        assert!(selects("", "spec.clusterIP!=None", &web));
        assert!(!selects("", "spec.clusterIP!=None", &headless));
        assert!(selects("", "metadata.name=web,metadata.namespace==shop", &web));
        assert!(!selects("", "metadata.name=other", &web));
        assert!(selects("", "spec.type=", &web));
    }

    #[test]
    fn nonsense_is_refused_with_a_bad_request() {
        for (labels, fields) in [("a in b", ""), ("=x", ""), ("a b", ""), ("", "spec.clusterIP"), ("", "spec.secret=x")] {
            assert_eq!(Selector::parse(&services(), labels, fields).unwrap_err().code, 400, "{labels:?} {fields:?}");
        }
    }
}
