#!/bin/bash
# Runs programs under Debian's 6.1 kernel, in qemu: the kernel with IPVS, SCTP, bonding, VLANs, dummy devices and netem, and the
# second kernel for everything else.
#
#   tests/vm/run.sh [--limit SECONDS] [--bare] PROGRAM [ARGUMENT...]
#
# --bare: no modules are loaded beforehand, for what has to be shown on a kernel that lacks them.
# The guest sees the host's file system (9p, read-only under overlays), so what was built here runs there as it is; only
# target/vm is written through. The exit status is the program's. Emulated without KVM: give it correctness, not speed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
kernels=$root/vmkernel                 # ignored by git; kept between runs
tools=$root/target/vm/tools            # a Python environment with virtme-ng
limit=900

say() { echo "vm: $*" >&2; }
fail() { say "$*"; exit 2; }

bare=
while :; do
    case ${1:-} in
        --limit)
            [[ ${2:-} =~ ^[0-9]+$ ]] || fail "--limit wants a number of seconds"
            limit=$2
            shift 2 ;;
        --bare)
            bare=--bare
            shift ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || fail "usage: $0 [--limit SECONDS] [--bare] PROGRAM [ARGUMENT...]"

# Installs a Debian package where what it provides is missing; a program, or a test of the caller's.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || "$root/scripts/need" "$package" >&2 || exit 2
}

need qemu-system-x86 command -v qemu-system-x86_64
need kmod command -v modprobe
need busybox-static command -v busybox # virtme-ng builds an initramfs with it, as 9p is a module in Debian's kernel
need file command -v file              # and asks it whether that is linked statically

if [ ! -x "$tools/bin/vng" ]; then
    # Debian has python3 without what makes an environment.
    need python3-venv python3 -c 'import ensurepip'
    say "installing virtme-ng"
    python3 -m venv "$tools" || fail "could not make a Python environment"
    "$tools/bin/pip" install --quiet --disable-pip-version-check 'virtme-ng==1.42' || fail "could not get virtme-ng: is there a network?"
fi

shopt -s nullglob
images=("$kernels"/boot/vmlinuz-6.1.0-*-amd64)
if [ ${#images[@]} = 0 ]; then
    [ "$(apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-amd64$')" ] || { [ "$(id -u)" = 0 ] && apt-get update -qq; } || true
    package=$(apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-amd64$' | cut -d' ' -f1 | sort -V | tail -n1)
    [ -n "$package" ] || fail "apt knows no linux-image-6.1.0-NN-amd64: run apt-get update, on Debian 12 or with its sources"
    say "getting $package"
    mkdir -p "$kernels"
    download=$(mktemp -d "$kernels/download.XXXXXX")
    (cd "$download" && apt-get download "$package" >/dev/null 2>&1) || fail "could not download $package: is there a network?"
    dpkg -x "$download"/*.deb "$download/tree"
    # lib/modules must stand beside boot/; both appear at once, so a broken download is never taken for a kernel.
    mv "$download/tree/lib" "$kernels/lib"
    mv "$download/tree/boot" "$kernels/boot"
    rm -r "$download"
    images=("$kernels"/boot/vmlinuz-6.1.0-*-amd64)
fi
image=${images[-1]}

work=$(mktemp -d "$root/target/vm/run.XXXXXX")
follower= guest=
# However it ends: no guest and no directory stays. Nothing here may fail, or its status would be the script's.
finish() {
    # shellcheck disable=SC2086 # empty, or one number
    kill $guest $follower 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
printf '%q ' "$@" >"$work/command"
printf '%s\n' "$PWD" >"$work/directory"
export -p | grep -E '^declare -x (SHEAVE_|RUST_)' >"$work/environment" || true
: >"$work/output"

say "booting ${image##*/} (limit $limit s)"
begin=$SECONDS
# The output is followed in its file: the console's loses lines and adds the kernel's.
tail -n +1 -f "$work/output" &
follower=$!
# In the background, as a shell answers no signal while it waits for a program before it; `timeout` passes ours on to its group.
PATH=$tools/bin:$PATH timeout --kill-after=5 "$limit" \
    vng --run "$image" --user root --memory 2G --cpus 2 --force-9p --disable-kvm --rwdir="$work" --verbose \
    -- "$root/tests/vm/guest.sh $work $bare" >"$work/console" 2>&1 </dev/null &
guest=$!
wait "$guest" || booted=$?
guest=
sleep 1.1                              # tail looks at a file without inotify, as on 9p, once a second
kill "$follower" 2>/dev/null && wait "$follower" 2>/dev/null || true
follower=
say "$((SECONDS - begin)) s in all; guest: $(tr '\n' ' ' <"$work/times" 2>/dev/null || echo 'did not come up')"

if [ ! -s "$work/status" ]; then
    say "the guest left no exit status (vng: ${booted:-0}, 124 means the limit); the end of its console:"
    tail -n 30 "$work/console" >&2
    exit 124
fi
exit "$(cat "$work/status")"
