// Package icsf is the kind of token whose objects and keys are those of a token of ICSF on
// z/OS, reached through a directory server: what stock openCryptoki's icsf token is, on the
// same server, with the same configuration and the same files.
//
// # What is where
//
// The token directory has the PINs: NVTOK.DAT, and with MECH = SIMPLE the master key under
// them, which opens the server's password. All objects are on the server. The index has them
// as they were read last; what others change is seen within a second if it is an object that
// comes or goes, and within a minute if it is an attribute.
//
// Private and secret keys are used on the server, in one call for a signature: what is signed
// is hashed and padded here. Public keys are used here. Values of keys are never kept here,
// also where the server would tell them.
//
// A private object is hidden before the user logs in, though the server would show it: to the
// server all programs are one user.
package icsf
