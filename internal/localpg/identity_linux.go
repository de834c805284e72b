//go:build linux && !localpg_portable

package localpg

import (
	"os"
	"syscall"
)

// overflowID is the number that Linux itself uses for "no user of this namespace",
// named nobody nearly everywhere. initdb wants the name.
const overflowID = 65534

// namespaced is root's best way: a user namespace in which root is called nobody.
// PostgreSQL is content, it has no capability, and the files stay root's, so that
// they need no other path, owner or mode than the rest of the folder.
func namespaced() []identity {
	return []identity{{
		name: "nobody in a user namespace",
		attr: func() *syscall.SysProcAttr {
			return &syscall.SysProcAttr{
				Cloneflags:                 syscall.CLONE_NEWUSER,
				UidMappings:                []syscall.SysProcIDMap{{ContainerID: overflowID, HostID: os.Geteuid(), Size: 1}},
				GidMappings:                []syscall.SysProcIDMap{{ContainerID: overflowID, HostID: os.Getegid(), Size: 1}},
				GidMappingsEnableSetgroups: false,
			}
		},
	}}
}
