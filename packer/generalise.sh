#!/bin/sh
# generalise.sh ROOT: what belongs to one machine is taken away, so that the image has never booted.
set -eu
root=${1:?ROOT}

if [ "$root" = / ]; then
  cloud-init clean --logs
  # It takes the part handler away, too.
  install -D -m 644 /tmp/cirrus/part_handler.py /var/lib/cloud/handlers/cirrus.py
  apt-get clean
fi
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_* "$root/var/lib/systemd/random-seed"
rm -f "$root/etc/cirrus/cirrus.yaml" "$root"/etc/netplan/50-cloud-init.yaml
rm -f "$root"/etc/network/interfaces.d/50-cloud-init "$root"/var/lib/dhcp/*
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/journal/*
for home in "$root/root" "$root"/home/*; do
  rm -f "$home/.ssh/authorized_keys" "$home/.bash_history"
done
# No account has a password. Keys come with the instance.
sed -i -E 's/^([^:]+):[^:]*:/\1:*:/' "$root/etc/shadow"
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# The name comes from the instance; a program that asks before gets an answer.
echo localhost > "$root/etc/hostname"
sync
