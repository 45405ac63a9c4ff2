#!/bin/bash
# On a kernel without nf_tables, in a guest started with --bare: every command that needs it ends with 3 (README, "Exit codes")
# and says what is missing in one line.
#
#   tests/vm/no-nftables.sh SHEAVE
sheave=$1
manifests=$(mktemp -d)
failures=0

# refused WHERE COMMAND...: status 3, one line, and it names nf_tables.
refused() {
    local where=$1 said status
    shift
    said=$(timeout 100 "$sheave" "$@" 2>&1)
    status=$?
    if [ "$status" = 3 ] && [ "$(wc -l <<<"$said")" = 1 ] && [[ $said == "sheave: "*CONFIG_NF_TABLES* ]]; then
        echo "$where: sheave $1 ends with 3: $said"
    else
        echo "$where: sheave $1 ended with $status and not with 3 and one line that names CONFIG_NF_TABLES:"
        echo "$said"
        failures=$((failures + 1))
    fi
}

both() {
    if grep -q '^nf_tables ' /proc/modules; then
        echo "this kernel has nf_tables already: nothing can be shown here"
        exit 1
    fi
    refused "$1" run --source "manifests=$manifests" --node-name test-node
    refused "$1" cleanup
}

# Whatever asks the kernel for a module is refused.
echo /bin/false >/proc/sys/kernel/modprobe || exit
both "without netfilter's netlink"
# And for good: this boot is over when the script is.
modprobe nf_conntrack_netlink && echo 1 >/proc/sys/kernel/modules_disabled || exit
both "with netfilter, without nf_tables"
exit "$failures"
