use std::process::Command;

use super::*;
use crate::netlink::message::{NLM_F_CREATE, NLM_F_EXCL};
use crate::netlink::testns::in_namespace;

const TIMEOUT: u16 = 7;
const PROTOINFO: u16 = 4;

fn tuple(source: &str, destination: &str) -> Tuple {
    Tuple { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn flow(protocol: u8, original: Tuple, backend: SocketAddr) -> Flow {
    let reply = Tuple { source: backend, destination: original.source };
    Flow { protocol, original, reply, zone: Zone::Default, id: None, status: 0 }
}

fn udp(client: u16) -> Flow {
    let original = Tuple { source: SocketAddr::new([10, 0, 0, 1].into(), client), ..tuple("10.0.0.1:1", "10.96.0.10:53") };
    flow(17, original, "10.244.1.5:5353".parse().unwrap())
}

/// Puts flows into the table as a packet would have (`IPCTNL_MSG_CT_NEW`).
fn create(conntrack: &mut Conntrack, flows: &[Flow]) {
    for flow in flows {
        let request =
            single(abi::NEW, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, family(flow.original.source.is_ipv6()), |request| {
                flow.write_identity(request);
                let zone = if let Zone::Reply(zone) = flow.zone { Some(zone) } else { None };
                flow.reply.write(request, abi::TUPLE_REPLY, flow.protocol, zone);
                attr::put_u32_be(request, TIMEOUT, 600);
                attr::put_u32_be(request, abi::STATUS, 1 << 3 | STATUS_SEEN_REPLY); // IPS_CONFIRMED
                if flow.protocol == 6 {
                    attr::nest(request, PROTOINFO, |request| attr::nest(request, 1, |request| attr::put(request, 1, &[3])));
                }
            });
        conntrack.socket.request(&mut conntrack.datagram, &request, &mut |_| {}).unwrap();
    }
}

fn all(conntrack: &mut Conntrack, selection: Selection) -> (Vec<Flow>, DumpInfo) {
    let mut flows = Vec::new();
    let info = conntrack.dump(selection, |flow| flows.push(*flow)).unwrap();
    flows.sort_by_key(|flow| (flow.original.source, flow.original.destination));
    (flows, info)
}

fn identities(flows: &[Flow]) -> Vec<(Tuple, Tuple, Zone)> {
    flows.iter().map(|flow| (flow.original, flow.reply, flow.zone)).collect()
}

#[test]
fn tells_the_selection_only_and_so_does_the_fallback() {
    in_namespace(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let six = flow(17, tuple("[fd00::1]:4000", "[fd00:10:96::a]:53"), "[fd00:10:244::5]:5353".parse().unwrap());
        let tcp = flow(6, tuple("10.0.0.1:4000", "10.96.0.10:53"), "10.244.1.5:5353".parse().unwrap());
        create(&mut conntrack, &[udp(4000), udp(4001), six, tcp]);

        let (flows, info) = all(&mut conntrack, Selection::udp(false));
        assert_eq!(identities(&flows), identities(&[udp(4000), udp(4001)]));
        assert_eq!(info, DumpInfo { matched: 2, skipped: 0 }, "the kernel filters");
        assert!(
            flows
                .iter()
                .all(|flow| flow.id.is_some() && flow.status & STATUS_SEEN_REPLY != 0 && flow.status & STATUS_DST_NAT == 0)
        );
        assert_eq!(identities(&all(&mut conntrack, Selection::udp(true)).0), identities(&[six]));
        assert_eq!(identities(&all(&mut conntrack, Selection { ipv6: false, protocol: 6 }).0), identities(&[tcp]));

        conntrack.filters = false;
        let (flows, info) = all(&mut conntrack, Selection::udp(false));
        assert_eq!(identities(&flows), identities(&[udp(4000), udp(4001)]));
        assert_eq!(info, DumpInfo { matched: 2, skipped: 1 });
    });
}

#[test]
fn deletes_the_flow_that_was_told_and_no_other() {
    in_namespace(|| {
        let mut conntrack = Conntrack::open().unwrap();
        create(&mut conntrack, &[udp(4000), udp(4001)]);
        let (flows, _) = all(&mut conntrack, Selection::udp(false));
        assert_eq!(conntrack.delete(&flows[..1]).unwrap(), Deleted { deleted: 1, gone: 0 });
        assert_eq!(conntrack.delete(&flows[..1]).unwrap(), Deleted { deleted: 0, gone: 1 });
        assert_eq!(identities(&all(&mut conntrack, Selection::udp(false)).0), identities(&[udp(4001)]));
        let anew = Flow { id: flows[1].id.map(|id| id ^ 1), ..flows[1] };
        assert_eq!(conntrack.delete(&[anew]).unwrap(), Deleted { deleted: 0, gone: 1 }, "another flow with the same addresses");
        assert_eq!(all(&mut conntrack, Selection::udp(false)).0.len(), 1);
    });
}

#[test]
fn knows_zones() {
    in_namespace(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let zones = [Zone::Default, Zone::Both(7), Zone::Original(8)];
        let created = zones.map(|zone| Flow { zone, reply: tuple("10.244.1.5:5353", "10.0.0.1:4000"), ..udp(4000) });
        // In zone 0 of the reply there is room for one of these answers only.
        let created = [created[0], created[1], Flow { reply: tuple("10.244.1.6:5353", "10.0.0.1:4000"), ..created[2] }];
        create(&mut conntrack, &created);
        let (flows, _) = all(&mut conntrack, Selection::udp(false));
        for zone in zones {
            let flow = flows.iter().find(|flow| flow.zone == zone).copied();
            assert_eq!(conntrack.delete(&[flow.unwrap()]).unwrap(), Deleted { deleted: 1, gone: 0 }, "{zone:?}");
            let left = all(&mut conntrack, Selection::udp(false)).0;
            assert!(left.iter().all(|flow| flow.zone != zone), "{zone:?}");
        }
        assert!(all(&mut conntrack, Selection::udp(false)).0.is_empty());
    });
}

#[test]
fn agrees_with_the_conntrack_command() {
    in_namespace(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let arguments = "-I -p udp -s 10.0.0.1 -d 10.96.0.10 --sport 4000 --dport 53 -r 10.244.1.5 -q 10.0.0.1 --reply-port-src 5353 \
             --reply-port-dst 4000 -t 600 -w 7";
        let output = Command::new("conntrack").args(arguments.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let (flows, _) = all(&mut conntrack, Selection::udp(false));
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].original, flows[0].zone), (udp(4000).original, Zone::Both(7)));
        conntrack.delete(&flows).unwrap();
        let output = Command::new("conntrack").args(["-L", "-p", "udp"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    });
}

#[test]
fn large_tables_come_whole() {
    const COUNT: u16 = 20_000;
    in_namespace(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let created: Vec<_> = (1..=COUNT).map(udp).collect();
        create(&mut conntrack, &created);
        let (flows, info) = all(&mut conntrack, Selection::udp(false));
        assert_eq!(identities(&flows), identities(&created));
        assert_eq!(info.matched, u64::from(COUNT));
        assert_eq!(conntrack.delete(&flows).unwrap(), Deleted { deleted: u64::from(COUNT), gone: 0 });
        assert!(all(&mut conntrack, Selection::udp(false)).0.is_empty());
    });
}
