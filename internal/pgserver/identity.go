//go:build unix

package pgserver

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"cdc/internal/child"
)

// identity is the user a server runs as. The zero value is the current user.
type identity struct {
	drop bool // this process is root: run as uid and gid
	uid  uint32
	gid  uint32
	name string
}

// nobody is the kernel's overflow user; it needs no entry in /etc/passwd.
const nobody = 65534

// serverIdentity decides which user the server runs as.
func serverIdentity() identity {
	if os.Geteuid() != 0 {
		return identity{}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.ParseUint(u.Uid, 10, 32)
		gid, errG := strconv.ParseUint(u.Gid, 10, 32)
		if errU == nil && errG == nil && uid != 0 {
			return identity{drop: true, uid: uint32(uid), gid: uint32(gid), name: name}
		}
	}
	return identity{drop: true, uid: nobody, gid: nobody, name: strconv.Itoa(nobody)}
}

// user is the identity as a child process takes it.
func (id identity) user() child.User {
	return child.User{Drop: id.drop, UID: id.uid, GID: id.gid}
}

// own gives path and everything below it to the identity.
func (id identity) own(path string) error {
	if !id.drop {
		return nil
	}
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(id.uid), int(id.gid))
	})
}

// reach fails when a directory above path cannot be entered by the identity.
func (id identity) reach(path string) error {
	if !id.drop {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !id.enters(info) {
			return fmt.Errorf("PostgreSQL refuses to run as root, so it runs as user %s, which cannot enter %s (mode %v): choose a directory outside of it, for example below %s, or run as another user than root",
				id.name, dir, info.Mode().Perm(), os.TempDir())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// enters says that the identity may search the directory.
func (id identity) enters(info fs.FileInfo) bool {
	mode := info.Mode().Perm()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		switch {
		case stat.Uid == id.uid:
			return mode&0o100 != 0
		case stat.Gid == id.gid:
			return mode&0o010 != 0
		}
	}
	return mode&0o001 != 0
}
