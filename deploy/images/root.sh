#!/bin/sh
# root.sh PROGRAM FOLDER: makes FOLDER what an image of a program is: the program, the libraries that it is linked with,
# authorities of certificates, and a user that is not root. No shell, no packages. A build of an image runs it, and so does
# build.sh beside it.
set -eu
program=$1 root=$2

mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
# Lines of functions in backtraces stay; the rest of what debuggers read goes.
objcopy --strip-debug "$program" "$root/usr/bin/$(basename "$program")"
chmod 755 "$root/usr/bin/$(basename "$program")"
# The loader is named where programs look for it, libraries where it does.
ldd "$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo "nonroot:x:65532:65532::/:/sbin/nologin" >"$root/etc/passwd"
echo "nonroot:x:65532:" >"$root/etc/group"
echo "hosts: files dns" >"$root/etc/nsswitch.conf"
