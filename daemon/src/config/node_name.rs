//! Names of Nodes.

/// A name as kube-proxy takes it, without white space around it and in lower case; `None` if no Node can have it: only an RFC 1123
/// subdomain can be the name of one (`ValidateNodeName` of `pkg/apis/core/validation`).
pub(crate) fn node_name(text: &str) -> Option<String> {
    let name = text.trim().to_lowercase();
    let is_alphanumeric = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let is_label = |label: &str| {
        label.bytes().all(|byte| is_alphanumeric(byte) || byte == b'-')
            && label.bytes().next().is_some_and(is_alphanumeric)
            && label.bytes().last().is_some_and(is_alphanumeric)
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then_some(name)
}

/// What [`node_name`] asks for, as a person is told it.
pub(crate) const EXPECTED: &str =
    "the name of this node's Node object: lower case letters, digits, '-' and '.', beginning and ending with a letter or digit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_name_of_a_subdomain() {
        for (given, name) in [(" Node-A\n", "node-a"), ("ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.ec2.internal"), ("7", "7")] {
            assert_eq!(node_name(given).as_deref(), Some(name));
        }
        let long = "a".repeat(254);
        for given in ["", " ", "A B!", "a_b", "-a", "a-", "a..b", ".a", "a.", "a/b", "nöde", &long] {
            assert_eq!(node_name(given), None, "{given:?}");
        }
    }
}
