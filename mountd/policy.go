package mountd

import (
	"context"
	"fmt"
	"os"

	"p11fs/engine/policy"
	"p11fs/locks"
	"p11fs/mountd/config"
)

// LoadPolicy reads the policy of the daemon; nil is none.
func (c Config) LoadPolicy() (*policy.Policy, error) {
	keeper := config.Keeper{UID: os.Geteuid(), Group: -1, Exact: c.Mode == System}
	if group := c.group(); group != locks.NoGroup {
		keeper.Group = group
	}
	return config.LoadPolicy(c.Paths.Policy, c.Paths.Strength, keeper)
}

// loadPolicy reads the policy. With one that is wrong the daemon does not start, as
// openCryptoki's library does not: nobody is to work without what it would forbid.
func (d *Daemon) loadPolicy(context.Context) error {
	var err error
	if d.policy, err = d.conf.LoadPolicy(); err != nil {
		return fmt.Errorf("the policy: %w", err)
	}
	if d.policy != nil {
		d.log.Info("policy", "file", d.policy.Name, "allows", d.policy.String())
	}
	return nil
}

// policyState is what status says of the policy.
func (d *Daemon) policyState() string {
	if d.policy == nil {
		return "none"
	}
	return d.policy.Name + ": " + d.policy.String()
}
