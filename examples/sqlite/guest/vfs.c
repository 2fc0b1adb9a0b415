/* SQLite's door to the world: a VFS whose file operations are imports.
**
** To SQLite each import is an ordinary function that returns when it is done. The host serves them with async Rust
** (`src/disk.rs`) and suspends the guest while they wait.
**
** A database is used by one connection only, so nothing is locked.
*/
#include <string.h>
#include "sqlite3.h"

#define IMPORT(name) __attribute__((import_module("disk"), import_name(#name))) extern

/* Those that return an int give a negative number for "failed": the host has said why. */
IMPORT(open) int disk_open(const char *name, int name_len, int create);
IMPORT(close) int disk_close(int handle);
IMPORT(read) int disk_read(int handle, void *to, int len, sqlite3_int64 offset); /* gives how much there was */
IMPORT(write) int disk_write(int handle, const void *from, int len, sqlite3_int64 offset);
IMPORT(truncate) int disk_truncate(int handle, sqlite3_int64 size);
IMPORT(sync) int disk_sync(int handle);
IMPORT(size) sqlite3_int64 disk_size(int handle);
IMPORT(delete) int disk_delete(const char *name, int name_len, int sync_dir);
IMPORT(exists) int disk_exists(const char *name, int name_len);
/* These two are plain functions of the host: they have nothing to wait for. */
IMPORT(random) void disk_random(void *to, int len);
IMPORT(now) sqlite3_int64 disk_now(void); /* milliseconds since 1970 */

typedef struct {
  sqlite3_file base;
  int handle;
} File;

static int handle_of(sqlite3_file *file) { return ((File *)file)->handle; }

static int status(int outcome, int failure) { return outcome < 0 ? failure : SQLITE_OK; }

/* ---- Files ---- */

static int file_close(sqlite3_file *file) { return status(disk_close(handle_of(file)), SQLITE_IOERR_CLOSE); }

static int file_read(sqlite3_file *file, void *to, int len, sqlite3_int64 offset) {
  int got = disk_read(handle_of(file), to, len, offset);
  if (got < 0) return SQLITE_IOERR_READ;
  if (got == len) return SQLITE_OK;
  memset((char *)to + got, 0, len - got);
  return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *from, int len, sqlite3_int64 offset) {
  return status(disk_write(handle_of(file), from, len, offset), SQLITE_IOERR_WRITE);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size) {
  return status(disk_truncate(handle_of(file), size), SQLITE_IOERR_TRUNCATE);
}

static int file_sync(sqlite3_file *file, int flags) {
  return status(disk_sync(handle_of(file)), SQLITE_IOERR_FSYNC);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size) {
  *size = disk_size(handle_of(file));
  return *size < 0 ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

static int file_lock(sqlite3_file *file, int level) { return SQLITE_OK; }

static int file_check_reserved_lock(sqlite3_file *file, int *reserved) {
  *reserved = 0;
  return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int op, void *arg) { return SQLITE_NOTFOUND; }

static int file_sector_size(sqlite3_file *file) { return 4096; }

static int file_device_characteristics(sqlite3_file *file) { return 0; }

static const sqlite3_io_methods file_methods = {
  .iVersion = 1,
  .xClose = file_close,
  .xRead = file_read,
  .xWrite = file_write,
  .xTruncate = file_truncate,
  .xSync = file_sync,
  .xFileSize = file_size,
  .xLock = file_lock,
  .xUnlock = file_lock,
  .xCheckReservedLock = file_check_reserved_lock,
  .xFileControl = file_control,
  .xSectorSize = file_sector_size,
  .xDeviceCharacteristics = file_device_characteristics,
};

/* ---- The file system ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
  file->pMethods = 0;
  /* Temporary files have no name. There are none: they are kept in memory (see the options in `build.rs`). */
  if (!name) return SQLITE_CANTOPEN;
  int handle = disk_open(name, strlen(name), (flags & SQLITE_OPEN_CREATE) != 0);
  if (handle < 0) return SQLITE_CANTOPEN;
  ((File *)file)->handle = handle;
  file->pMethods = &file_methods;
  if (out_flags) *out_flags = flags;
  return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir) {
  return status(disk_delete(name, strlen(name), sync_dir), SQLITE_IOERR_DELETE);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result) {
  *result = disk_exists(name, strlen(name));
  return status(*result, SQLITE_IOERR_ACCESS);
}

/* The host knows files by their bare name. */
static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out) {
  sqlite3_snprintf(size, out, "%s", name);
  return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int len, char *to) {
  disk_random(to, len);
  return len;
}

/* SQLite sleeps only to wait for locks. */
static int vfs_sleep(sqlite3_vfs *vfs, int microseconds) { return 0; }

static int vfs_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *now) {
  *now = disk_now() + 210866760000000; /* from 1970 to the start of the Julian calendar */
  return SQLITE_OK;
}

static int vfs_current_time(sqlite3_vfs *vfs, double *now) {
  sqlite3_int64 milliseconds;
  vfs_current_time_int64(vfs, &milliseconds);
  *now = milliseconds / 86400000.0;
  return SQLITE_OK;
}

static int vfs_get_last_error(sqlite3_vfs *vfs, int size, char *out) { return 0; }

static sqlite3_vfs vfs = {
  .iVersion = 2,
  .szOsFile = sizeof(File),
  .mxPathname = 255,
  .zName = "host",
  .xOpen = vfs_open,
  .xDelete = vfs_delete,
  .xAccess = vfs_access,
  .xFullPathname = vfs_full_pathname,
  .xRandomness = vfs_randomness,
  .xSleep = vfs_sleep,
  .xCurrentTime = vfs_current_time,
  .xGetLastError = vfs_get_last_error,
  .xCurrentTimeInt64 = vfs_current_time_int64,
};

/* SQLite calls these two by itself. */
int sqlite3_os_init(void) { return sqlite3_vfs_register(&vfs, 1); }

int sqlite3_os_end(void) { return SQLITE_OK; }
