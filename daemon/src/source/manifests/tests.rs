//! A directory under somebody's hands, seen from the end of the channel. No test sleeps: each waits for the mark of what it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

use super::*;
use crate::captured_log::Log;
use crate::model::ObjectKey;
use crate::source::{Kind, Mark, Object};

struct Listener {
    changes: Receiver<Change>,
    /// What a loop that obeys the changes would hold.
    held: BTreeMap<String, Object>,
    /// Changes since the last mark, without the objects.
    told: Vec<String>,
    _stop: tokio_util::sync::DropGuard,
}

impl Listener {
    fn start(path: &Path) -> Self {
        let options = ManifestOptions { node_name: "node-a".into(), headless: false };
        let (sender, changes) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        spawn(path.to_owned(), options, sender, cancel.clone());
        Self { changes, held: BTreeMap::new(), told: Vec::new(), _stop: cancel.drop_guard() }
    }

    /// Obeys changes up to the mark with the digest of what is there now.
    async fn until_current(&mut self, path: &Path) {
        let wanted = digest(path).expect("readable");
        self.told.clear();
        loop {
            let next = timeout(Duration::from_secs(10), self.changes.recv()).await;
            let Change::Together(load) = next.expect("the mark arrives").expect("the source runs") else {
                panic!("part of a load on its own");
            };
            let Some(Change::Mark(Mark { stream: STREAM, point })) = load.last() else { panic!("a load without its mark") };
            let current = *point == wanted;
            load.into_iter().for_each(|change| self.obey(change));
            if current {
                return;
            }
        }
    }

    fn obey(&mut self, change: Change) {
        match change {
            Change::Together(_) => panic!("one in another"),
            Change::Mark(_) => {}
            Change::Listing(kind) => self.told.push(format!("listing {kind:?}")),
            Change::Listed(kind) => self.told.push(format!("listed {kind:?}")),
            Change::Applied(object) => {
                let name = name_of(&object);
                self.told.push(format!("+{name}"));
                self.held.insert(name, object);
            }
            Change::Deleted(kind, key) => {
                let name = format!("{kind:?} {key}");
                self.told.push(format!("-{name}"));
                assert!(self.held.remove(&name).is_some(), "{name} was never told");
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.held.keys().map(String::as_str).collect()
    }

    fn service(&self, name: &str) -> &crate::model::Service {
        let Some(Object::Service(service)) = self.held.get(&format!("Service default/{name}")) else {
            panic!("no Service {name}")
        };
        service
    }

    fn cluster_ip(&self, name: &str) -> String {
        self.service(name).cluster_ips[0].to_string()
    }

    fn age(&self, name: &str) -> i64 {
        self.service(name).created.expect("every Service has an age")
    }
}

fn name_of(object: &Object) -> String {
    match object {
        Object::Service(service) => format!("Service {}", service.key),
        Object::ForeignService(service) => format!("ForeignService {}", service.key),
        Object::EndpointSlice(slice) => format!("EndpointSlice {}", slice.key),
        Object::Node(node) => format!("Node {}", node.name),
        Object::ServiceCidr(cidr) => format!("ServiceCidr {}", cidr.name),
        Object::Peer(peer) => format!("Peer {}", peer.name),
        Object::Namespace(namespace) => format!("Namespace {}", namespace.name),
        Object::AddressPool(pool) => format!("AddressPool {}", pool.key),
        Object::Advertisement(advertisement) => format!("Advertisement {}", advertisement.key),
    }
}

fn service(name: &str, ip: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {ip}\n  ports: [{{port: 80}}]\n")
}

#[tokio::test]
async fn one_file_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.yaml");
    fs::write(
        &path,
        "# first an empty document\n---\n---\n".to_owned()
            + &service("web", "10.96.0.1")
            + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {type: [1], ports: {a: b}, template: {spec: {containers: []}}}\n"
            + "---\n"
            + "apiVersion: v1\nkind: Service\nmetadata: {name: theirs, namespace: other, labels: {service.kubernetes.io/service-proxy-name: x}}\nspec: {clusterIP: 10.96.0.2}\n"
            + "---\napiVersion: v1\nkind: Service\nmetadata: {name: headless}\nspec: {clusterIP: None}\n"
            + "---\napiVersion: v1\nkind: Service\nmetadata: {name: unallocated}\nspec: {type: NodePort, ports: [{port: 80}]}\n"
            + "---\napiVersion: v1\nkind: List\nitems:\n"
            + "- apiVersion: discovery.k8s.io/v1\n  kind: EndpointSlice\n  metadata: {name: web-a, labels: {kubernetes.io/service-name: web}}\n  addressType: IPv4\n  ports: [{port: 8080}]\n  endpoints: [{addresses: [10.0.0.1]}]\n"
            + "- apiVersion: discovery.k8s.io/v1\n  kind: EndpointSlice\n  metadata: {name: h-a, labels: {kubernetes.io/service-name: h, service.kubernetes.io/headless: \"\"}}\n  addressType: IPv4\n"
            + "- 5\n"
            + "---\njust text, which spoils only itself\n"
            + "---\napiVersion: networking.k8s.io/v1\nkind: ServiceCIDRList\nitems:\n- metadata: {name: main}\n  spec: {cidrs: [10.96.0.0/16]}\n"
            + "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-b}\n"
            + "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: knative}\n",
    )
    .unwrap();
    let mut listener = Listener::start(&path);
    listener.until_current(&path).await;
    assert_eq!(
        listener.names(),
        [
            "EndpointSlice default/web-a",
            "ForeignService other/theirs",
            "Node node-a",
            "Peer node-a",
            "Peer node-b",
            "Service default/unallocated",
            "Service default/web",
            "ServiceCidr main"
        ]
    );
    let kinds = ["Service", "ForeignService", "EndpointSlice", "ServiceCidr", "Node", "Peer", "AddressPool", "Advertisement"];
    for kind in kinds {
        let listing = listener.told.iter().position(|told| *told == format!("listing {kind}"));
        let listed = listener.told.iter().position(|told| *told == format!("listed {kind}"));
        assert!(listing < listed, "{kind} is a complete list in {:?}", listener.told);
    }
    let Some(Object::Service(unallocated)) = listener.held.get("Service default/unallocated") else { panic!() };
    assert_eq!(
        unallocated.problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(),
        ["spec.clusterIP", "spec.ports[0].nodePort"]
    );
    assert_eq!(unallocated.problems[0].reason, "no clusterIP: nothing allocates one without an API server");
    let Some(Object::EndpointSlice(slice)) = listener.held.get("EndpointSlice default/web-a") else { panic!() };
    assert_eq!(slice.ports.len(), 1, "a slice port without a name is the unnamed port");
}

/// Those of MetalLB's documentation, and a Namespace that comes with both.
#[test]
fn pools_and_advertisements_come_from_manifests_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: metallb-system, labels: {team: net}}\n";
    let pool = "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: first, namespace: metallb-system}\nspec:\n  \
                addresses: [192.168.10.0/24, 192.168.9.1-192.168.9.5, fc00:f853:0ccd:e799::/124]\n";
    fs::write(path.join("a.yaml"), namespace.to_owned() + pool).unwrap();
    let advertisement =
        "---\napiVersion: metallb.io/v1beta2\nkind: l2Advertisement\nmetadata: {name: all, namespace: metallb-system}\n";
    let misspelt = "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: second}\n\
                    spec: {addresses: [10.0.0.0/32], avoidBuggyIps: true, serviceAllocation: {serviceSelectors: [{matchlabels: {}}]}}\n";
    fs::write(path.join("b.yaml"), namespace.to_owned() + advertisement + misspelt).unwrap();
    let (log, _guard) = Log::capture();
    let said = |text: &str| log.lines().iter().any(|line| line.contains(text));
    let contents = || files::read(path, &files::list(path).unwrap()).unwrap();
    let mut store = Store::new(ManifestOptions::default());
    let held: Vec<_> = store.load(&contents()).into_iter().filter_map(applied).collect();
    let [_, Object::AddressPool(second), Object::AddressPool(first), Object::Advertisement(all)] = &held[..] else {
        panic!("{held:?}")
    };
    assert_eq!((first.ranges.len(), &first.problems[..], second.key.as_str()), (3, &[][..], "default/second"));
    assert_eq!(all.problems, [], "a slip costs it nothing");
    for text in [
        r#"document 2 (L2Advertisement): kind: "l2Advertisement" is not L2Advertisement, which an API server demands"#,
        r#"document 2 (L2Advertisement): apiVersion: "metallb.io/v1beta2" is not metallb.io/v1beta1"#,
        "spec.avoidBuggyIps of document 3 (IPAddressPool second) is not read: did you mean avoidBuggyIPs?",
        "spec.serviceAllocation.serviceSelectors[0].matchlabels of document 3 (IPAddressPool second) is not read",
    ] {
        assert!(said(text), "{text}: {:?}", log.lines());
    }
    assert!(!said("is defined in"), "{:?}", log.lines());

    // The first of the two Namespaces differs now, and the pool beside it goes.
    fs::write(path.join("a.yaml"), namespace.replace("net", "other")).unwrap();
    let changes = store.load(&contents());
    assert!(said("Namespace metallb-system is defined in"), "{:?}", log.lines());
    assert_eq!(changes[0], Change::Deleted(Kind::AddressPool, ObjectKey::new("metallb-system", "first")));
    assert!(matches!(changes[1], Change::Applied(Object::Namespace(_))) && changes.len() == 3, "{changes:?}");
}

fn applied(change: Change) -> Option<Object> {
    if let Change::Applied(object) = change { Some(object) } else { None }
}

#[tokio::test]
async fn a_directory_is_followed_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    assert_eq!(listener.names(), [""; 0], "an empty directory is empty");

    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.told, ["+Service default/a"]);

    // A second file, in JSON; the first is not told again.
    fs::write(
        path.join("b.json"),
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"clusterIP":"10.0.0.2"}}"#,
    )
    .unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.told, ["+Service default/b"]);

    // In place, and by rename.
    fs::write(path.join("a.yaml"), service("a", "10.0.0.3")).unwrap();
    listener.until_current(path).await;
    assert_eq!((listener.cluster_ip("a").as_str(), &listener.told[..]), ("10.0.0.3", &["+Service default/a".to_owned()][..]));
    fs::write(path.join(".a.yaml.tmp"), service("a", "10.0.0.4")).unwrap();
    fs::rename(path.join(".a.yaml.tmp"), path.join("a.yaml")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("a"), "10.0.0.4");

    // Other names, other bytes, same objects: a mark and nothing else.
    fs::write(
        path.join("b.json"),
        r#" {"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"clusterIP":"10.0.0.2"}}"#,
    )
    .unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.told, [""; 0]);

    fs::remove_file(path.join("a.yaml")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.told, ["-Service default/a"]);
    assert_eq!(listener.names(), ["Service default/b"]);
}

#[tokio::test]
async fn what_is_not_yaml_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;

    for broken in [&b"a: [1, 2\nb: {"[..], b"\xff\xfe\x00", b"a: b: c", b"\t- x"] {
        fs::write(path.join("a.yaml"), broken).unwrap();
        fs::write(path.join("b.yaml"), service("b", &format!("10.0.1.{}", broken.len()))).unwrap();
        listener.until_current(path).await;
        assert_eq!(listener.cluster_ip("a"), "10.0.0.1", "the last good version stays");
        assert_eq!(listener.names(), ["Service default/a", "Service default/b"], "other files go on");
    }
    fs::write(path.join("a.yaml"), service("c", "10.0.0.9")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.names(), ["Service default/b", "Service default/c"]);
}

#[tokio::test]
async fn of_two_definitions_the_first_file_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("2.yaml"), service("web", "10.0.0.2")).unwrap();
    fs::write(path.join("3.yaml"), service("web", "10.0.0.3")).unwrap();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.2");
    fs::write(path.join("1.yaml"), service("web", "10.0.0.1")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.1");
    fs::remove_file(path.join("1.yaml")).unwrap();
    fs::remove_file(path.join("2.yaml")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.3");
}

#[tokio::test]
async fn a_config_map_volume_swaps_its_data() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let publish = |generation: u32, ip: &str| {
        let data = path.join(format!("..{generation}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("web.yaml"), service("web", ip)).unwrap();
        symlink(format!("..{generation}"), path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    };
    publish(1, "10.0.0.1");
    symlink("..data/web.yaml", path.join("web.yaml")).unwrap();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.1");
    publish(2, "10.0.0.2");
    fs::remove_dir_all(path.join("..1")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.2");
    publish(3, "10.0.0.3");
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.3");

    // A key that leaves the ConfigMap: the kubelet swaps the data first, and for a moment its link leads nowhere.
    fs::create_dir(path.join("..4")).unwrap();
    symlink("..4", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.names(), ["Service default/web"], "what is in force stays");
    fs::remove_file(path.join("web.yaml")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.names(), [""; 0]);
}

#[tokio::test]
async fn a_file_that_is_emptied_keeps_its_last_good_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    fs::write(path.join("b.json"), r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"}}"#).unwrap();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    for empty in ["", " \n\n", "# all of it commented out\n---\n# this, too\n"] {
        fs::write(path.join("a.yaml"), empty).unwrap();
        fs::write(path.join("b.json"), empty.split('#').next().unwrap()).unwrap();
        listener.until_current(path).await;
        assert_eq!(listener.names(), ["Service default/a", "Service default/b"], "{empty:?}");
    }
    // A document that holds nothing is something else than no document.
    fs::write(path.join("a.yaml"), "apiVersion: v1\nkind: List\nitems: []\n").unwrap();
    fs::remove_file(path.join("b.json")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.names(), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_read_keeps_its_last_good_version_until_its_name_is_gone() {
    use std::os::unix::fs::symlink;
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, target) = (dir.path(), elsewhere.path().join("not/there/yet.yaml"));
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    fs::write(path.join("b.yaml"), service("b", "10.0.0.2")).unwrap();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    // A link to nowhere, one that leads to itself, and a file that cannot be read whoever asks.
    for target in [target.to_str().unwrap(), "a.yaml", "/proc/self/mem"] {
        symlink(target, path.join(".new")).unwrap();
        fs::rename(path.join(".new"), path.join("a.yaml")).unwrap();
        fs::write(path.join("b.yaml"), service("b", &format!("10.0.1.{}", target.len()))).unwrap();
        listener.until_current(path).await;
        assert_eq!(listener.told, ["+Service default/b"], "{target}: other files go on");
        assert_eq!(listener.cluster_ip("a"), "10.0.0.1", "{target}");
    }
    // The target of a link may come later, and the directory that it is in.
    symlink(&target, path.join(".new")).unwrap();
    fs::rename(path.join(".new"), path.join("a.yaml")).unwrap();
    listener.until_current(path).await;
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(&target, service("a", "10.0.0.3")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("a"), "10.0.0.3");
    fs::remove_file(&target).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.cluster_ip("a"), "10.0.0.3");
    fs::remove_file(path.join("a.yaml")).unwrap();
    listener.until_current(path).await;
    assert_eq!(listener.names(), ["Service default/b"]);
}

/// The older Service keeps a contested address. Without a creationTimestamp a newcomer is younger, however old its file is.
#[tokio::test]
async fn a_newcomer_is_younger_than_all_who_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let write = |file: &str, text: &str, seconds: u64| {
        let temporary = path.join(".new");
        fs::write(&temporary, text).unwrap();
        let modified = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options().append(true).open(&temporary).unwrap().set_modified(modified).unwrap();
        fs::rename(temporary, path.join(file)).unwrap();
    };
    write("1.yaml", &service("young", "10.0.0.1"), 2_000);
    write("2.yaml", &service("old", "10.0.0.2"), 1_000);
    let dated = "apiVersion: v1\nkind: Service\nmetadata: {name: dated, creationTimestamp: 1970-01-01T01:00:00Z}\nspec: {ports: [{port: 80}]}\n";
    write("3.yaml", dated, 5_000);
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    let ages = |listener: &Listener, names: &[&str]| names.iter().map(|name| listener.age(name)).collect::<Vec<_>>();
    assert_eq!(ages(&listener, &["old", "young", "dated"]), [1_000, 2_000, 3_600], "at the start a file's time counts");

    write("0.yaml", &service("copied", "10.0.0.3"), 10);
    listener.until_current(path).await;
    write("9.yaml", &service("a-later-one", "10.0.0.4"), 10_000);
    listener.until_current(path).await;
    assert_eq!(ages(&listener, &["copied", "a-later-one"]), [3_601, 10_000]);

    // An edit, and a move to another file, leave the age.
    write("2.yaml", &service("old", "10.0.0.9"), 20_000);
    write("4.yaml", &service("young", "10.0.0.1"), 20_000);
    fs::remove_file(path.join("1.yaml")).unwrap();
    listener.until_current(path).await;
    assert_eq!(ages(&listener, &["old", "young"]), [1_000, 2_000]);

    // Who comes back is new.
    fs::remove_file(path.join("2.yaml")).unwrap();
    listener.until_current(path).await;
    write("2.yaml", &service("old", "10.0.0.2"), 1_000);
    listener.until_current(path).await;
    assert_eq!(ages(&listener, &["old"]), [10_001]);
}

#[tokio::test]
async fn a_link_out_of_the_directory_is_followed() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("real.yaml");
    fs::write(&target, service("web", "10.0.0.1")).unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join("web.yaml")).unwrap();
    let mut listener = Listener::start(dir.path());
    listener.until_current(dir.path()).await;
    fs::write(&target, service("web", "10.0.0.2")).unwrap();
    listener.until_current(dir.path()).await;
    assert_eq!(listener.cluster_ip("web"), "10.0.0.2");
}

#[tokio::test]
async fn a_path_may_come_later_and_its_loss_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not/yet");
    let mut listener = Listener::start(&path);
    tokio::task::yield_now().await;
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    listener.until_current(&path).await;
    assert_eq!(listener.names(), ["Service default/a"]);

    // Moved away and back with something else in it: nothing is deleted in between.
    fs::rename(&path, dir.path().join("aside")).unwrap();
    fs::create_dir(dir.path().join("new")).unwrap();
    fs::write(dir.path().join("new/a.yaml"), service("a", "10.0.0.2")).unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    listener.until_current(&path).await;
    assert_eq!(listener.told, ["+Service default/a"]);
    assert_eq!(listener.cluster_ip("a"), "10.0.0.2");
}

#[tokio::test]
async fn a_change_is_told_within_fifty_milliseconds_or_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut listener = Listener::start(path);
    listener.until_current(path).await;
    let mut best = Duration::MAX;
    for n in 1..=10 {
        fs::write(path.join("a.yaml"), service("a", &format!("10.0.0.{n}"))).unwrap();
        let start = std::time::Instant::now();
        listener.until_current(path).await;
        best = best.min(start.elapsed());
    }
    // The best of ten: a machine under load may be late, but not always.
    assert!(best < Duration::from_millis(50), "{best:?}");
}

#[tokio::test]
async fn a_source_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut changes) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let task = spawn(dir.path().to_owned(), ManifestOptions::default(), sender, cancel.clone());
    let Some(Change::Together(load)) = changes.recv().await else { panic!("nothing was told") };
    assert_eq!(load[0], Change::Listing(Kind::Node));
    cancel.cancel();
    timeout(Duration::from_secs(5), task).await.expect("ends").expect("without a panic");
}

#[test]
fn places_of_mistakes_are_named() {
    let yaml = refused(false, "a: 1\nb: [1, 2\nc: 3\n");
    assert!(yaml.starts_with(|first: char| first.is_ascii_digit()) && yaml.contains(": "), "{yaml}");
    let json = refused(true, "{\"a\": 1}\n{\"b\": x}");
    assert!(json.starts_with("2:7: "), "{json}");
    for once in [yaml, json] {
        assert!(!once.contains("at line"), "the place is said twice: {once}");
    }
}

fn refused(json: bool, text: &str) -> String {
    parse::parse(json, text.as_bytes(), &ManifestOptions::default(), &mut crate::model::Interner::default())
        .expect_err("bad")
        .to_string()
}

#[test]
fn a_json_file_that_breaks_off_is_named_where_it_does() {
    for (text, expected) in [
        ("{\"kind\": \"Service\",", "1:20: EOF while parsing a value"),
        ("{\"kind\": \"Service\",\n", "1:20: EOF while parsing a value"),
        ("{\n  \"kind\": \"Ser", "2:15: EOF while parsing a string"),
        ("{\"kind\": [\n\n", "1:11: EOF while parsing a list"),
        ("{\n\"kind\": \"Ser\nvice\"}", "2:13: control character (\\u0000-\\u001F) found while parsing a string"),
    ] {
        assert_eq!(refused(true, text), expected, "{text:?}");
    }
}

#[test]
fn aliases_that_make_much_of_little_are_refused_in_plain_words() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let last = format!("*a{}", n - 1);
        bomb += &format!("a{n}: &a{n} [{}]\n", [last.as_str(); 10].join(", "));
    }
    let many: String = (0..100_000).map(|n| format!("a{n}: &a{n} 1\n")).collect();
    let repeated = format!("a: &a 1\nb: [{}]\n", ["*a"; 60_000].join(", "));
    let multiplied = "aliases (`*name`) make more of this file than is read: write out what they stand for";
    for (text, expected) in [
        (bomb, multiplied),
        (repeated, multiplied),
        (format!("a: {}1{}", "[".repeat(5_000), "]".repeat(5_000)), "nested more deeply than is read"),
        (many, "more anchors (`&name`) than are read"),
        ("a: &a [*a]\n".to_owned(), "an alias (`*name`) stands for something that it is itself part of"),
    ] {
        let told = refused(false, &text);
        assert!(told.starts_with(|place: char| place.is_ascii_digit()) && told.ends_with(&format!(": {expected}")), "{told}");
    }
}

#[test]
fn items_of_a_list_that_are_no_objects_or_lists_themselves_are_named() {
    let inner =
        "{kind: List, items: [{kind: Service, metadata: {name: inner}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}]}";
    let outer = "{kind: Service, metadata: {name: outer}, spec: {clusterIP: 10.0.0.2, ports: [{port: 80}]}}";
    let parse::Parsed { objects, warnings, .. } = parsed(false, &format!("kind: List\nitems: [{inner}, null, 5, {outer}]\n"));
    assert_eq!(objects.iter().map(|(_, key, _)| key.name()).collect::<Vec<_>>(), ["outer"]);
    assert_eq!(
        warnings,
        [
            "items[0] of document 1 (List) is a List itself; lists do not nest here, make it a document of its own: ignored",
            "items[1] of document 1 (List) is null, not an object: ignored",
            "items[2] of document 1 (List) is a number, not an object: ignored",
        ]
    );
    let orphan = "kind: EndpointSlice\nmetadata: {name: web-a}\naddressType: IPv4\n";
    assert_eq!(
        parsed(false, orphan).warnings,
        [
            "EndpointSlice default/web-a: metadata.labels[kubernetes.io/service-name]: not given: the slice belongs to no Service and is left out"
        ]
    );
}

#[test]
fn an_unreadable_cluster_ip_is_one_problem_and_a_slice_that_is_nobodys_is_named() {
    let text = "kind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.0.0.300, ports: [{port: 80}]}\n---\n\
        kind: EndpointSlice\nmetadata: {name: web-a, namespace: ns, labels: {kubernetes.io/service-name: 53}}\naddressType: IPv4\n---\n\
        kind: Service\nmetadata: {name: a/b}\n";
    let parsed =
        parse::parse(false, text.as_bytes(), &ManifestOptions::default(), &mut crate::model::Interner::default()).expect("good");
    let [(_, _, Object::Service(service))] = &parsed.objects[..] else { panic!("one Service: {:?}", parsed.objects) };
    let said: Vec<_> = service.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said, [r#"spec.clusterIP: "10.0.0.300" is not an IP address: ignored"#]);
    assert_eq!(
        parsed.warnings,
        [
            "EndpointSlice ns/web-a: metadata.labels[kubernetes.io/service-name]: is a number, not a string: ignored",
            r#"document 3 (Service): object has no usable name: metadata.name "a/b" has a character that no name may have: ignored"#
        ]
    );
}

/// One that is wrong in another way, and has been named, says nothing of the others; the places are those of the file.
#[test]
fn each_port_without_a_node_port_is_named_by_its_place() {
    let text = "kind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  clusterIP: 10.0.0.1\n  ports:\n  \
        - {name: a, port: 99999}\n  - {name: b, port: 80, nodePort: 70000}\n  - {name: c, port: 81}\n  - {name: d, port: 82, nodePort: 30082}\n";
    let read = parsed(false, text);
    let [(_, _, Object::Service(service))] = &read.objects[..] else { panic!("one Service: {:?}", read.objects) };
    let said: Vec<_> = service.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "spec.ports[0].port: 99999 is not a port number: this port is left out",
            "spec.ports[1].nodePort: 70000 is not a port number: ignored",
            "spec.ports[2].nodePort: no nodePort: nothing allocates one without an API server",
        ]
    );
}

fn parsed(json: bool, text: &str) -> parse::Parsed {
    parse::parse(json, text.as_bytes(), &ManifestOptions::default(), &mut crate::model::Interner::default()).expect("good")
}

#[test]
fn a_key_that_is_there_twice_costs_nothing_but_a_warning_with_its_place() {
    let text = format!(
        "{}---\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: 10.0.0.2\n  ports: [{{port: 80}}]\n  ports:\n  - port: 81\n    \
         port: 82\n---\n{}",
        service("before", "10.0.0.1"),
        service("after", "10.0.0.3")
    );
    let read = parsed(false, &text);
    let names: Vec<_> = read.objects.iter().map(|(_, key, _)| key.name()).collect();
    assert_eq!(names, ["before", "web", "after"], "neighbours are not touched");
    let Object::Service(web) = &read.objects[1].2 else { panic!("a Service") };
    assert_eq!(web.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [82], "the last counts");
    let place = text.lines().position(|line| line == "  ports:").expect("there") + 1;
    let paths = "spec.ports of document 2 (Service web), spec.ports[0].port of document 2 (Service web)";
    assert_eq!(read.warnings, [format!("line {place}, column 3: said twice, the last one counts: {paths}")]);

    let read = parsed(
        true,
        r#"{"kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "10.0.0.1", "clusterIP": "10.0.0.2"}}"#,
    );
    let [(_, _, Object::Service(web))] = &read.objects[..] else { panic!("one Service: {:?}", read.objects) };
    assert_eq!(web.cluster_ips[0].to_string(), "10.0.0.2");
    assert!(
        read.warnings[0].starts_with("line 1, column ") && read.warnings[0].contains("spec.clusterIP of"),
        "{:?}",
        read.warnings
    );

    let many: String = (0..40).map(|n| format!("a{n}: 1\na{n}: 2\n")).collect();
    let told = parsed(false, &format!("{many}kind: Pod\n")).warnings;
    assert!(told.len() == 1 && told[0].ends_with("and 32 more"), "{told:?}");
}

/// Passed over, they open what their author closed: an endpoint that is not ready is served.
#[test]
fn a_field_that_is_none_but_for_its_case_is_named() {
    let said = |json: bool, text: &str| parsed(json, text).warnings;
    let text = "kind: Deployment\nspec: {Ports: 1}\n---\n---\n\
                kind: Service\nmetadata: {name: web, labels: {Name: x}}\nspec:\n  externalips: [10.9.9.9]\n  clusterIP: 10.0.0.1\n  \
                appProtocols: 1\n  ports:\n  - port: 80\n    nodeport: 30001\n";
    assert_eq!(
        said(false, text),
        [
            "spec.externalips of document 2 (Service web) is not read: did you mean externalIPs?",
            "spec.ports[0].nodeport of document 2 (Service web) is not read: did you mean nodePort?",
        ]
    );
    let first = "kind: ConfigMap\ndata: {much: 123456789012345678901234567890}\n---\n";
    assert_eq!(said(false, &format!("{first}{text}")).len(), 2, "a document costs its neighbours nothing");
    let metadata = "{name: web, UID: u, creationtimestamp: '2026-11-21T01:23:48Z'}";
    let told =
        said(false, &format!("kind: Service\nmetadata: {metadata}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n"));
    assert_eq!(told.len(), 2, "{told:?}");
    let slice = r#"{"kind": "EndpointSlice", "metadata": {"name": "web-a", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2"], "conditions": {"Ready": false}}], "ports": [{"Port": 80}]}"#;
    let fields = |path: &str| {
        ["endpoints[1].conditions.Ready", "ports[0].Port"].map(|field| {
            let meant = field.rsplit('.').next().unwrap().to_ascii_lowercase();
            format!("{path}{field} of document 1 (EndpointSlice web-a) is not read: did you mean {meant}?")
        })
    };
    assert_eq!(said(true, slice), fields(""));
    assert_eq!(said(true, &format!(r#"{{"kind": "List", "items": [{slice}]}}"#)), fields("items[0]."));
    let many: String = (0..40).map(|_| "  - {port: 80, nodeport: 1}\n").collect();
    let told = said(false, &format!("kind: Service\nmetadata: {{name: web}}\nspec:\n  ports:\n{many}"));
    assert!(told.len() == 9 && told[8].starts_with("32 more"), "{told:?}");
}

#[test]
fn objects_that_an_api_server_would_not_know_are_read_or_at_least_named() {
    let said = |text: &str| {
        let parse::Parsed { objects, warnings, .. } = parsed(false, text);
        let problems = objects.iter().flat_map(|(_, key, object)| {
            let problems = match object {
                Object::Service(service) => &service.problems,
                Object::EndpointSlice(slice) => &slice.problems,
                other => panic!("not served: {other:?}"),
            };
            problems.iter().map(move |problem| format!("{key}: {problem}"))
        });
        (objects.len(), problems.chain(warnings.iter().cloned()).collect::<Vec<_>>())
    };
    let rest = "metadata: {name: web}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n";
    let demands = "which an API server demands; it is read as that";
    assert_eq!(said(&format!("apiVersion: v1\nkind: Service\n{rest}")), (1, vec![]));
    assert_eq!(
        said(&format!("apiVersion: v2\nkind: Service\n{rest}")),
        (1, vec![format!(r#"default/web: apiVersion: "v2" is not v1, {demands}"#)])
    );
    assert_eq!(
        said(&format!("apiVersion: v1\nkind: service\n{rest}")),
        (1, vec![format!(r#"default/web: kind: "service" is not Service, {demands}"#)])
    );
    let slice = "metadata: {name: web-a, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n";
    assert_eq!(
        said(&format!("apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\n{slice}")),
        (1, vec![format!(r#"default/web-a: apiVersion: "discovery.k8s.io/v1beta1" is not discovery.k8s.io/v1, {demands}"#)])
    );
    assert_eq!(said(&format!("apiVersion: v1\n{rest}")), (0, vec!["document 1 (web) has no kind: ignored".to_owned()]));
    for others in ["apiVersion: apps/v1\nkind: Deployment\n", "apiVersion: serving.knative.dev/v1\nkind: Service\n"] {
        assert_eq!(said(&format!("{others}{rest}")), (0, vec![]), "{others}");
    }
}

#[test]
fn many_documents_and_a_large_one() {
    let mut text = String::new();
    for n in 0..2_000 {
        text.push_str(&service(&format!("s{n}"), "10.0.0.1"));
        text.push_str("---\n");
    }
    text.push_str("apiVersion: v1\nkind: Service\nmetadata: {name: wide}\nspec:\n  ports:\n");
    for port in 1..=10_000 {
        text.push_str(&format!("  - {{name: p{port}, port: {port}}}\n"));
    }
    let parsed =
        parse::parse(false, text.as_bytes(), &ManifestOptions::default(), &mut crate::model::Interner::default()).expect("good");
    assert_eq!(parsed.objects.len(), 2_001);
    let Some((Kind::Service, key, Object::Service(wide))) = parsed.objects.last() else { panic!("a Service") };
    assert_eq!((key, wide.ports.len()), (&ObjectKey::new("default", "wide"), 10_000));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, text in "[-a-z:{}\\[\\] \n&*!|>'\"]{0,80}") {
        for json in [false, true] {
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = parse::parse(json, bytes, &ManifestOptions::default(), &mut crate::model::Interner::default());
            }
        }
    }
}
