use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Exit, Failure, Outcome};
use crate::{output, reference};

/// Write the reference pages, which are made from the code, into a folder.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Generate {
    /// Folder that the pages are written into.
    folder: PathBuf,
}

impl Generate {
    pub(crate) fn run(self) -> Outcome {
        for (name, text) in reference::pages()? {
            let path: PathBuf = Path::new(&self.folder).join(name);
            std::fs::write(&path, text).map_err(|fault| Failure::of_writing(&path, &fault))?;
            output::note(&format!("wrote {}", path.display()));
        }
        Ok(Exit::Done)
    }
}
