// Package etcdtest runs etcd clusters within a test process: members with TLS and client
// certificates that can be killed and started again, and hosts whose links to the members
// can be cut, one way or both.
package etcdtest
