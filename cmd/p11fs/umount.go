package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/mountd/mountpoint"
)

func newUmount(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "umount [MOUNTPOINT]",
		Aliases: []string{"unmount"},
		Short:   "Unmount the tokens; their daemon then ends",
		Args:    cobra.MaximumNArgs(1),
	}
	mount := mountFlag(c)
	lazy := c.Flags().BoolP("lazy", "z", false, "take it away although it is in use; what is open has 10 s left")
	c.RunE = func(c *cobra.Command, args []string) error {
		path := *mount
		if len(args) > 0 {
			path = args[0]
		}
		if path == "" {
			t, err := findTree("", os.Getenv)
			if err != nil {
				return err
			}
			path = t.dir
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
			return fmt.Errorf("%w on %s", errNotMounted, path)
		case state == mountpoint.Stale || *lazy:
			return mountpoint.Detach(c.Context(), path)
		}
		err = mountpoint.Unmount(c.Context(), path)
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("%w: something in it is in use (see it with: fuser -vm %s; or add --lazy)", err, path)
		}
		return err
	}
	return c
}
