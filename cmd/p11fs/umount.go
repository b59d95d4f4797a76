package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/mountd/mountpoint"
)

func newUmount(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "umount [MOUNTPOINT]",
		Aliases: []string{"unmount"},
		Short:   "Unmount the tokens; their daemon then ends",
		Long: `Unmount the tokens; their daemon then ends. Without MOUNTPOINT these are your own,
on $P11FS_MOUNT or at their usual place; any other mount is named.`,
		Args: takes(0, 1),
	}
	mount := mountFlag(c)
	lazy := c.Flags().BoolP("lazy", "z", false, "take it away although it is in use; what is open has 3 s left")
	c.RunE = func(c *cobra.Command, args []string) error {
		path := cmp.Or(*mount, os.Getenv(mountEnv))
		if len(args) > 0 {
			path = args[0]
		}
		if path == "" {
			home, _ := os.UserHomeDir()
			paths, err := mountd.UserPaths(os.Getenv, home)
			if err != nil {
				return err
			}
			path = paths.Mount
		}
		path, err := mountpoint.Resolve(path)
		if err != nil {
			return err
		}
		state, err := mountpoint.Probe(path)
		if err != nil {
			return err
		}
		switch {
		case state == mountpoint.Free:
			return fmt.Errorf("%w on %s%s", errNotMounted, path, elsewhere())
		case state == mountpoint.Stale || *lazy:
			return mountpoint.Detach(c.Context(), path)
		}
		err = mountpoint.Unmount(c.Context(), path)
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("%w: something in it is in use: fuser -vm %s shows it, and --lazy takes it away all the same", err, path)
		}
		return err
	}
	return c
}

// elsewhere says which mounts there are, for who has not named one. umount takes none
// of them by itself: where the first one has gone, a second try would end another.
func elsewhere() string {
	mounts, _ := mountpoint.Ours() // none where they cannot be read
	var lines []string
	for _, m := range mounts {
		if uid := os.Getuid(); uid == 0 || m.UserID() == strconv.Itoa(uid) {
			lines = append(lines, "p11fs umount "+shellQuote(m.Path))
		}
	}
	if lines == nil {
		return ""
	}
	return ": what is mounted ends with " + strings.Join(lines, ", or ")
}
