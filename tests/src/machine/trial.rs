//! What comes of a form of user-data: one machine that goes on with it, and what is seen of it from
//! outside and on its console.

use std::fmt;

use anyhow::{Context as _, Result};

use super::forms::{Form, Trouble};
use super::guest::Guest;
use super::held::Held;
use super::scene::{self, Scene};
use crate::emulated::metadata::Instance;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The status line, from `ok` or `fail` on.
    pub status: String,
    /// What the group has heard.
    pub hook: String,
    /// The instance's tag, if this bootstrap sets one.
    pub tag: Option<String>,
    /// Tables and buckets that are there.
    pub objects: usize,
    /// Whether there is a configuration for the server.
    pub configured: bool,
    /// Whether the server runs, in systemd's word.
    pub server: String,
    /// What systemd says of the watch for the instance's end.
    pub watch: String,
    /// cloud-init's own word.
    pub cloud_init: String,
    /// Lines of cloud-init's log that warn.
    pub warnings: Vec<String>,
    /// Seconds from where the machine goes on to its status line.
    pub seconds: f64,
    /// Everything that the console showed.
    pub console: Vec<String>,
}

/// Lets a machine go on with a form.
///
/// # Errors
/// When it gives no status line or no report: with its console.
pub fn run(scene: &Scene, held: &Held, form: &Form, wall: u64) -> Result<Seen> {
    scene.launch();
    scene.metadata.set_user_data(form.user_data.as_deref());
    let tables = scene.cloud().tables();
    let mut order = format!("date --set=@{wall} >/dev/null");
    match form.trouble {
        Trouble::None => {}
        Trouble::NoPermission => tables.deny("CreateTable"),
        Trouble::WrongClock => {
            tables.look_at_clocks();
            order = format!("date --set=@{} >/dev/null", wall - 365 * 86_400);
        }
        // Whole blocks first, which takes no time, then what is left in pieces.
        Trouble::FullDisk => {
            order += "; fallocate -l $(df -B1 --output=avail / | tail -1) /full; \
                      cat /dev/zero > /rest 2>/dev/null; df / | tail -1";
        }
    }
    let guest = held.go_on(&order)?;
    let watched = watch(&guest);
    let console = guest.console();
    drop(guest);
    // For whoever counts what is there, and for the next one.
    tables.allow();
    let (seconds, line, found) = watched?;
    let status = line.split_once("CIRRUS-BOOT ").unwrap_or_default().1;
    let found = |name: &str| {
        let words = found.split_whitespace();
        let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap_or_default().to_owned()
    };
    let heard = scene.heard().into_iter().map(|(_, result)| result);
    let instance = Instance::default().id;
    Ok(Seen {
        status: status.to_owned(),
        hook: heard.collect::<Vec<_>>().join(" "),
        tag: scene.cloud().services().tag(&instance, "cirrus:boot"),
        objects: scene.cloud().objects().context("what was made")?,
        configured: found("configured") == "yes",
        server: found("server"),
        watch: found("watch"),
        cloud_init: found("cloud-init"),
        warnings: console
            .iter()
            .filter_map(|line| line.split_once("MACHINE cloud-init: "))
            .map(|(_, line)| line.to_owned())
            .collect(),
        seconds,
        console,
    })
}

/// Seconds to the status line, that line, and the one about what was found.
fn watch(guest: &Guest) -> Result<(f64, String, String)> {
    let (seconds, line) = guest.wait_for("CIRRUS-BOOT ")?;
    let (_, found) = guest.wait_for(scene::FOUND)?;
    guest.wait_for(scene::REPORT)?;
    Ok((seconds, line, found))
}

impl Seen {
    /// What is not as it should be.
    #[must_use]
    pub fn faults(&self, form: &Form) -> Vec<String> {
        let good = form.code == "ok";
        let word = if good { "ok" } else { "fail" };
        let mut faults = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                faults.push(what.to_owned());
            }
        };
        let code = format!(" code={} ", form.code);
        must(
            self.status.starts_with(word) && self.status.contains(&code),
            &format!("the status line is not {word}{code}"),
        );
        let shown = self.console.iter().any(|line| line.contains(form.words));
        must(
            shown,
            &format!("the console does not show `{}`", form.words),
        );
        let result = if good { "CONTINUE" } else { "ABANDON" };
        must(self.hook == result, &format!("the hook is not {result}"));
        if let Some(tag) = &self.tag {
            let told = good && tag == "ok" || tag.ends_with(&format!("code={}", form.code));
            must(told, "the tag says something else");
        }
        must(self.configured == good, "the configuration's file");
        let server = if good { "active" } else { "inactive" };
        must(
            self.server == server,
            &format!("the server is not {server}"),
        );
        // Also the instance whose boot has failed can be taken away in good order.
        must(
            self.watch == "active",
            "nobody watches for the instance's end",
        );
        if good {
            must(self.objects == 10, "not ten tables and buckets");
        }
        // Where nothing can be written, nobody is content; of a clock that jumps as well.
        if form.trouble != Trouble::FullDisk {
            must(self.cloud_init == "done", "cloud-init is not done");
            must(self.warnings.is_empty(), "cloud-init warns");
        }
        faults
    }
}

/// A row of a table: status line, hook, tag, tables and buckets, cloud-init, seconds.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut status = self.status.split(" message=").next().unwrap_or_default();
        // The seconds have a column of their own.
        status = status.split(" seconds=").next().unwrap_or_default();
        let tag = self.tag.as_deref().unwrap_or("not built");
        let cloud_init = match self.warnings.len() {
            0 => self.cloud_init.clone(),
            count => format!("{}, warnings: {count}", self.cloud_init),
        };
        write!(
            f,
            "`{status}` | {} | {tag} | {} | {cloud_init} | {:.0}",
            self.hook, self.objects, self.seconds
        )
    }
}
