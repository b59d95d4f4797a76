package icsf

import "testing"

// TestHostOf is of what the advice has ping ask for.
func TestHostOf(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"ldap://host": "host", "ldaps://host.example.org:636": "host.example.org", "ldap://[2001:db8::1]:389": "2001:db8::1", "ldap://host:3389/": "host",
	} {
		if got := hostOf(uri); got != want {
			t.Errorf("%s: %q", uri, got)
		}
	}
}
