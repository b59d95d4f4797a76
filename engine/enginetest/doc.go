// Package enginetest generates tests that every door to the engine passes: what
// PKCS#11 says of each function in each state of a session, its login and its
// operations. It knows the standard and no engine.
package enginetest
