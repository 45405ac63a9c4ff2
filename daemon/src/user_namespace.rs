//! Whose user namespace a process is in.

/// /proc/self/uid_map of the machine's first user namespace, which alone maps every user (user_namespaces(7)), without its spaces.
const WHOLE_RANGE: [&str; 3] = ["0", "0", "4294967295"];

/// Whether this is the text of the /proc/self/uid_map of a user namespace other than the machine's first. One without any user, as
/// before anybody has written it, is such a one.
pub(crate) fn is_nested(uid_map: &str) -> bool {
    !uid_map.split_whitespace().eq(WHOLE_RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_maps_everybody() {
        assert!(!is_nested("         0          0 4294967295\n"));
        assert!(is_nested("         0       1000          1\n") && is_nested(""));
    }
}
