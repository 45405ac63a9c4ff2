//! What it costs. Not a test but a measurement: `cargo test --release -- --ignored --nocapture cost`.

use std::time::{Duration, Instant};

use super::fixtures::{Port, commit, node, put, stage};
use super::namespace::in_namespace;
use crate::dataplane::Dataplane;
use crate::dataplane::nftables::{NftablesPlane, cleanup};
use crate::netlink::nft::{KernelNft, KernelNftOptions};
use crate::table::ServiceTable;

fn door() -> Box<KernelNft> {
    Box::new(KernelNft::open().unwrap())
}

fn service(n: u32, backends: u16) -> Option<Port> {
    let [_, a, b, c] = (n + 1).to_be_bytes();
    Some(Port::v4().cluster_ip(&format!("172.{}.{b}.{c}", 16 + a), 80).backends(backends, 0))
}

fn services(count: u32, backends: u16) -> ServiceTable {
    let mut table = ServiceTable::default();
    table.set_node(node());
    for n in 0..count {
        stage(&mut table, &format!("s{n}"), service(n, backends));
        if n % 500 == 0 {
            commit(&mut table);
        }
    }
    commit(&mut table);
    table
}

/// Slab, vmalloc and per-CPU memory of the kernel, in KiB.
fn kernel_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    field("Slab:") + field("VmallocUsed:") + field("Percpu:")
}

/// Time this thread spent on a processor: on a shared machine the honest part of the wall clock.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    format!("p50 {:?} p99 {:?} max {:?} of {}", at(500), at(990), at(1000), times.len())
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    in_namespace(|| {
        let mut empty = ServiceTable::default();
        empty.set_node(node());
        commit(&mut empty);
        let before = kernel_memory();
        let loaded = NftablesPlane::new(door()).load(&empty).unwrap();
        eprintln!("skeleton: {loaded:?}; kernel memory {} KiB", kernel_memory().saturating_sub(before));
        cleanup(&mut *door()).unwrap();

        let mut table = services(5_000, 50);
        let before = kernel_memory();
        for round in 0..3 {
            let (started, cpu) = (Instant::now(), on_cpu());
            let mut plane = NftablesPlane::new(door());
            let commit = plane.load(&table).unwrap();
            eprintln!("load 5,000 x 50, round {round}: {:?}, on cpu {:?} = {commit:?}", started.elapsed(), on_cpu() - cpu);
            if round == 0 {
                eprintln!("kernel memory {} KiB", kernel_memory().saturating_sub(before));
            }
        }
        cleanup(&mut *door()).unwrap();
        let small = KernelNftOptions { force_buffers: false, send_buffer: 212_992, ..KernelNftOptions::default() };
        let started = Instant::now();
        let mut plane = NftablesPlane::new(Box::new(KernelNft::open_with(small).unwrap()));
        eprintln!("load with a small send buffer: {:?}", plane.load(&table).map(|commit| (started.elapsed(), commit)));
        let (mut applied, mut kernel, mut commits) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..3_000_u32 {
            let n = round * 7 % 5_000;
            let started = Instant::now();
            let delta = put(&mut table, [(format!("s{n}").as_str(), service(n, if round % 2 == 0 { 49 } else { 50 }))]);
            commits.push(started.elapsed());
            let started = Instant::now();
            let commit = plane.apply(&delta, &table).unwrap();
            applied.push(started.elapsed());
            kernel.push(commit.kernel);
        }
        eprintln!("table: {}", percentiles(commits));
        eprintln!("one endpoint: {}", percentiles(applied));
        eprintln!("  in the kernel: {}", percentiles(kernel));
        cleanup(&mut *door()).unwrap();

        let mut table = services(50_000, 5);
        let mut plane = NftablesPlane::new(door());
        let started = Instant::now();
        let commit = plane.load(&table).unwrap();
        eprintln!("load 50,000 x 5: {:?} = {commit:?}", started.elapsed());
        let mut added = Vec::new();
        for n in 50_000..51_000 {
            let delta = put(&mut table, [(format!("s{n}").as_str(), service(n, 5))]);
            let started = Instant::now();
            plane.apply(&delta, &table).unwrap();
            added.push(started.elapsed());
        }
        eprintln!("one Service at 50,000: {}", percentiles(added));
    });
}
