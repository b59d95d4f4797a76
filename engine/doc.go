// Package engine applies the rules of PKCS#11.
package engine
