//! Where a password comes from: a terminal without echo, or the first line of standard input.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Bytes of a line that may be a password; more is refused by the server anyway.
const MAX_LINE: u64 = 4_096;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Nothing was given.
    #[error("no password was given: type one, or write it to standard input")]
    None,
    /// The second time something else was typed.
    #[error("the two passwords differ")]
    Differ,
    /// It can't be read.
    #[error("the password can't be read: {0}")]
    Read(#[from] io::Error),
}

/// Asks for a new password, twice on a terminal.
pub(crate) fn read(jid: &str) -> Result<String, PasswordError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return first_line(stdin.lock());
    }
    let first = ask(&format!("New password for {jid}: "))?;
    if ask("Once more: ")? == first {
        Ok(first)
    } else {
        Err(PasswordError::Differ)
    }
}

fn first_line(input: impl BufRead) -> Result<String, PasswordError> {
    let mut line = String::new();
    input.take(MAX_LINE).read_line(&mut line)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        Err(PasswordError::None)
    } else {
        Ok(line.to_owned())
    }
}

fn ask(question: &str) -> Result<String, PasswordError> {
    let mut terminal = io::stderr();
    terminal.write_all(question.as_bytes())?;
    let line = {
        let _quiet = Quiet::new()?;
        first_line(io::stdin().lock())
    };
    terminal.write_all(b"\n")?;
    line
}

/// Keeps the terminal from showing what is typed, as long as it lives.
struct Quiet(Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // If it fails the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        assert_eq!(
            first_line(&b"s3cret word\nmore\n"[..]).unwrap(),
            "s3cret word"
        );
        assert_eq!(first_line(&b"s3cret\r\n"[..]).unwrap(), "s3cret");
        assert_eq!(first_line(&b" s3cret "[..]).unwrap(), " s3cret ");
        assert!(matches!(first_line(&b""[..]), Err(PasswordError::None)));
        assert!(matches!(first_line(&b"\n"[..]), Err(PasswordError::None)));
        assert!(matches!(
            first_line(&b"\xff\n"[..]),
            Err(PasswordError::Read(_))
        ));
        assert_eq!(first_line(&[b'x'; 10_000][..]).unwrap().len(), 4_096);
    }
}
