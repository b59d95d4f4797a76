// Package suites is here for its module's requirements: the PKCS#11 users whose
// own tests are run against the daemon. They are no requirements of p11fs.
package suites

import (
	_ "github.com/ThalesGroup/crypto11"
	_ "github.com/miekg/pkcs11"
)
