//! The secrets that the admin API and the door of workers ask for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

/// A secret that can be read anew from its file. It is never shown.
#[derive(Default)]
pub(crate) struct Token {
    /// Nothing if none is asked for; that does not change.
    secret: Option<RwLock<Arc<str>>>,
    file: Option<PathBuf>,
    /// Who presents it, for the log.
    of: &'static str,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Token {
    /// This secret of somebody, and the file that it came from if it is from one.
    pub(crate) fn new(of: &'static str, secret: Option<String>, file: Option<PathBuf>) -> Self {
        let secret = secret.filter(|secret| !secret.is_empty());
        Self { secret: secret.map(|secret| RwLock::new(secret.into())), file, of }
    }

    /// Whether one is asked for.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether whoever presents this may go on; in a time that does not tell how much of it was right.
    pub(crate) fn admits(&self, presented: &str) -> bool {
        let Some(secret) = &self.secret else { return true };
        presented.as_bytes().ct_eq(secret.read().as_bytes()).into()
    }

    /// Reads its file anew; if there is no token in it, the one that was there stays.
    pub(crate) fn reload(&self) {
        let (Some(secret), Some(file)) = (&self.secret, &self.file) else { return };
        let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let read = read.and_then(|text| match text.trim() {
            "" => Err("there is no token in it".to_owned()),
            token => Ok(token.into()),
        });
        match read {
            Ok(token) => {
                *secret.write() = token;
                tracing::info!(of = self.of, "a token was read anew");
            }
            Err(error) => {
                let file = tracing::field::display(file.display());
                tracing::error!(of = self.of, file, error, "a token is not read anew");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_token_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let token = Token::new("of a test", Some("old".to_owned()), Some(file.clone()));
        token.reload();
        assert!(token.admits("old"), "there is no file");
        std::fs::write(&file, " \n").unwrap();
        token.reload();
        assert!(token.admits("old") && !token.admits(""));
        std::fs::write(&file, "new\n").unwrap();
        token.reload();
        assert!(token.admits("new") && !token.admits("old"));
        assert!(!format!("{token:?}").contains("new"));
    }

    #[test]
    fn where_none_is_asked_for_none_comes_with_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "new").unwrap();
        let token = Token::new("of a test", Some(String::new()), Some(file));
        token.reload();
        assert!(token.admits("anything") && !token.is_asked_for());
    }
}
