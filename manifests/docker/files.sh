#!/bin/sh
# Lays out the image: a program and exactly the files it needs, in a directory that can be a root file system.
#
#   files.sh BINARY DIRECTORY
#
# The Dockerfile uses it, and a test runs the daemon in such a directory. ELF files are read and not run (ldd would run them), so that
# the program may be for another architecture; its libraries are looked for where Debian, or another distribution, has them.
set -eu
binary=$1
root=$2

case $(LC_ALL=C readelf -h "$binary" | sed -n 's/^ *Machine: *//p') in
  *X86-64*) triplet=x86_64-linux-gnu ;;
  *AArch64*) triplet=aarch64-linux-gnu ;;
  *) echo "$binary: neither x86-64 nor AArch64" >&2; exit 1 ;;
esac

# The path of a shared library.
library() {
  for directory in "/lib/$triplet" "/usr/lib/$triplet" "/usr/$triplet/lib" /lib64 /usr/lib64; do
    if [ -e "$directory/$1" ]; then echo "$directory/$1"; return; fi
  done
  echo "$1, which $binary needs, is in no directory for $triplet" >&2
  exit 1
}

# Copies what a file is linked with into the dynamic linker's default directory, and what that is linked with.
libraries() {
  for name in $(LC_ALL=C readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p'); do
    [ "$name" != "${interpreter##*/}" ] && [ ! -e "$root/lib/$triplet/$name" ] || continue
    found=$(library "$name")
    install -m 755 -D "$found" "$root/lib/$triplet/$name"
    libraries "$found"
  done
}

interpreter=$(LC_ALL=C readelf -l "$binary" | sed -n 's/.*program interpreter: \(.*\)\]$/\1/p')
install -m 755 -D "$binary" "$root/usr/bin/sheave"
install -m 755 -D "$(library "${interpreter##*/}")" "$root$interpreter"
libraries "$binary"

# glibc's own default would ask DNS first, even for what /etc/hosts knows.
mkdir -p "$root/etc"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

# For an API server whose certificate is a public one: a kubeconfig need not name an authority.
certificates=/etc/ssl/certs/ca-certificates.crt
install -m 644 -D "$certificates" "$root$certificates"
