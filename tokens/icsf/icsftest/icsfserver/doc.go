// Package icsfserver is a server that answers as z/OS does when a program uses the PKCS#11
// services of ICSF over LDAP: for tests, and to try the icsf token without a mainframe. Its
// tokens lie in memory, unprotected, and are gone when it ends.
//
// Stock openCryptoki's icsf token has judged it. What it cannot prove is what only z/OS knows:
// its defaults, limits, reason codes and access control.
package icsfserver
