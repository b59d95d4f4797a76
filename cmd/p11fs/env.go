package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func newEnv(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "env",
		Short: "Print the variables that lead PKCS#11 programs to the daemon",
		Long: `Print the variables that lead PKCS#11 programs to your own daemon, as commands of
a shell: P11_KIT_SERVER_ADDRESS for p11-kit-client.so, P11FS_SOCKET for
libp11fs.so. The daemon need not run yet.`,
		Example: `  eval "$(p11fs env)"`,
		Args:    takes(0, 0),
	}
	where := placeFlags(c)
	c.RunE = func(*cobra.Command, []string) error {
		_, paths, err := where()
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "export P11_KIT_SERVER_ADDRESS=%s\n", shellQuote("unix:path="+addressEscape(paths.RPC)))
		fmt.Fprintf(s.out, "export P11FS_SOCKET=%s\n", shellQuote(paths.RPC))
		return nil
	}
	return c
}

// addressEscape writes a path as p11-kit's addresses have it: percent-encoded
// where a byte has a meaning in them, with the slashes left readable.
func addressEscape(path string) string {
	return strings.ReplaceAll(url.PathEscape(path), "%2F", "/")
}
