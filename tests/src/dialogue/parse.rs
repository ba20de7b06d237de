//! Reads a dialogue file.

use std::collections::BTreeMap;
use std::iter::Peekable;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{Action, Deed, Dialogue, Expected, Role, Step};
use crate::client::Identity;
use crate::xml::{self, STREAM};

/// The prefix of the attributes that say how to compare, and its namespace.
pub const HINTS: (&str, &str) = ("test", "urn:cirrus:test");

type Lines<'a> = Peekable<std::vec::IntoIter<(usize, &'a str)>>;

/// Reads a whole file.
///
/// # Errors
/// Names the line that is not understood.
pub fn dialogue(text: &str) -> Result<Dialogue> {
    let numbered: Vec<(usize, &str)> = (1..).zip(text.lines().map(str::trim_end)).collect();
    let mut lines: Lines<'_> = numbered.into_iter().peekable();
    let mut about = Vec::new();
    while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with('#') || line.is_empty())
    {
        about.extend(line.strip_prefix('#').map(str::trim));
    }
    ensure!(
        !about.is_empty(),
        "line 1: say in a comment what the dialogue shows"
    );
    let mut dialogue = Dialogue {
        about: about.join(" "),
        options: BTreeMap::new(),
        clients: Vec::new(),
        steps: Vec::new(),
    };
    head(&mut lines, &mut dialogue)?;
    while let Some((line, text)) = lines.next() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let block = text.ends_with(':').then(|| block(&mut lines));
        let action = action(text.trim_end_matches(':'), block, &dialogue.clients)
            .with_context(|| format!("line {line}: {text}"))?;
        dialogue.steps.push(Step {
            line,
            text: text.to_owned(),
            action,
        });
    }
    ensure!(!dialogue.steps.is_empty(), "a dialogue without steps");
    Ok(dialogue)
}

/// The sections up to the rule of dashes.
fn head(lines: &mut Lines<'_>, dialogue: &mut Dialogue) -> Result<()> {
    for (line, text) in lines.by_ref() {
        let at = || format!("line {line}: {text}");
        if text.starts_with("---") {
            ensure!(
                !dialogue.clients.is_empty(),
                "line {line}: nobody takes part"
            );
            return Ok(());
        } else if text.is_empty() || text.starts_with('#') || text == "[Server]" {
            // Options before the first client are the server's.
        } else if let Some(name) = text.strip_prefix("[Client] ") {
            let identity = Identity::new("nobody@localhost", "")?;
            dialogue.clients.push(Role {
                name: name.to_owned(),
                identity,
                has_account: true,
            });
        } else {
            let (key, value) = text.split_once(':').with_context(at)?;
            let (key, value) = (key.trim(), value.trim());
            match dialogue.clients.last_mut() {
                None => drop(dialogue.options.insert(key.to_owned(), value.to_owned())),
                Some(role) => client_option(role, key, value).with_context(at)?,
            }
        }
    }
    bail!("no rule of dashes between the clients and the steps")
}

fn client_option(role: &mut Role, key: &str, value: &str) -> Result<()> {
    match key {
        "jid" => {
            let Identity {
                password,
                mechanism,
                ..
            } = role.identity.clone();
            role.identity = Identity {
                mechanism,
                ..Identity::new(value, &password)?
            };
        }
        "password" => value.clone_into(&mut role.identity.password),
        "mechanism" => role.identity.mechanism = Some(value.to_owned()),
        "account" => role.has_account = value != "none",
        other => bail!("a client has no option {other:?}"),
    }
    Ok(())
}

/// The indented lines that follow, without their indentation.
fn block(lines: &mut Lines<'_>) -> String {
    let mut taken = Vec::new();
    while let Some((_, line)) =
        lines.next_if(|(_, line)| line.is_empty() || line.starts_with([' ', '\t']))
    {
        taken.push(line.trim());
    }
    taken.join("\n").trim().to_owned()
}

fn action(text: &str, block: Option<String>, clients: &[Role]) -> Result<Action> {
    match text {
        "The server restarts" => return Ok(Action::Restart("TERM")),
        "The server is killed and starts again" => return Ok(Action::Restart("KILL")),
        _ => {}
    }
    if let Some((one, other)) = text
        .strip_suffix(" are friends")
        .and_then(|t| t.split_once(" and "))
    {
        let known = |name: &str| clients.iter().any(|role| role.name == name);
        ensure!(known(one) && known(other), "no clients of these names");
        return Ok(Action::Befriend(one.to_owned(), other.to_owned()));
    }
    // The longest name wins: «Romeo's phone» is not Romeo.
    let named = clients
        .iter()
        .filter_map(|role| Some((role, text.strip_prefix(&role.name)?)));
    let named = named
        .filter(|(_, rest)| rest.starts_with([' ', '\'']))
        .collect::<Vec<_>>();
    let (role, deed) = named
        .into_iter()
        .max_by_key(|(role, _)| role.name.len())
        .ok_or_else(|| anyhow!("no client of that name"))?;
    Ok(Action::Client(
        role.name.clone(),
        self::deed(deed.trim(), block)?,
    ))
}

fn deed(text: &str, block: Option<String>) -> Result<Deed> {
    if let Some(block) = block {
        return Ok(match text {
            "sends" => Deed::Sends(block),
            "receives" => Deed::Receives(expected(&block)?),
            "receives in any order" => Deed::ReceivesInAnyOrder(expected(&block)?),
            other => bail!("no deed {other:?} with a block"),
        });
    }
    if let Some(condition) = text.strip_prefix("'s stream ends with ") {
        return Ok(Deed::StreamEndsWith(condition.to_owned()));
    }
    if let Some(condition) = text.strip_prefix("is refused with ") {
        return Ok(Deed::IsRefused(condition.to_owned()));
    }
    if let Some(count) = text.strip_prefix("is acknowledged up to ") {
        return Ok(Deed::IsAcknowledged(count.parse()?));
    }
    Ok(match text {
        "dials" => Deed::Dials,
        "dials with TLS" => Deed::DialsTls,
        "opens a stream" => Deed::OpensAStream,
        "starts TLS" => Deed::StartsTls,
        "authenticates" => Deed::Authenticates,
        "logs in" => Deed::LogsIn,
        "connects" => Deed::Connects,
        "receives nothing" => Deed::ReceivesNothing,
        "is disconnected" => Deed::IsDisconnected,
        "disconnects" => Deed::Disconnects,
        "breaks off" => Deed::BreaksOff,
        "stops acknowledging" => Deed::StopsAcknowledging,
        other => bail!("no deed {other:?}"),
    })
}

/// What a block expects: a stream header if it starts with one, elements, and the end of the
/// stream if it ends with that.
fn expected(block: &str) -> Result<Vec<Expected>> {
    let mut rest = block;
    let mut found = Vec::new();
    if let Some(header) = rest.strip_prefix("<stream:stream") {
        let (attributes, after) = header
            .split_once('>')
            .ok_or_else(|| anyhow!("no end of tag"))?;
        let text = format!("<stream:stream xmlns:stream='{STREAM}'{attributes}/>");
        let nodes = xml::fragment(&text, &[HINTS])?;
        found.extend(nodes.into_iter().map(Expected::Open));
        rest = after;
    }
    let body = rest.trim_end();
    let (body, closes) = match body.strip_suffix("</stream:stream>") {
        Some(body) => (body, true),
        None => (body, false),
    };
    found.extend(
        xml::fragment(body, &[HINTS])?
            .into_iter()
            .map(Expected::Element),
    );
    found.extend(closes.then_some(Expected::Close));
    ensure!(!found.is_empty(), "an empty block");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# Somebody says something.
# RFC 6121, 5.

[Server]
limits.unauthenticated_seconds: 5

[Client] Romeo
jid: romeo@localhost/orchard
password: wherefore

[Client] Romeo's phone
jid: romeo@localhost
password: wherefore
mechanism: SCRAM-SHA-1
account: none

---------

Romeo connects
Romeo's phone dials
Romeo sends:
    <message to='juliet@localhost'>
      <body>hi</body>
    </message>

# A comment between steps.
Romeo receives:
    <stream:stream test:more='yes'>
    <presence/>
    </stream:stream>
Romeo's stream ends with conflict
The server restarts
";

    #[test]
    fn a_sample_is_understood() {
        let sample = dialogue(SAMPLE).unwrap();
        assert_eq!(sample.about, "Somebody says something. RFC 6121, 5.");
        assert_eq!(sample.options["limits.unauthenticated_seconds"], "5");
        let [romeo, phone] = sample.clients.as_slice() else {
            panic!("{sample:?}")
        };
        assert_eq!(romeo.identity.resource.as_deref(), Some("orchard"));
        assert!(romeo.has_account && !phone.has_account);
        assert_eq!(phone.identity.mechanism.as_deref(), Some("SCRAM-SHA-1"));
        assert_eq!(phone.identity.password, "wherefore");
        let deeds: Vec<&Action> = sample.steps.iter().map(|step| &step.action).collect();
        assert_eq!(deeds.len(), 6);
        assert_eq!(
            *deeds[0],
            Action::Client("Romeo".to_owned(), Deed::Connects)
        );
        assert_eq!(
            *deeds[1],
            Action::Client("Romeo's phone".to_owned(), Deed::Dials)
        );
        let Action::Client(_, Deed::Sends(text)) = deeds[2] else {
            panic!("{deeds:?}")
        };
        assert!(
            text.starts_with("<message") && text.ends_with("</message>"),
            "{text}"
        );
        let Action::Client(_, Deed::Receives(expected)) = deeds[3] else {
            panic!("{deeds:?}")
        };
        assert!(matches!(
            expected.as_slice(),
            [Expected::Open(_), Expected::Element(_), Expected::Close]
        ));
        let ended = Deed::StreamEndsWith("conflict".to_owned());
        assert_eq!(*deeds[4], Action::Client("Romeo".to_owned(), ended));
        assert_eq!(*deeds[5], Action::Restart("TERM"));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (good, bad, line) in [
            ("Romeo connects", "Romeo flies", "line 19"),
            ("Romeo connects", "Tybalt connects", "line 19"),
            ("<presence/>", "<presence>", "line 27"),
            ("password: wherefore\nmech", "pass word\nmech", "line 13"),
        ] {
            let error = dialogue(&SAMPLE.replacen(good, bad, 1)).unwrap_err();
            assert!(format!("{error:#}").contains(line), "{bad}: {error:#}");
        }
        assert!(dialogue("Romeo connects\n").is_err());
    }
}
