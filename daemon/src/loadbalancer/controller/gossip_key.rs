//! The key that announcers share: a Secret that is made where there is none, so that nobody has to think of it.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// Name of the Secret, in sheave's own namespace.
pub const GOSSIP_SECRET: &str = "sheave-gossip";
/// The entry of its `data` that is the key: 32 bytes.
pub const GOSSIP_KEY: &str = "key";
/// An entry that may be there beside it: a key that is still accepted, while another one takes its place.
pub const GOSSIP_PREVIOUS: &str = "previous";

/// A Secret with a new key.
pub(super) fn secret(namespace: &str) -> Value {
    // The generator of the thread is a cryptographic one, seeded by the kernel.
    let key: [u8; 32] = rand::random();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": { "name": GOSSIP_SECRET, "namespace": namespace, "labels": { "app.kubernetes.io/name": "sheave" } },
        "data": { GOSSIP_KEY: ByteString(key.to_vec()) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_has_a_key_of_its_own() {
        let key = |secret: &Value| serde_json::from_value::<ByteString>(secret["data"][GOSSIP_KEY].clone()).expect("base64").0;
        let (one, other) = (secret("kube-system"), secret("kube-system"));
        assert_eq!(key(&one).len(), 32);
        assert_ne!(key(&one), key(&other));
    }
}
