#!/bin/sh
# install.sh ROOT FILES: installs Cirrus into the root folder ROOT ("/" for this machine). FILES has the
# two programs and what cloud-init/ of the repository has: root/ and part_handler.py. It may be run
# again. Nothing is fetched, unless a package of packages.txt is missing on this machine.
set -eu
root=${1:?ROOT} files=${2:?FILES}
here=$(cd "$(dirname "$0")" && pwd)

if [ "$root" = / ]; then
  wanted=$(sed -e '/^#/d' -e '/^$/d' "$here/packages.txt")
  missing=
  for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
      missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
  fi
fi

for program in cirrus-server cirrus-bootstrap; do
  install -D -m 755 "$files/$program" "$root/usr/local/bin/$program"
  # Programs of another architecture or for a newer C library don't start.
  [ "$root" != / ] || "/usr/local/bin/$program" --version
done
(cd "$files/root" && find . -type f) | while read -r file; do
  install -D -m 644 "$files/root/$file" "$root/$file"
done
# cloud-init loads every module in this folder as a part handler.
install -D -m 644 "$files/part_handler.py" "$root/var/lib/cloud/handlers/cirrus.py"

systemctl --root="$root" --quiet enable cirrus-bootstrap.service cirrus-watch.service \
  systemd-networkd.service systemd-resolved.service systemd-timesyncd.service tmp.mount
# Nothing is updated behind the operator's back: a new version is a new image.
for unit in apt-daily.timer apt-daily-upgrade.timer man-db.timer networking.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
mkdir -p "$root/var/log/journal"
systemd-sysusers --root="$root" cirrus.conf
