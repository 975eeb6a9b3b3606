#!/bin/sh
# Makes the root of an image that holds Python and nothing that it does not need: packages of Debian are unpacked, not installed,
# so there is neither a shell nor a package manager. What is in it is said in /var/lib/dpkg/status.d, as scanners read it.
#
#   root.sh FOLDER
set -eu
packages="base-files ca-certificates libbz2-1.0 libc6 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal libpython3.11-stdlib
libssl3 libstdc++6 libuuid1 media-types python3.11-minimal tini zlib1g"
root=$1
work=$(mktemp -d)
mkdir -p "$root/var/lib/dpkg/status.d" "$root/etc/ssl/certs" "$root/home/scalepilot" "$root/policies" "$root/tmp" \
  "$root/var/lib/scalepilot"
apt-get update
cd "$work"
# shellcheck disable=SC2086 # several words
apt-get download $packages
for file in *.deb; do
  dpkg-deb --extract "$file" "$root"
  dpkg-deb --field "$file" > "$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$file" Package)"
done
cd /
rm -rf "$work" /var/lib/apt/lists/*
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
ln -sf python3.11 "$root/usr/bin/python3"
# Locales, documentation and character sets of the C library; Python has its own.
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/lintian "$root"/usr/share/bash-completion \
  "$root"/usr/share/base-files "$root"/usr/share/ca-certificates "$root"/usr/share/gcc "$root"/usr/bin/tini-static \
  "$root"/usr/lib/*/gconv "$root"/usr/lib/*/audit "$root"/etc/update-motd.d
# What no program here runs.
for module in distutils ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo; do
  rm -rf "$root/usr/lib/python3.11/$module"
done
# Compiled here: nobody can write it later.
python3 -m compileall -q -j 0 "$root/usr/lib/python3.11" -s "$root"
echo "root:x:0:0:root:/root:/sbin/nologin
scalepilot:x:1000:1000::/home/scalepilot:/sbin/nologin" > "$root/etc/passwd"
echo "root:x:0:
scalepilot:x:1000:" > "$root/etc/group"
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
chown 1000:1000 "$root/home/scalepilot" "$root/policies" "$root/var/lib/scalepilot"
chmod 1777 "$root/tmp"
