//! Plans as JSON, with invented answers of AWS: what `terraform test` prints when it is asked to be
//! verbose.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{INIT, Terraform};
use crate::tools;

/// The cluster's module, and the whole.
const CLUSTER: &str = "cirrus/terraform/modules/cluster";
const WHOLE: &str = "cirrus/terraform";
/// Tests of the cluster's module, whose first part has the variables that every plan needs.
const TESTS: &str = "tests/plan.tftest.hcl";
/// Tests of the examples, whose first part says who answers for AWS.
const EXAMPLES: &str = "tests/examples.tftest.hcl";
/// The one that is made here.
const TEST: &str = "tests/as_asked.tftest.hcl";

/// The plan of the cluster's module with these variables, each with its value as Terraform writes
/// it; `None` where there is no `terraform`. It is made in a folder of this name below
/// `target/terraform`.
///
/// # Errors
/// When Terraform makes no plan.
pub fn plan(name: &str, variables: &[(&str, String)]) -> Result<Option<Value>, String> {
    let mut lines = String::from("  variables {\n");
    for (name, value) in variables {
        // Writing into a String can't fail.
        let _ = writeln!(lines, "    {name} = {value}");
    }
    lines.push_str("  }\n");
    made(name, CLUSTER, TESTS, &lines)
}

/// As [`plan`], of all that `examples/minimal` makes.
///
/// # Errors
/// When Terraform makes no plan.
pub fn minimal(name: &str) -> Result<Option<Value>, String> {
    let module = "  module {\n    source = \"./examples/minimal\"\n  }\n";
    made(name, WHOLE, EXAMPLES, module)
}

/// The plan of a module as its tests plan it, with these lines more.
fn made(name: &str, place: &str, tests: &str, lines: &str) -> Result<Option<Value>, String> {
    if !tools::has(&["terraform", "version"]) {
        return Ok(None);
    }
    let terraform = Terraform::find(&crate::root(), name)?;
    let folder = terraform.work.join(place);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let tests = fs::read_to_string(folder.join(tests)).map_err(failed)?;
    let (head, _) = tests.split_once("\nrun ").unwrap_or_default();
    let test = format!("{head}\nrun \"as_asked\" {{\n  command = plan\n{lines}}}\n");
    fs::write(folder.join(TEST), test).map_err(failed)?;
    output(terraform.command(place, INIT))?;
    let filter = format!("-filter={TEST}");
    let words = ["test", "-json", "-verbose", &filter];
    let said = output(terraform.command(place, &words))?;
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut plans = messages.filter(|message| message["type"] == "test_plan");
    let plan = plans.next().ok_or("terraform has printed no plan")?;
    Ok(Some(plan["test_plan"].clone()))
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("terraform could not be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (said, warned) = (text(&output.stdout), text(&output.stderr));
    Err(format!(
        "terraform ended with {}: {said}{warned}",
        output.status
    ))
}
