package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newUnlock(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "unlock [TOKEN]",
		Short: "Have the daemon itself log in to a token, for services that have grants",
		Long: `Have the daemon log in to a token and stay so until p11fs lock, its end, a change of the
PIN, wrong PINs that lock it, or p11fs init. That gives nobody anything but those who have
grants for keys of the token (p11fs-grants(5)): they use them without a PIN. The user's PIN
is asked for without echo; if standard input is no terminal, it is its first line. A daemon
that is to do it at each start gets the PIN as a systemd credential or with p11fs mount
--hold. TOKEN may be left out where there is one only.

To set a PIN anew that wrong ones have locked: p11fs pin --unlock.`,
		Example: `  p11fs unlock swtok
  systemd-creds decrypt swtok.cred - | p11fs unlock swtok`,
		Args: takes(0, 1),
	}
	pinFile := c.Flags().String("pin-file", "", "read the PIN from the first line of this `FILE`")
	return onToken(c, func(c *cobra.Command, t tree, token string, _ []string) error {
		pin, err := getPIN(c.Context(), newAsker(s), *pinFile, "PIN", false)
		if err != nil {
			return err
		}
		defer pin.Close()
		return t.command("unlock "+token, token, "ctl", joinSecret("unlock ", pin, ""))
	})
}

func newLock(streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "lock [TOKEN]",
		Short: "End the login to a token that the daemon holds itself",
		Long: `End the login of p11fs unlock, or of the daemon's start. What is in progress by grants
ends, and who logged in himself stays so. Root may, the owner of the mount, and who is
logged in. TOKEN may be left out where there is one only.`,
		Args: takes(0, 1),
	}
	return onToken(c, func(_ *cobra.Command, t tree, token string, _ []string) error {
		return t.command("lock "+token, token, "ctl", fmt.Appendln(nil, "lock"))
	})
}
