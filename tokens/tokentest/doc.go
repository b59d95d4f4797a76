// Package tokentest is the suite that every kind of token passes
// (tokentest.Run), and what the tests of tokens share.
package tokentest
