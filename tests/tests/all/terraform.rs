//! The user-data that the Terraform module renders is what the programs read.
//!
//! The module's own tests hold its output equal to the files in `terraform/tests/user-data`.

use std::process::Command;

use cirrus_tests::process::binary;

#[test]
fn every_rendered_user_data_is_understood() {
    let folder = xtask::root().join("terraform/tests/user-data");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let output = Command::new(binary("cirrus-bootstrap").unwrap())
            .args(["check", "--no-metadata", "--user-data"])
            .arg(format!("@{}", path.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", path.display());
        assert!(
            said.contains("CIRRUS-BOOT ok"),
            "{}: {said}",
            path.display()
        );
        assert!(text.len() < 1024, "{}: not small", path.display());
        seen += 1;
    }
    assert_eq!(seen, 4);
}
