//! The image's recipe, as far as it can be checked without building it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Both builders, for both architectures, with everything that the template names in place.
#[test]
fn packers_template_is_valid_for_both_builders() {
    let installed = Command::new("packer").arg("version").output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no packer on this machine, and it could not be installed");
        return;
    }
    let folder = TempDir::with_prefix("cirrus-packer-").unwrap();
    for name in ["cirrus-server", "cirrus-bootstrap", "base.raw"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::create_dir(folder.path().join("seed")).unwrap();
    let key = folder.path().join("key");
    let keygen = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(keygen.unwrap().success());
    for architecture in ["amd64", "arm64"] {
        let given = [
            ("architecture", architecture.to_owned()),
            ("binaries", folder.path().display().to_string()),
            (
                "base_image",
                folder.path().join("base.raw").display().to_string(),
            ),
            ("seed", folder.path().join("seed").display().to_string()),
            ("base_key", key.display().to_string()),
            // A build may have left one where the next one goes.
            ("output", folder.path().join("out").display().to_string()),
            (
                "copy_regions",
                "[\"eu-central-1\", \"us-east-1\"]".to_owned(),
            ),
        ];
        let mut validate = Command::new("packer");
        validate.arg("validate").current_dir(workspace());
        for (name, value) in given {
            validate.arg("-var").arg(format!("{name}={value}"));
        }
        let output = validate.arg("packer/cirrus.pkr.hcl").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{architecture}: {said}");
    }
}

/// The bill of materials names the programs with what they are made of, and Debian's packages.
#[test]
fn the_bill_of_materials_names_programs_crates_and_packages() {
    let output = Command::new("python3")
        .arg("packer/sbom.py")
        .arg("Cargo.lock")
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bill: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&bill["bomFormat"], &bill["specVersion"]),
        (&"CycloneDX".into(), &"1.5".into())
    );
    let components = bill["components"].as_array().unwrap();
    let has = |place: &str| {
        let purl = |c: &serde_json::Value| c["purl"].as_str().unwrap().starts_with(place);
        components.iter().any(purl)
    };
    for place in [
        "pkg:cargo/cirrus-server@",
        "pkg:cargo/cirrus-bootstrap@",
        "pkg:cargo/rustls@",
        "pkg:deb/debian/libc6@",
    ] {
        assert!(has(place), "{place}");
    }
}

/// No unit is opened further than docs/IMAGE.md says, by systemd's own figures.
#[test]
fn units_are_as_closed_as_documented() {
    let document = fs::read_to_string(workspace().join("docs/IMAGE.md")).unwrap();
    let folder = workspace().join("cloud-init/root/usr/lib/systemd/system");
    for (unit, of) in [
        ("cirrus-server", "server"),
        ("cirrus-bootstrap", "bootstrap"),
        ("cirrus-watch", "watch"),
    ] {
        let output = Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true"])
            .arg(folder.join(format!("{unit}.service")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said
            .lines()
            .rfind(|line| line.contains("Overall exposure level"));
        let (_, level) = last.and_then(|line| line.split_once(".service: ")).unwrap();
        let level = level.split(' ').next().unwrap();
        let words = format!("{level} for the {of}");
        assert!(
            document
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(&words),
            "docs/IMAGE.md does not say `{words}`:\n{said}"
        );
    }
}
