//! How a boot can end: one name and one exit code for each class of outcome.

use std::fmt;

/// Declares the outcomes: variant, name in the status line, exit code, meaning.
macro_rules! codes {
    ($($variant:ident = $name:literal, $exit:literal, $doc:literal;)+) => {
        /// The class of an outcome. The table of all is in `--help` and in docs/BOOT.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $doc] $variant,)+
        }

        impl Code {
            /// Every outcome, by exit code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in the status line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The exit code of the process.
            pub const fn exit(self) -> u8 {
                match self { $(Self::$variant => $exit,)+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

codes! {
    Ok = "ok", 0,
        "The command did what it says; for `run`, an XMPP stream opened.";
    Usage = "usage", 2,
        "The command line is wrong.";
    UserDataAbsent = "user-data-absent", 10,
        "There is no user-data: none given, none in the metadata.";
    UserDataUnreadable = "user-data-unreadable", 11,
        "The file given as user-data cannot be read.";
    UserDataOversized = "user-data-oversized", 12,
        "The user-data has more than 16384 bytes.";
    UserDataGzip = "user-data-gzip", 13,
        "The user-data is broken gzip, or inflates without bound.";
    UserDataBinary = "user-data-binary", 14,
        "The user-data is not text.";
    UserDataEmpty = "user-data-empty", 15,
        "The user-data has nothing in it.";
    UserDataUnsupported = "user-data-unsupported", 16,
        "The user-data has a form that this version cannot read.";
    UserDataForeign = "user-data-foreign", 17,
        "The user-data is for another program, such as cloud-init.";
    UserDataUnrecognised = "user-data-unrecognised", 18,
        "The user-data has no form that Cirrus knows.";
    UserDataMime = "user-data-mime", 19,
        "The user-data is a MIME multipart that is broken, or has several parts for Cirrus.";
    ConfigInvalid = "config-invalid", 20,
        "The configuration has faults; each is named with its place.";
    ConfigImpossible = "config-impossible", 21,
        "The configuration is sound but cannot work here.";
    ReferenceAbsent = "reference-absent", 22,
        "What a reference names does not exist.";
    ReferenceHash = "reference-hash", 23,
        "What a reference names has another SHA-256 than the reference says.";
    ReferenceUnusable = "reference-unusable", 24,
        "What a reference names is too large, or not what belongs there.";
    MetadataUnreachable = "metadata-unreachable", 30,
        "The instance metadata service does not answer.";
    MetadataMalformed = "metadata-malformed", 31,
        "The instance metadata service answers nonsense.";
    AwsRefused = "aws-refused", 40,
        "AWS refused a call: permissions, or a limit of the account.";
    AwsUnavailable = "aws-unavailable", 41,
        "AWS did not answer in time, or only with throttling and errors.";
    BucketForeign = "bucket-foreign", 42,
        "A bucket of this name belongs to another account.";
    TableIncompatible = "table-incompatible", 43,
        "A table exists with other keys; it cannot hold our data.";
    FolderUnusable = "folder-unusable", 44,
        "The data folder cannot be made or written.";
    DiskFull = "disk-full", 45,
        "The disk has no room left.";
    ClockWrong = "clock-wrong", 46,
        "The clock of this machine is wrong, so AWS takes nothing that it signs.";
    SecretsFailed = "secrets-failed", 50,
        "A secret could not be made.";
    RenderFailed = "render-failed", 55,
        "The server's configuration could not be written.";
    ServerMissing = "server-missing", 60,
        "The program `cirrus-server` was not found or cannot be run.";
    ServerExited = "server-exited", 61,
        "The server ended before it was ready.";
    ServerSilent = "server-silent", 62,
        "The server runs, but no XMPP stream opened in time.";
    AccountFailed = "account-failed", 63,
        "The server is up, but the first account could not be made.";
    Interrupted = "interrupted", 70,
        "A signal ended the boot before the server was ready.";
    Internal = "internal", 99,
        "A fault of cirrus-bootstrap itself.";
}

impl Code {
    /// Whether it is a fault of the command line or of the user-data, neither of which changes
    /// while the machine runs: so another try ends in the same way. What stands elsewhere may be
    /// put right.
    pub const fn lasts(self) -> bool {
        matches!(self.exit(), 2 | 10..=21)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The table of outcomes, in Markdown.
pub fn table() -> String {
    let row = |c: &Code| format!("| {} | `{}` | {} |\n", c.exit(), c.name(), c.meaning());
    let rows: String = Code::ALL.iter().map(row).collect();
    format!("| exit code | `code=` | meaning |\n|---|---|---|\n{rows}")
}

/// The table of outcomes, for `--help`.
pub fn help() -> String {
    let row = |c: &Code| format!("  {:>3}  {:<24} {}\n", c.exit(), c.name(), c.meaning());
    Code::ALL.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::Code;

    /// docs/BOOT.md holds the table of codes between two marks.
    #[test]
    fn the_document_is_current() {
        const BEGIN: &str = "<!-- codes -->\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/BOOT.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (head, rest) = text.split_once(BEGIN).unwrap();
        let (_, tail) = rest.split_once("<!-- end -->").unwrap();
        let expected = format!("{head}{BEGIN}{}<!-- end -->{tail}", super::table());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &expected).unwrap();
            return;
        }
        assert!(
            text == expected,
            "docs/BOOT.md is not current; UPDATE_GOLDEN=1 cargo test -p cirrus-bootstrap writes it"
        );
    }

    /// The unit on the machine image tries again after every other fault.
    #[test]
    fn the_unit_does_not_try_again_what_lasts() {
        let unit = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../cloud-init/root/usr/lib/systemd/system/cirrus-bootstrap.service"
        );
        let unit = std::fs::read_to_string(unit).unwrap();
        let lines = unit.lines();
        let prevented: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("RestartPreventExitStatus="))
            .collect();
        let lasting = Code::ALL.iter().filter(|code| code.lasts());
        let lasting: Vec<String> = lasting.map(|code| code.exit().to_string()).collect();
        assert_eq!(prevented, [lasting.join(" ")]);
    }

    #[test]
    fn names_and_exit_codes_are_unique_and_sorted() {
        for pair in Code::ALL.windows(2) {
            let [a, b] = pair else { continue };
            assert!(
                a.exit() < b.exit() || (a.exit(), b.exit()) == (0, 0),
                "{a} {b}"
            );
            assert_ne!(a.name(), b.name());
        }
    }
}
