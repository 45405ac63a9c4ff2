//! Which figures of which runs are held to what.

use super::*;
use crate::results::Measurement;
use crate::results::tests::example;

/// A whole run of `sync`, of the shape that budgets are for.
fn sync(mix: &str) -> Results {
    let mut run = example();
    run.measurements = vec![Measurement::new("cold sync").at("plane", "nftables").at("mix", mix)];
    run
}

fn compare(other: &str) -> Results {
    let row = |name: &str| {
        let row = Measurement::new("start and changes").at("contender", name).at("changes", 20);
        row.at("services", 5_000).at("endpoints_per_service", 50)
    };
    Results { benchmark: "compare".into(), measurements: vec![row("sheave nftables"), row(other)], ..example() }
}

#[track_caller]
fn ensure_elsewhere(run: &Results, figure: &str, why: &str) {
    assert_eq!(held(run, figure), Held::Elsewhere(format!("the budget is for {why}")));
}

#[test]
fn a_budget_is_for_its_shape_and_no_other() {
    assert_eq!(held(&sync("plain"), "change_p99_ms"), Held::To(AtMost(3.0)));
    assert_eq!(held(&sync("plain"), "rss_mb"), Held::Free);
    let with = |figure: &str, value: f64| {
        let mut run = sync("plain");
        run.figures.insert(figure.into(), value.into());
        run
    };
    for size in [with("services", 5_001.0), with("endpoints_per_service", 49.0), with("services", 20_000.0)] {
        ensure_elsewhere(&size, "start_to_programmed_ms", "5,000 Services × 50 endpoints");
    }
    ensure_elsewhere(&with("services", 9.0), "cold_sync_ms", "5,000 Services × 50 endpoints, or 20,000 Services × 50 endpoints");
    assert_eq!(held(&with("services", 20_000.0), "cold_sync_ms"), Held::To(AtMost(3_000.0)));
    ensure_elsewhere(&with("add_at", 50.0), "service_add_p99_ms", "a Service added at 50,000");
    assert_eq!(held(&with("add_at", 50.0), "change_p99_ms"), Held::To(AtMost(3.0)));
    ensure_elsewhere(&with("changes", 99.0), "change_p99_ms", "at least 100 changes");
    assert_eq!(held(&with("changes", 99.0), "change_p50_ms"), Held::To(AtMost(0.5)));
    assert_eq!(held(&with("changes", 1.0), "start_to_programmed_ms"), Held::To(AtMost(3_000.0)));
    ensure_elsewhere(&Results { interrupted: true, ..sync("plain") }, "cold_sync_ms", "a run that was not cut off");
}

#[test]
fn the_realistic_mix_may_take_twice_as_much_of_everything() {
    for promise in PROMISES.iter().filter(|promise| promise.asked == PLAIN) {
        let AtMost(plain) = promise.bound else { panic!("{}", promise.what) };
        assert_eq!(held(&sync("plain"), promise.figure), Held::To(AtMost(plain)), "{}", promise.what);
        assert_eq!(held(&sync("realistic"), promise.figure), Held::To(AtMost(2.0 * plain)), "{}", promise.what);
    }
}

#[test]
fn kube_proxy_is_compared_with_in_its_nftables_mode_alone() {
    assert_eq!(held(&compare("kube-proxy v1.36.2 nftables"), "programmed_ratio"), Held::To(AtLeast(15.0)));
    for other in ["kube-proxy v1.36.2 iptables", "kube-proxy v1.36.2 ipvs", "nft -f"] {
        ensure_elsewhere(&compare(other), "programmed_ratio", "sheave beside kube-proxy's nftables mode");
    }
}

#[test]
fn a_ratio_to_a_kube_proxy_that_failed_early_is_one_of_chance() {
    let row = |rules: &str, services: u32| Measurement::new("udp_first").at("rules", rules).at("services", services);
    let rows = [row("sheave nftables", 10), row("kube-proxy v1.36.2 nftables", 30_000)];
    let mut run = Results { benchmark: "packets".into(), measurements: rows.into(), ..example() };
    run.figures.insert("rounds".into(), 9.into());
    assert_eq!(held(&run, "first_packet_growth"), Held::To(AtMost(FLAT)));
    for (rounds, judged) in [(None, false), (Some(1), false), (Some(4), false), (Some(5), true)] {
        run.figures.extend(rounds.map(|rounds| ("first_packet_to_kube_proxy_rounds".into(), rounds.into())));
        let held = held(&run, "first_packet_to_kube_proxy");
        assert_eq!(held == Held::To(AtMost(FLAT)), judged, "{rounds:?}: {held:?}");
    }
}

#[test]
fn a_bound_is_kept_up_to_its_last_bit() {
    assert_eq!(AtMost(3.0).verdict(3.0), Verdict::Kept);
    assert_eq!(AtMost(3.0).verdict(3.000_001), Verdict::Missed);
    assert_eq!(AtLeast(15.0).verdict(15.0), Verdict::Kept);
    assert_eq!(AtLeast(15.0).verdict(14.999), Verdict::Missed);
    for bound in [AtMost(3.0), AtLeast(3.0)] {
        assert_eq!(bound.verdict(f64::NAN), Verdict::Missed, "what is no number keeps no bound");
    }
}

#[test]
fn memory_has_a_figure_where_it_has_a_budget() {
    assert_eq!([250_000, 1_000_000, 10].map(of_memory), [Some("peak_rss_mb"), Some("million_peak_rss_mb"), None]);
}
