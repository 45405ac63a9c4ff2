//! The lab itself: what every other scenario takes for granted.

use anyhow::{Context as _, ensure};
use sheave_lab::{BadLink, Lab, Outcome, Port, Protocol, Request, TcpFlow, UdpFlow};
use sheave_tests::{scenario::Scenario, scenarios, world::nft};
use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lab":
        machines_reach_each_other_in_both_families;
        sctp_answers needs ["sctp"];
        no_two_questions_are_one_flow;
        refusals_silence_and_lost_ways_are_told_apart needs ["nftables", "tool:nft"];
        a_service_of_plain_nft_rules_works needs ["nftables", "tool:nft"];
        bridged_pods_talk;
        hosts_of_the_lan_are_neighbours;
        web_clients_are_answered needs ["tool:curl"];
        a_bad_link_loses_the_same_packets_for_the_same_seed;
        a_bad_link_carries_whole_tcp_streams;
        flows_count_what_is_lost;
        a_stopped_server_breaks_a_tcp_flow;
        machines_that_are_cut_off_come_back;
        nothing_outlives_a_killed_process;
        what_a_contained_process_starts_ends_with_it needs ["tool:setsid"];
    )
    .to_vec()
}

const QUICK: Duration = Duration::from_millis(400);
const PATIENT: Duration = Duration::from_secs(20);

fn machines_reach_each_other_in_both_families() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (a, b) = (lab.pod("a", "10.180.0.1")?, lab.remote_pod("b", "10.180.2.1")?);
    let everyone = [&a, &b, lab.node(), lab.remote(), lab.client()];
    for host in everyone {
        host.serve(&[Port::tcp(80), Port::udp(53)])?;
    }
    for from in everyone {
        for to in everyone {
            for address in [to.ipv4().into(), to.ipv6().into()] {
                for port in [Port::tcp(80), Port::udp(53)] {
                    let way = || format!("{} -> {} {address} {port}", from.name(), to.name());
                    let answer = from.ask(&Request::to(port, address))?.answer().with_context(way)?;
                    ensure!(answer.by == to.name() && answer.at.ip() == address, "{}: {answer:?}", way());
                    ensure!(answer.source_kept(), "{}: {answer:?}", way());
                }
            }
        }
    }
    // Chosen sources are kept, too, and so is the alternate address of the node.
    lab.node().serve(&[Port::tcp(81)])?;
    let request = Request::new(Protocol::Tcp, "192.168.1.2:81")?.from_port(4711);
    let answer = lab.client().ask(&request)?.answer()?;
    assert_eq!(answer.source_seen.to_string(), "203.0.113.2:4711");
    assert_eq!(answer.at.to_string(), "192.168.1.2:81");
    Ok(())
}

fn sctp_answers() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (a, b) = (lab.pod("a", "10.180.0.1")?, lab.remote_pod("b", "10.180.2.1")?);
    b.serve(&[Port::sctp(132)])?;
    assert_eq!(a.sctp("10.180.2.1:132")?.by(), Some("b"));
    assert_eq!(a.sctp("[fd00:10:180::2:1]:132")?.by(), Some("b"));
    assert_eq!(a.sctp("10.180.2.1:133")?, Outcome::Refused);
    Ok(())
}

/// To connection tracking, a datagram from a port that was in use half a minute ago belongs to what was asked then.
fn no_two_questions_are_one_flow() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let pod = lab.pod("pod", "10.180.0.1")?;
    pod.serve(&[Port::tcp(80), Port::udp(53)])?;
    for port in [Port::tcp(80), Port::udp(53)] {
        let request = Request::to(port, pod.ipv4().into());
        let mut seen = BTreeSet::new();
        for question in 0..1000 {
            let source = lab.node().ask(&request)?.answer()?.source;
            ensure!(seen.insert(source), "{port}: question {question} came from {source} again");
        }
    }
    Ok(())
}

fn refusals_silence_and_lost_ways_are_told_apart() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let pod = lab.pod("pod", "10.180.0.1")?;
    pod.serve(&[Port::tcp(80), Port::udp(80)])?;
    nft(
        &lab,
        "table inet t {
            chain forward { type filter hook forward priority 0
                tcp dport 81 reject with tcp reset
                th dport 82 reject
                th dport 83 drop
            }
            chain output { type filter hook output priority 0
                udp dport 84 drop
            }
        }",
    )?;
    let quick = |protocol, to: &str| Ok::<_, anyhow::Error>(Request::new(protocol, to)?.timeout(QUICK));
    for (protocol, address) in [(Protocol::Tcp, "10.180.0.1"), (Protocol::Udp, "10.180.0.1"), (Protocol::Tcp, "[fd00:10:180::1]")]
    {
        let client = lab.client();
        assert_eq!(client.ask(&quick(protocol, &format!("{address}:80"))?)?.by(), Some("pod"));
        assert_eq!(client.ask(&Request::new(protocol, &format!("{address}:82"))?)?, Outcome::Refused, "{protocol:?}");
        assert_eq!(client.ask(&quick(protocol, &format!("{address}:83"))?)?, Outcome::TimedOut, "{protocol:?}");
        assert_eq!(client.ask(&Request::new(protocol, &format!("{address}:90"))?)?, Outcome::Refused, "nobody listens");
    }
    assert_eq!(lab.client().tcp("10.180.0.1:81")?, Outcome::Refused);
    assert_eq!(lab.node().udp("10.180.0.1:84")?, Outcome::Forbidden);
    for nowhere in ["9.9.9.9:80", "[fd00:9:9::9:9]:80"] {
        let outcome = lab.client().tcp(nowhere)?;
        ensure!(matches!(outcome, Outcome::Unreachable(libc::ENETUNREACH)), "{nowhere}: {outcome}");
    }
    Ok(())
}

fn a_service_of_plain_nft_rules_works() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (a, b) = (lab.pod("a", "10.180.0.1")?, lab.remote_pod("b", "10.180.2.1")?);
    for pod in [&a, &b] {
        pod.serve(&[Port::tcp(8080)])?;
    }
    nft(
        &lab,
        "table inet t {
            chain services {
                ip daddr 172.30.0.41 tcp dport 80 dnat ip to numgen random mod 2 map { 0 : 10.180.0.1, 1 : 10.180.2.1 } : 8080
                ip6 daddr fd00:172:30::41 tcp dport 80 dnat ip6 to [fd00:10:180::2:1]:8080
            }
            chain prerouting { type nat hook prerouting priority dstnat; jump services; }
            chain output { type nat hook output priority -100; jump services; }
            chain postrouting { type nat hook postrouting priority srcnat
                ip saddr 10.180.0.1 ip daddr 10.180.0.1 masquerade
                ip saddr 203.0.113.0/24 masquerade
                ip6 saddr fd00:203::/32 masquerade
            }
        }",
    )?;
    let service = Request::new(Protocol::Tcp, "172.30.0.41:80")?;
    for from in [&a, lab.node(), lab.client()] {
        let tally = from.sample(&service, 40)?;
        ensure!(tally.names() == ["a", "b"] && tally.failed.is_empty(), "{}: {tally:?}", from.name());
    }
    let masqueraded = lab.client().tcp("[fd00:172:30::41]:80")?.answer()?;
    assert_eq!((masqueraded.by.as_str(), masqueraded.source_seen.ip()), ("b", lab.node().ipv6().into()));
    ensure!(!masqueraded.source_kept());
    ensure!(a.tcp("[fd00:172:30::41]:80")?.answer()?.source_kept(), "a pod's own address is kept");
    Ok(())
}

fn bridged_pods_talk() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let node = lab.node();
    let (a, b) = (lab.bridged_pod(node, "a", "10.180.3.1")?, lab.bridged_pod(node, "b", "10.180.3.2")?);
    let far = lab.remote_pod("far", "10.180.2.1")?;
    for pod in [&a, &b, &far] {
        pod.serve(&[Port::tcp(80)])?;
    }
    for (from, to, by) in [
        (&a, "10.180.3.2:80", "b"),
        (&a, "[fd00:10:180::3:2]:80", "b"),
        (&a, "10.180.2.1:80", "far"),
        (&far, "[fd00:10:180::3:1]:80", "a"),
        (lab.client(), "10.180.3.2:80", "b"),
    ] {
        let answer = from.tcp(to)?.answer().with_context(|| format!("{} -> {to}", from.name()))?;
        ensure!(answer.by == by && answer.source_kept(), "{answer:?}");
    }
    Ok(())
}

fn hosts_of_the_lan_are_neighbours() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let host = lab.lan_host("printer", "192.168.0.77", None)?;
    lab.remote().add_address("eth0", "192.168.0.200/32")?;
    lab.remote().serve(&[Port::tcp(80), Port::udp(80)])?;
    assert_eq!(host.tcp("192.168.0.200:80")?.answer()?.at.to_string(), "192.168.0.200:80");
    assert_eq!(host.udp("192.168.0.200:80")?.answer()?.at.to_string(), "192.168.0.200:80");
    lab.remote().del_address("eth0", "192.168.0.200/32")?;
    let gone = host.ask(&Request::new(Protocol::Udp, "192.168.0.200:80")?.timeout(QUICK))?;
    ensure!(!matches!(gone, Outcome::Answered(_)), "{gone}");
    Ok(())
}

fn web_clients_are_answered() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    lab.pod("web", "10.180.0.1")?.serve(&[Port::tcp(80)])?;
    let page = lab.client().exec("curl", &["-sS", "--max-time", "5", "http://10.180.0.1/"])?;
    ensure!(page.status.success(), "{page:?}");
    ensure!(page.stdout.starts_with("name=web from=203.0.113.2:"), "{page:?}");
    Ok(())
}

/// The numbers of the datagrams that were lost, of so many, on a link with this seed.
fn losses(seed: u64, count: u64) -> anyhow::Result<BTreeSet<u64>> {
    let lab = Lab::new()?;
    lab.pod("pod", "10.180.0.1")?.serve(&[Port::udp(7)])?;
    let link = BadLink { loss: 0.1, reorder: 0.05, ..BadLink::good(seed) };
    let client = lab.outside("far-away", "203.0.113.50", Some(link))?;
    let flow = UdpFlow::start_limited(&client, "10.180.0.1:7", 1000, count)?;
    flow.await_sent(count, PATIENT)?;
    let report = flow.stop();
    ensure!(report.duplicated == 0 && report.refused == 0, "{report:?}");
    ensure!(report.overtaken > 0, "frames swap places: {report:?}");
    ensure!(report.answered + report.missing.len() as u64 == count, "{report:?}");
    Ok(report.missing)
}

fn a_bad_link_loses_the_same_packets_for_the_same_seed() -> anyhow::Result<()> {
    let first = losses(7, 300)?;
    // A tenth each way: about 57 of 300.
    ensure!((25..100).contains(&first.len()), "{} of 300 lost", first.len());
    assert_eq!(first, losses(7, 300)?);
    assert_ne!(first, losses(8, 300)?);
    Ok(())
}

fn a_bad_link_carries_whole_tcp_streams() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    lab.pod("pod", "10.180.0.1")?.serve(&[Port::tcp(7)])?;
    let link = BadLink { loss: 0.02, delay: Duration::from_millis(5), jitter: Duration::from_millis(3), ..BadLink::good(1) };
    let client = lab.outside("far-away", "203.0.113.50", Some(link))?;
    for to in ["10.180.0.1:7", "[fd00:10:180::1]:7"] {
        let flow = TcpFlow::start(&client, to, 2_000_000)?;
        flow.await_progress(1_000_000, PATIENT)?;
        let report = flow.stop();
        ensure!(report.is_whole() && report.by == "pod", "{report:?}");
    }
    let latency = client.udp("10.180.0.1:7");
    ensure!(latency.is_ok());
    let answer = client.tcp("10.180.0.1:7")?.answer()?;
    ensure!(answer.latency >= Duration::from_millis(20), "two round trips of 10 ms at least: {answer:?}");
    Ok(())
}

fn flows_count_what_is_lost() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    lab.pod("pod", "10.180.0.1")?.serve(&[Port::udp(7), Port::tcp(7)])?;
    let udp = UdpFlow::start(lab.client(), "10.180.0.1:7", 200)?;
    let tcp = TcpFlow::start(lab.client(), "10.180.0.1:7", 100_000)?;
    udp.await_answers(20, PATIENT)?;
    tcp.await_progress(10_000, PATIENT)?;
    let begin = udp.report().sent;
    nft(&lab, "table inet t { chain f { type filter hook forward priority 0; ip daddr 10.180.0.1 drop; }; }")?;
    let before = udp.report();
    udp.await_sent(before.sent + 50, PATIENT)?;
    nft(&lab, "delete table inet t")?;
    let end = udp.report().sent;
    udp.await_answers(20, PATIENT)?;
    tcp.await_progress(20_000, PATIENT)?;
    let (udp, tcp) = (udp.stop(), tcp.stop());
    // Fifty for certain, but for one on its way back at the start; more while nft was at work; none outside of that.
    ensure!(udp.missing.len() >= 49, "{} missing", udp.missing.len());
    ensure!(
        udp.missing.iter().all(|number| (begin.saturating_sub(1)..=end).contains(number)),
        "{begin}..{end}: {:?}",
        udp.missing
    );
    ensure!(udp.longest_gap >= Duration::from_millis(200) && udp.duplicated == 0 && udp.by.len() == 1, "{udp:?}");
    ensure!(tcp.is_whole() && tcp.longest_stall >= Duration::from_millis(200), "TCP repairs what it lost: {tcp:?}");
    Ok(())
}

fn a_stopped_server_breaks_a_tcp_flow() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let pod = lab.pod("pod", "10.180.0.1")?;
    pod.serve(&[Port::tcp(7)])?;
    let flow = TcpFlow::start(lab.client(), "10.180.0.1:7", 10_000)?;
    pod.stop_serving();
    flow.await_progress(u64::MAX / 2, PATIENT).err().context("it cannot go on")?;
    let report = flow.stop();
    assert_eq!(report.broken, Some(Outcome::Reset));
    assert_eq!(lab.client().tcp("10.180.0.1:7")?, Outcome::Refused);
    Ok(())
}

fn machines_that_are_cut_off_come_back() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    lab.remote_pod("b", "10.180.2.1")?.serve(&[Port::tcp(80)])?;
    assert_eq!(lab.client().tcp("10.180.2.1:80")?.by(), Some("b"));
    lab.cut_off(lab.remote())?;
    let cut = lab.client().ask(&Request::new(Protocol::Tcp, "10.180.2.1:80")?.timeout(QUICK))?;
    assert_eq!(cut, Outcome::TimedOut);
    lab.reconnect(lab.remote())?;
    assert_eq!(lab.client().tcp("10.180.2.1:80")?.by(), Some("b"));
    Ok(())
}

/// Set in the process that this scenario kills.
const VICTIM: &str = "SHEAVE_LAB_VICTIM";

fn nothing_outlives_a_killed_process() -> anyhow::Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        return be_killed();
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env(VICTIM, "1").stdout(Stdio::piped());
    let mut victim = Lab::new()?.node().spawn(command)?;
    let mut out = std::io::BufReader::new(victim.child().stdout.take().context("a pipe")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line)?;
    let (sleeper, namespaces) = line.trim().split_once(' ').with_context(|| format!("`{line}`"))?;
    ensure!(is_running(sleeper)?, "the sleeper sleeps");
    ensure!(namespaces.split(' ').all(|namespace| in_use().contains(namespace)), "{namespaces}: {:?}", in_use());
    victim.signal(nix::sys::signal::Signal::SIGKILL)?;
    victim.wait(PATIENT)?;
    let deadline = Instant::now() + PATIENT;
    // The kernel's signal to the sleeper, and its end, have no event that a stranger could await.
    while is_running(sleeper)? || namespaces.split(' ').any(|namespace| in_use().contains(namespace)) {
        ensure!(Instant::now() < deadline, "{sleeper} or one of {namespaces} is still there");
        std::thread::yield_now();
    }
    Ok(())
}

fn be_killed() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (a, b) = (lab.pod("a", "10.180.0.1")?, lab.remote_pod("b", "10.180.2.1")?);
    b.serve(&[Port::tcp(80)])?;
    let mut command = Command::new("sleep");
    command.arg("1000");
    let sleeper = a.spawn(command)?;
    let own = |host: &sheave_lab::Namespace| Ok::<_, anyhow::Error>(host.run(|| fs::read_link("/proc/thread-self/ns/net"))??);
    let line = format!("{} {} {}\n", sleeper.id(), own(&a)?.display(), own(&b)?.display());
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    loop {
        std::thread::park();
    }
}

/// Also what has left for a session of its own. And a contained process finds itself in `/proc`.
fn what_a_contained_process_starts_ends_with_it() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut command = Command::new("sh");
    command.args(["-c", "setsid sleep 1000 & (sleep 1000 &) ; cat /proc/$$/comm; exec sleep 1000"]).stdout(Stdio::piped());
    let mut first = lab.node().spawn_contained(command)?;
    let mut out = std::io::BufReader::new(first.child().stdout.take().context("a pipe")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line)?;
    ensure!(line.trim() == "sh", "`{line}`");
    let own = fs::read_link(format!("/proc/{}/ns/pid", first.id()))?;
    ensure!(own != fs::read_link("/proc/self/ns/pid")?, "{}", own.display());
    let of_it = || {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter(|process| fs::read_link(process.path().join("ns/pid")).is_ok_and(|namespace| namespace == own)).count()
    };
    ensure!(of_it() >= 3, "itself and two others: {}", of_it());
    drop(first);
    ensure!(of_it() == 0, "{} have outlived it", of_it());
    Ok(())
}

/// Whether a process exists and is no zombie.
fn is_running(id: &str) -> anyhow::Result<bool> {
    match fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => Ok(!stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The network namespaces that threads of any process are in.
fn in_use() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    let links = tasks.flatten().flatten().filter_map(|task| fs::read_link(task.path().join("ns/net")).ok());
    links.map(|link| link.display().to_string()).collect()
}
