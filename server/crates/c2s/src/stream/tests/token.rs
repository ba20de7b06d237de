//! Login with a token, and tokens for the next one (XEP-0484).

use cirrus_accounts::TokenLogin;
use cirrus_sasl::token::present;
use cirrus_sasl::{Token, TokenMechanism, carrier};

use super::*;

const PHONE: &str = "<user-agent id='d4565fa7'/>";
const FAST: &str = "<fast xmlns='urn:xmpp:fast:0'/>";

fn token() -> Token {
    Token::derive(&[7; 32], &[b"juliet"])
}

fn issued() -> IssuedToken {
    IssuedToken {
        token: token(),
        expires_ms: 1_800_000_000_000,
    }
}

/// `<authenticate/>` of juliet with a token, with this besides.
fn show(mechanism: &str, more: &str) -> String {
    let (message, _) = present("juliet", token().expose(), &[]);
    let message = carrier::encode(&message);
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
         <initial-response>{message}</initial-response>{more}</authenticate>"
    )
}

fn right(issued: Option<IssuedToken>) -> TokenOutcome {
    TokenOutcome::Right(Box::new(TokenLogin {
        account: cirrus_accounts::Account::new(&juliet().bare(), Vec::new(), 0, 0),
        answer: b"answer".to_vec(),
        issued,
    }))
}

fn secure() -> Talk {
    let mut talk = Talk::new();
    talk.secure();
    talk
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='urn:xmpp:sasl:2'><{condition} ")
}

impl Talk {
    fn shown(&mut self) -> TokenUse {
        let mut effects = self.effects();
        match effects.pop() {
            Some(Effect::VerifyToken { user, shown }) if effects.is_empty() => {
                assert_eq!(user, juliet().bare());
                *shown
            }
            other => panic!("{other:?} after {effects:?}"),
        }
    }
}

#[test]
fn what_a_connection_can_do_is_offered() {
    let offer = |settings, bindings| {
        let mut talk = Talk::with(settings);
        talk.send(HEADER);
        talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        talk.on(Event::Secured(Secured {
            bindings,
            ..secured()
        }));
        talk.send(HEADER)
    };
    let read = offer(settings(), secured().bindings);
    let all = "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism>\
        <mechanism>HT-SHA-256-ENDP</mechanism><mechanism>HT-SHA-256-NONE</mechanism></fast>\
        </inline></authentication>";
    assert!(read.contains(all), "{read}");
    let read = offer(settings(), Vec::new());
    let unbound = "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>";
    assert!(read.contains(unbound), "{read}");
    let mut without = settings();
    without.features.fast = false;
    assert!(!offer(without, secured().bindings).contains("HT-"));
}

#[test]
fn a_token_logs_in_with_everything_in_one_message() {
    let mut talk = secure();
    let bind = "<bind xmlns='urn:xmpp:bind:0'><tag>phone</tag></bind>";
    let fast = "<fast xmlns='urn:xmpp:fast:0' count='7' invalidate='true'/>";
    talk.send(&show("HT-SHA-256-NONE", &format!("{PHONE}{bind}{fast}")));
    assert!(!talk.stream.wants_frames());
    let shown = talk.shown();
    assert_eq!(&*shown.client, "d4565fa7");
    assert!(shown.invalidate && shown.request.is_none() && shown.proof.is_of(&token()));
    assert_eq!(talk.on(Event::TokenVerified(Ok(right(Some(issued()))))), "");
    let effects = talk.effects();
    let [.., Effect::Home(PipeEvent::Bind { login, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(login.mechanism, "HT-SHA-256-NONE");
    let sm = None;
    let read = talk.home(PipeOut::Bound {
        jid: juliet(),
        sm,
        archive: None,
    });
    let expected = "<success xmlns='urn:xmpp:sasl:2'><additional-data>YW5zd2Vy</additional-data>\
        <authorization-identifier>juliet@example.com/phone</authorization-identifier>\
        <bound xmlns='urn:xmpp:bind:0'/><token xmlns='urn:xmpp:fast:0' \
        expiry='2027-01-15T08:00:00.000Z' token='";
    assert!(read.starts_with(expected), "{read}");
    assert!(read.contains(token().expose()));
}

#[test]
fn a_client_that_logs_in_with_its_password_gets_a_token_for_the_next_time() {
    let request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>";
    for issued in [Some(issued()), None] {
        let mut talk = secure();
        let data = carrier::encode(&client::plain("", "juliet", &password("secret")));
        talk.send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
             <initial-response>{data}</initial-response>{PHONE}{request}</authenticate>"
        ));
        talk.effects();
        assert_eq!(talk.on(Event::Verified(Ok(Some(account())))), "");
        let effects = talk.effects();
        let [Effect::Authenticated, Effect::IssueToken { asked, .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(*asked.client, *"d4565fa7");
        assert_eq!(asked.mechanism, TokenMechanism::Exporter);
        let has = issued.is_some();
        let read = talk.on(Event::TokenIssued(issued));
        assert!(read.starts_with("<success"), "{read}");
        assert_eq!(
            read.contains("<token xmlns='urn:xmpp:fast:0'"),
            has,
            "{read}"
        );
    }
}

#[test]
fn a_token_that_does_not_serve_leaves_the_password() {
    let mut disabled = right(None);
    if let TokenOutcome::Right(login) = &mut disabled {
        login.account.disabled = true;
    }
    for (outcome, condition) in [
        (Ok(TokenOutcome::Wrong), "not-authorized"),
        (Ok(TokenOutcome::Expired), "credentials-expired"),
        (Ok(disabled), "account-disabled"),
        (Err(Unavailable), "temporary-auth-failure"),
    ] {
        let mut talk = secure();
        talk.send(&show("HT-SHA-256-NONE", &format!("{PHONE}{FAST}")));
        talk.shown();
        let counts = outcome.is_ok();
        let read = talk.on(Event::TokenVerified(outcome));
        assert!(read.starts_with(&failure(condition)), "{read}");
        let effects = talk.effects();
        // No account counts it: who shows tokens that don't serve keeps nobody out.
        let counted = matches!(&effects[..], [Effect::LoginFailed { user: None }]);
        assert_eq!(counted, counts, "{effects:?}");
        talk.send(&plain("juliet", "secret"));
        assert!(matches!(&talk.effects()[..], [Effect::Verify { .. }]));
    }
}

#[test]
fn what_is_wrong_is_refused_without_a_look_at_the_account() {
    let no_message = format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'>{PHONE}{FAST}\
         </authenticate>"
    );
    let request = |mechanism: &str| {
        let wish = format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>");
        show("HT-SHA-256-NONE", &format!("{PHONE}{FAST}{wish}"))
    };
    let fast = |attributes: &str| {
        let fast = FAST.replace("/>", &format!(" {attributes}/>"));
        show("HT-SHA-256-NONE", &format!("{PHONE}{fast}"))
    };
    let unnamed = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
        <request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/></authenticate>";
    for (bad, condition) in [
        (show("HT-SHA-256-NONE", PHONE), "malformed-request"),
        (show("HT-SHA-256-NONE", FAST), "malformed-request"),
        (
            show("HT-SHA-256-UNIQ", &format!("{PHONE}{FAST}")),
            "invalid-mechanism",
        ),
        (no_message, "malformed-request"),
        (fast("count='many'"), "malformed-request"),
        (fast("count='-1'"), "malformed-request"),
        (fast("invalidate='perhaps'"), "malformed-request"),
        (request("PLAIN"), "malformed-request"),
        (request(""), "malformed-request"),
        (unnamed.to_owned(), "malformed-request"),
        (
            show("HT-SHA-256-NONE", &format!("{PHONE}{FAST}")).replace("anVsaWV0", "anVsaWV"),
            "incorrect-encoding",
        ),
    ] {
        let mut talk = secure();
        let read = talk.send(&bad);
        assert!(read.starts_with(&failure(condition)), "{bad}: {read}");
        let effects = talk.effects();
        assert!(
            matches!(&effects[..], [Effect::LoginFailed { .. }]),
            "{effects:?}"
        );
    }
    let mut settings = settings();
    settings.features.fast = false;
    let mut talk = Talk::with(settings);
    talk.secure();
    let read = talk.send(&show("HT-SHA-256-NONE", &format!("{PHONE}{FAST}")));
    assert!(read.starts_with(&failure("invalid-mechanism")), "{read}");
    // The stream says that somebody else logs in.
    let mut talk = Talk::new();
    talk.send(HEADER);
    talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    talk.on(Event::Secured(secured()));
    talk.effects();
    talk.send(&HEADER.replace(" to=", " from='romeo@example.com' to="));
    let read = talk.send(&show("HT-SHA-256-NONE", &format!("{PHONE}{FAST}")));
    assert!(read.starts_with(&failure("invalid-authzid")), "{read}");
    // Not in the old profile.
    let mut talk = secure();
    let (message, _) = present("juliet", token().expose(), &[]);
    let message = carrier::encode(&message);
    let read = talk.send(&format!("{AUTH}'HT-SHA-256-NONE'>{message}</auth>"));
    assert!(read.contains("<invalid-mechanism/>"), "{read}");
}
