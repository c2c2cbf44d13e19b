//! Files that stand under their name whole or not at all.

use std::path::Path;
use std::{fs, io};

/// Writes `bytes` aside, under the name of `path` with `.tmp` behind it, and then renames them; where that fails nothing of them is
/// left, on a full disk either.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let written = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // What cannot be deleted either is told by the first error.
        let _ = fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("page.html");
        write(&path, "old").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        // A folder that is not empty cannot be replaced.
        let folder = place.path().join("folder");
        fs::create_dir_all(folder.join("inner")).unwrap();
        write(&folder, "text").unwrap_err();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }
}
