#!/bin/bash
# What the guest does: load modules (there is no udev, and a namespace may not load any), run the command, say how it ended.
# The first argument is the directory that both sides write to; with --bare after it, no module is loaded.
work=$1 bare=${2:-}
uptime() { cut -d' ' -f1 /proc/uptime; }
echo "booted at $(uptime)" >"$work/times"

modules=(nf_tables nft_ct nft_masq nft_nat nft_redir nft_reject_inet nft_chain_nat nft_numgen nft_hash nft_fib_inet \
    nft_limit nf_conntrack nf_conntrack_netlink nfnetlink af_packet veth bridge br_netfilter sctp ip_vs ip_vs_rr ip_vs_sh \
    ip_vs_wrr ip_vs_lc xt_ipvs dummy bonding 8021q sch_netem sch_ingress cls_bpf tun)
[ "$bare" = --bare ] && modules=()
for module in "${modules[@]}"; do
    modprobe "$module" 2>/dev/null || echo "vm: no module $module" >>"$work/output"
done
echo "modules at $(uptime)" >>"$work/times"

# Emulation is slow; scenarios wait longer for the same.
export SHEAVE_TEST_PATIENCE=${SHEAVE_TEST_PATIENCE:-10}
. "$work/environment"
cd "$(cat "$work/directory")" || exit 1
eval "$(cat "$work/command")" >>"$work/output" 2>&1
status=$?
echo "done at $(uptime)" >>"$work/times"
# Renamed into place: a status is there whole or not at all.
echo "$status" >"$work/status.part" && sync && mv "$work/status.part" "$work/status"
