use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::*;
use crate::netlink::nft::{Batch, Element, KernelNft, NftDoor, SetFlags, SetSpec};
use crate::netlink::testns::in_namespace;

const TABLE: &str = "monitored";

fn commit(door: &mut KernelNft, write: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    write(&mut batch);
    door.commit(batch).unwrap();
}

fn set(name: &str) -> SetSpec {
    SetSpec { name: name.into(), key_type: 13, key_len: 4, size: Some(1 << 17), ..SetSpec::default() }
}

/// Our door, somebody else's, and the monitor that knows ours.
fn three() -> (KernelNft, KernelNft, Monitor) {
    let (ours, theirs) = (KernelNft::open().unwrap(), KernelNft::open().unwrap());
    let monitor = Monitor::open(TABLE, &[ours.port_id()]).unwrap();
    (ours, theirs, monitor)
}

fn all(monitor: &mut Monitor) -> Vec<MonitorEvent> {
    let mut events = Vec::new();
    while let Some(event) = monitor.try_next().unwrap() {
        events.push(event);
    }
    events
}

/// All but generations.
fn changes(monitor: &mut Monitor) -> Vec<MonitorEvent> {
    let mut events = all(monitor);
    events.retain(|event| !matches!(event, MonitorEvent::NewGeneration { .. }));
    events
}

fn nft(arguments: &[&str]) {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn tells_what_others_do_to_our_table_only() {
    in_namespace(|| {
        let (mut ours, mut theirs, mut monitor) = three();
        commit(&mut ours, |batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &set("s"));
            batch.add_elements(TABLE, "s").push(Element::key(&[0, 0, 0, 1]));
        });
        assert_eq!(all(&mut monitor), [], "our own");
        commit(&mut theirs, |batch| {
            batch.add_table("other", None);
            batch.add_set("other", &set("s"));
        });
        let generation = theirs.generation().unwrap();
        let events = all(&mut monitor);
        assert!(
            matches!(&events[..], [MonitorEvent::NewGeneration { id, pid: Some(_), process: Some(_) }] if *id == generation),
            "{events:?}"
        );
        commit(&mut theirs, |batch| {
            batch.add_set(TABLE, &set("t"));
            batch.delete_elements(TABLE, "s").push(Element::key(&[0, 0, 0, 1]));
            batch.add_elements(TABLE, "s").push(Element::key(&[0, 0, 0, 2])).push(Element::key(&[0, 0, 0, 3]));
        });
        let mut keys = Vec::new();
        let mut rest = Vec::new();
        for event in changes(&mut monitor) {
            match event {
                MonitorEvent::Elements { set, elements, change } => {
                    assert_eq!(set, "s");
                    keys.extend(elements.into_iter().map(|element| (element.key[3], change)));
                }
                other => rest.push(other),
            }
        }
        assert_eq!(keys, [(1, Change::Removed), (2, Change::Added), (3, Change::Added)]);
        assert_eq!(rest, [MonitorEvent::Set { name: "t".into(), change: Change::Added }]);
    });
}

#[test]
fn tells_of_the_nft_command() {
    in_namespace(|| {
        let (mut ours, _, mut monitor) = three();
        commit(&mut ours, |batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &set("s"));
        });
        nft(&["add", "chain", "inet", TABLE, "c"]);
        nft(&["add", "rule", "inet", TABLE, "c", "drop"]);
        assert!(matches!(
            &changes(&mut monitor)[..],
            [MonitorEvent::Chain { name, change: Change::Added }, MonitorEvent::Rule { chain, change: Change::Added, .. }]
                if name == "c" && chain == "c"
        ));
        nft(&["flush", "ruleset"]);
        let events = all(&mut monitor);
        assert!(events.contains(&MonitorEvent::TableDeleted), "{events:?}");
        assert!(events.contains(&MonitorEvent::Set { name: "s".into(), change: Change::Removed }), "{events:?}");
        assert!(
            matches!(events.last(), Some(MonitorEvent::NewGeneration { process: Some(name), .. }) if name == "nft"),
            "{events:?}"
        );
    });
}

#[test]
fn rests_while_paused() {
    in_namespace(|| {
        let (_, mut theirs, mut monitor) = three();
        let handle = monitor.handle();
        handle.pause().unwrap();
        commit(&mut theirs, |batch| batch.add_table(TABLE, None));
        assert_eq!(all(&mut monitor), []);
        handle.resume().unwrap();
        commit(&mut theirs, |batch| batch.delete_table(TABLE));
        assert_eq!(changes(&mut monitor), [MonitorEvent::TableDeleted]);
    });
}

#[test]
fn waits_until_something_happens_or_it_is_stopped() {
    in_namespace(|| {
        let (_, mut theirs, mut monitor) = three();
        let handle = monitor.handle();
        let waiter = thread::spawn(move || {
            let first = monitor.next().unwrap();
            while monitor.next().unwrap().is_some() {}
            first
        });
        commit(&mut theirs, |batch| batch.add_table(TABLE, None));
        handle.stop();
        handle.stop();
        // Stopped before it had read: nothing. Otherwise what was done.
        assert!(matches!(waiter.join().unwrap(), None | Some(MonitorEvent::TableAdded)));
    });
}

#[test]
fn tells_when_it_lost_count() {
    in_namespace(|| {
        let (_, mut theirs, mut monitor) = three();
        monitor.socket.grow_receive_buffer(4096).unwrap();
        commit(&mut theirs, |batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &set("s"));
            let mut elements = batch.add_elements(TABLE, "s");
            for key in 0..2_000_u32 {
                elements.push(Element::key(&key.to_be_bytes()));
            }
        });
        assert!(all(&mut monitor).contains(&MonitorEvent::Overrun));
        commit(&mut theirs, |batch| batch.delete_table(TABLE));
        assert!(changes(&mut monitor).contains(&MonitorEvent::TableDeleted), "goes on afterwards");
    });
}

#[test]
fn packets_and_time_are_not_others() {
    in_namespace(|| {
        let (mut ours, _, mut monitor) = three();
        let flags = SetFlags { timeout: true, dynamic: true, ..SetFlags::default() };
        let timeout = Some(Duration::from_millis(200));
        commit(&mut ours, |batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &SetSpec { timeout, flags, key_type: 7, ..set("learnt") });
        });
        nft(&["add", "chain", "inet", TABLE, "c", "{ type filter hook output priority 0; }"]);
        nft(&["add", "rule", "inet", TABLE, "c", "update", "@learnt", "{ ip daddr }"]);
        assert!(!changes(&mut monitor).is_empty());
        Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.9:9").unwrap();
        let learnt = ours.dump(TABLE, "learnt").unwrap();
        assert!(learnt.iter().any(|element| element.key == [127, 0, 0, 9]), "{learnt:?}");
        // Expiry is the kernel's: nothing to wait on but the element being gone.
        while !ours.dump(TABLE, "learnt").unwrap().is_empty() {
            thread::yield_now();
        }
        // A later transaction gives the collector's work a chance to be told, if it were.
        commit(&mut ours, |batch| batch.add_set(TABLE, &set("s")));
        assert_eq!(all(&mut monitor), []);
    });
}

#[test]
fn a_subscription_that_breaks_is_told_and_comes_back() {
    in_namespace(|| {
        let (_, mut theirs, mut monitor) = three();
        let handle = monitor.handle();
        handle.break_socket();
        assert!(monitor.next().is_err(), "its socket is none any more");
        monitor.reopen().unwrap();
        commit(&mut theirs, |batch| batch.add_table(TABLE, None));
        assert_eq!(changes(&mut monitor), [MonitorEvent::TableAdded]);

        // It breaks while it rests, when nobody reads.
        handle.pause().unwrap();
        handle.break_socket();
        handle.resume().unwrap_err();
        assert!(monitor.next().is_err(), "the waiting thread is told");
        monitor.reopen().unwrap();
        commit(&mut theirs, |batch| batch.delete_table(TABLE));
        assert_eq!(changes(&mut monitor), [MonitorEvent::TableDeleted]);

        // One that is reopened at rest goes on resting.
        handle.pause().unwrap();
        monitor.reopen().unwrap();
        commit(&mut theirs, |batch| batch.add_table(TABLE, None));
        assert_eq!(all(&mut monitor), []);
        handle.resume().unwrap();
        commit(&mut theirs, |batch| batch.delete_table(TABLE));
        assert_eq!(changes(&mut monitor), [MonitorEvent::TableDeleted]);
        handle.stop();
        assert!(monitor.is_stopped_within(Duration::MAX));
    });
}
