#!/usr/bin/env python3
"""sbom.py CARGO_LOCK: prints what is in the image as CycloneDX 1.5 JSON.

Debian's packages are those that dpkg-query lists on this machine. The crates are what cirrus-server
and cirrus-bootstrap reach in Cargo.lock, which includes what only their tests use.
"""

import json
import subprocess
import sys
import tomllib

PROGRAMS = ["cirrus-server", "cirrus-bootstrap"]


def debian_packages():
    fields = "${Package}\\t${Version}\\t${Architecture}\\n"
    listing = subprocess.run(
        ["dpkg-query", "--show", "--showformat", fields], check=True, capture_output=True, text=True
    )
    for line in sorted(listing.stdout.splitlines()):
        name, version, architecture = line.split("\t")
        place = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
        yield {"type": "library", "name": name, "version": version, "purl": place, "bom-ref": place}


def crates(lock):
    """The closure of the programs. A dependency is a name, with its version where there are two."""
    packages = lock["package"]
    by_name = {}
    for package in packages:
        by_name.setdefault(package["name"], {})[package["version"]] = package
    reached, waiting = {}, list(PROGRAMS)
    while waiting:
        name, *version = waiting.pop().split(" ")
        versions = by_name[name]
        package = versions[version[0]] if version else next(iter(versions.values()))
        key = (name, package["version"])
        if key not in reached:
            reached[key] = package
            waiting.extend(package.get("dependencies", []))
    for (name, version), package in sorted(reached.items()):
        kind = "application" if name in PROGRAMS else "library"
        place = f"pkg:cargo/{name}@{version}"
        component = {"type": kind, "name": name, "version": version, "purl": place, "bom-ref": place}
        if checksum := package.get("checksum"):
            component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        yield component


def main():
    with open(sys.argv[1], "rb") as file:
        lock = tomllib.load(file)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "operating-system", "name": "cirrus-image"}},
        "components": [*crates(lock), *debian_packages()],
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
