package mountd

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"p11fs/engine/grants"
	"p11fs/mountd/config"
)

// LoadGrants reads the grants of the daemon; nil is none.
func (c Config) LoadGrants() (*grants.Set, error) {
	slots, _, err := c.Slots()
	if err != nil {
		return nil, err
	}
	names := grants.Names{User: userID, Group: groupID}
	for _, s := range slots {
		if s.Kind != nil {
			names.Tokens = append(names.Tokens, s.Place.Name)
		}
	}
	return config.LoadGrants(c.Paths.Grants, config.Keeper{UID: os.Geteuid(), Group: -1}, names)
}

func userID(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return number(u.Uid)
}

func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return number(g.Gid)
}

func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}

// takeGrants has the engine go by the grants that the files have now. Where something is
// wrong with them, those from before go on, and the log says what.
func (d *Daemon) takeGrants(context.Context) error {
	set, err := d.conf.LoadGrants()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			d.log.Error("grants not taken; those from before stay", "err", strings.TrimSuffix(line, "\n"))
		}
		return nil
	}
	d.engine.SetGrants(set)
	d.grants.Store(set)
	if set != nil {
		d.log.Info("grants", "dir", d.conf.Paths.Grants, "grants", len(set.List))
	}
	return nil
}

// grantsState is what status says of the grants: how many there are tells root and the owner.
func (d *Daemon) grantsState(owner bool) string {
	switch set := d.grants.Load(); {
	case set == nil:
		return "none"
	case owner:
		return fmt.Sprintf("%d from %s", len(set.List), d.conf.Paths.Grants)
	}
	return "yes"
}
