//! README's first steps on AWS, run as they are written.

use std::fs;
use std::path::Path;

use super::Terraform;

/// Lines that a first user types.
const LINES: usize = 10;
/// The heading in README.md.
const HEADING: &str = "## On AWS";

/// What the heading's section says to write into `main.tf` and to type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuickStart {
    /// The whole of `main.tf`.
    pub(super) configuration: String,
    /// The commands.
    pub(super) commands: Vec<String>,
}

/// Writes `main.tf` into an empty folder beside the clone, initialises and plans it with invented
/// answers of AWS.
pub(super) fn check(root: &Path, terraform: &Terraform) -> Result<String, String> {
    let start = read(root)?;
    write(&start, &terraform.work.join("chat"))?;
    let test = "mock_provider \"aws\" {\n  source = \"../cirrus/terraform/tests/mocks\"\n}\n\
                run \"as_written\" {\n  command = apply\n  assert {\n    \
                condition = length(output.dns_records) == 2\n    \
                error_message = \"It tells the records to set.\"\n  }\n  assert {\n    \
                condition = module.cirrus.user_data == \
                file(\"../cirrus/terraform/tests/user-data/one-domain.txt\")\n    \
                error_message = \"Its nodes get what the emulated machine boots with.\"\n  }\n}\n";
    let path = terraform.work.join("chat/as_written.tftest.hcl");
    fs::write(&path, test).map_err(|error| format!("{}: {error}", path.display()))?;
    terraform.step("chat", &["init", "-input=false"])?;
    terraform.step("chat", &["validate"])?;
    terraform.step("chat", &["test"])
}

/// Writes the configuration into a new, empty folder.
pub(super) fn write(start: &QuickStart, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    fs::write(folder.join("main.tf"), &start.configuration).map_err(failed)
}

/// Reads the section of README.md.
pub(super) fn read(root: &Path) -> Result<QuickStart, String> {
    let text = fs::read_to_string(root.join("README.md")).map_err(|e| format!("README.md: {e}"))?;
    let start = parse(&text).ok_or_else(|| format!("README.md has no section `{HEADING}`"))?;
    let lines = start.configuration.lines().count() + start.commands.len();
    if lines > LINES {
        return Err(format!(
            "README.md: {lines} lines to start with, {LINES} at most"
        ));
    }
    Ok(start)
}

fn parse(text: &str) -> Option<QuickStart> {
    let section = text.split_once(&format!("{HEADING}\n"))?.1;
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let block = |language: &str| {
        let rest = section.split_once(&format!("```{language}\n"))?.1;
        Some(rest.split_once("```")?.0.to_owned())
    };
    let commands = block("sh")?.lines().map(str::to_owned).collect();
    let configuration = block("hcl")?;
    Some(QuickStart {
        configuration,
        commands,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_s_blocks_are_found() {
        let text = "## On AWS\n\nwords\n\n```hcl\na {}\nb {}\n```\n\n```sh\nc && d\n```\n\n## E\n";
        let expected = QuickStart {
            configuration: "a {}\nb {}\n".to_owned(),
            commands: vec!["c && d".to_owned()],
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(
            parse("## On AWS\n\n## Else\n```hcl\n```\n```sh\n```\n"),
            None
        );
    }

    #[test]
    fn the_quick_start_is_short_and_whole() {
        let start = read(&crate::root()).unwrap();
        assert!(
            start.configuration.contains("provider \"aws\""),
            "{start:?}"
        );
        assert_eq!(start.commands, ["terraform init && terraform apply"]);
    }
}
