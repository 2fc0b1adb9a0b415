//! The files of one guest: a directory of this machine, and the open files in it. This code waits for nothing but the
//! disk. `host.rs` makes it async.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub struct Disk {
    dir: PathBuf,
    /// A handle is an index into this.
    files: Vec<Option<OpenFile>>,
}

struct OpenFile {
    file: File,
    is_journal: bool,
    /// Whether the file's name may be missing on the disk.
    is_new: Cell<bool>,
}

impl Disk {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), files: Vec::new() }
    }

    /// Returns the handle.
    pub fn open(&mut self, name: &[u8], create: bool) -> Result<u32> {
        let path = self.path(name)?;
        let is_new = Cell::new(!path.exists());
        let file = File::options().read(true).write(true).create(create).open(path)?;
        let open = OpenFile { file, is_journal: name.ends_with(b"-journal"), is_new };
        let handle = self.files.iter().position(Option::is_none).unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() - 1
        });
        self.files[handle] = Some(open);
        u32::try_from(handle).map_err(Error::other)
    }

    pub fn close(&mut self, handle: u32) -> Result<()> {
        self.file(handle)?;
        self.files[handle as usize] = None;
        Ok(())
    }

    /// Returns how many bytes were read.
    pub fn read(&self, handle: u32, to: &mut [u8], offset: u64) -> Result<usize> {
        let file = &self.file(handle)?.file;
        let mut done = 0;
        while done < to.len() {
            match file.read_at(&mut to[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    pub fn write(&self, handle: u32, from: &[u8], offset: u64) -> Result<()> {
        self.file(handle)?.file.write_all_at(from, offset)
    }

    pub fn truncate(&self, handle: u32, size: u64) -> Result<()> {
        self.file(handle)?.file.set_len(size)
    }

    pub fn sync(&self, handle: u32) -> Result<()> {
        let open = self.file(handle)?;
        open.file.sync_data()?;
        if open.is_new.replace(false) {
            self.sync_names()?;
        }
        Ok(())
    }

    pub fn size(&self, handle: u32) -> Result<u64> {
        Ok(self.file(handle)?.file.metadata()?.len())
    }

    pub fn delete(&self, name: &[u8], sync: bool) -> Result<()> {
        fs::remove_file(self.path(name)?)?;
        if sync { self.sync_names() } else { Ok(()) }
    }

    pub fn exists(&self, name: &[u8]) -> Result<bool> {
        self.path(name)?.try_exists()
    }

    /// Whether a handle refers to a database, and not to its journal.
    pub fn is_database(&self, handle: u32) -> bool {
        self.file(handle).is_ok_and(|open| !open.is_journal)
    }

    /// Makes sure that created and deleted files stay that way.
    fn sync_names(&self) -> Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// The path of a file that the guest names. The guest sees nothing but this one directory.
    fn path(&self, name: &[u8]) -> Result<PathBuf> {
        match str::from_utf8(name) {
            Ok(name) if Path::new(name).file_name() == Some(name.as_ref()) => Ok(self.dir.join(name)),
            _ => Err(Error::new(ErrorKind::InvalidInput, "not the name of a file")),
        }
    }

    fn file(&self, handle: u32) -> Result<&OpenFile> {
        let open = self.files.get(handle as usize).and_then(Option::as_ref);
        open.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not the handle of an open file"))
    }
}
