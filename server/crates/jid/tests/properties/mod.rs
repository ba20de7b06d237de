//! What holds for any text at all. The property tests and the fuzz targets call this.

use cirrus_jid::{BareJid, Jid, MAX_PART};

/// Parses `text` and asserts what must hold of what comes out.
pub(crate) fn any_text(text: &str) {
    let Ok(jid) = Jid::parse(text) else { return };

    // The text is its own normal form.
    let again = Jid::parse(jid.as_str());
    assert_eq!(Ok(&jid), again.as_ref());
    let Ok(again) = again else { return };
    assert_eq!(
        (jid.local(), jid.host(), jid.resource()),
        (again.local(), again.host(), again.resource())
    );

    // It is made of its parts, and of nothing else.
    let mut joined = String::new();
    if let Some(local) = jid.local() {
        joined = format!("{local}@");
    }
    joined.push_str(jid.host());
    if let Some(resource) = jid.resource() {
        joined.push('/');
        joined.push_str(resource);
    }
    assert_eq!(joined, jid.as_str());
    for part in [jid.local(), Some(jid.host()), jid.resource()]
        .into_iter()
        .flatten()
    {
        assert!((1..=MAX_PART).contains(&part.len()), "{part:?}");
        assert!(
            !part
                .chars()
                .any(|c| c.is_control() || c == '\u{FFFE}' || c == '\u{FFFF}')
        );
    }
    let account = jid.local().unwrap_or_default();
    assert!(!account.contains(['"', '&', '\'', '/', ':', '<', '>', '@', ' ']));
    assert!(!jid.host().contains(['/', '@', ' ']));

    // Its other forms agree with it.
    let bare = jid.bare();
    assert_eq!(BareJid::parse(bare.as_str()).as_ref(), Ok(&bare));
    assert_eq!(BareJid::new(jid.local(), jid.host()).as_ref(), Ok(&bare));
    assert_eq!(BareJid::from_owner(&bare.owner()).as_ref(), Some(&bare));
    assert_eq!(bare.compact(), bare);
    assert_eq!(cirrus_jid::host(jid.host()).as_deref(), Ok(jid.host()));
    match jid.resource() {
        Some(resource) => assert_eq!(Jid::with_resource(&bare, resource).as_ref(), Ok(&jid)),
        None => assert_eq!(Jid::from(bare), jid),
    }
}
