//! Labels of an object, and selectors over them (apimachinery `pkg/labels`, `metav1.LabelSelector`).

use compact_str::CompactString;

/// The labels of one object, sorted by key, no key twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(CompactString, CompactString)]>);

/// A `metav1.LabelSelector`: all of its requirements must hold. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// `matchLabels` and `matchExpressions` alike, sorted, none twice: equal selectors are equal whatever their spelling.
    requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// Key of the label.
    pub key: CompactString,
    /// What must hold of its value.
    pub operator: Operator,
}

/// `operator` and `values` of a requirement; values are sorted, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The label is there with one of these values. `matchLabels` is this with one value.
    In(Vec<CompactString>),
    /// The label is absent, or has none of these values.
    NotIn(Vec<CompactString>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(own, _)| own.as_str().cmp(key)).ok().map(|place| self.0[place].1.as_str())
    }

    /// Whether it is there, whatever its value.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl<K: Into<CompactString>, V: Into<CompactString>> FromIterator<(K, V)> for Labels {
    /// Of a key that comes twice, the last one counts, as in JSON.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let labels: std::collections::BTreeMap<CompactString, CompactString> =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(labels.into_iter().collect())
    }
}

impl Selector {
    /// Of these requirements.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        for requirement in &mut requirements {
            if let Operator::In(values) | Operator::NotIn(values) = &mut requirement.operator {
                values.sort_unstable();
                values.dedup();
            }
        }
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// Whether all requirements hold.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: Operator) -> Requirement {
        Requirement { key: key.into(), operator }
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        let labels: Labels = [("app", "web"), ("tier", "")].into_iter().collect();
        let of = |values: &[&str]| values.iter().map(|&value| value.into()).collect::<Vec<CompactString>>();
        for (selector, expected) in [
            (requirement("app", Operator::In(of(&["api", "web"]))), true),
            (requirement("app", Operator::In(of(&["api"]))), false),
            (requirement("none", Operator::In(of(&[""]))), false),
            (requirement("app", Operator::NotIn(of(&["api"]))), true),
            (requirement("app", Operator::NotIn(of(&["web"]))), false),
            (requirement("none", Operator::NotIn(of(&["web"]))), true),
            (requirement("tier", Operator::Exists), true),
            (requirement("none", Operator::Exists), false),
            (requirement("none", Operator::DoesNotExist), true),
            (requirement("tier", Operator::DoesNotExist), false),
        ] {
            assert_eq!(Selector::new(vec![selector.clone()]).matches(&labels), expected, "{selector:?}");
        }
        assert!(Selector::default().matches(&Labels::default()), "no requirement: everything");
    }

    #[test]
    fn equal_selectors_are_equal_however_they_are_written() {
        let values = |values: [&str; 2]| Operator::In(values.map(Into::into).to_vec());
        let one = Selector::new(vec![requirement("b", Operator::Exists), requirement("a", values(["x", "y"]))]);
        let other = Selector::new(vec![requirement("a", values(["y", "x"])), requirement("b", Operator::Exists)]);
        assert_eq!(one, other);
    }

    #[test]
    fn the_last_of_two_labels_counts() {
        let labels: Labels = [("a", "1"), ("a", "2")].into_iter().collect();
        assert_eq!((labels.get("a"), labels.iter().len()), (Some("2"), 1));
    }
}
