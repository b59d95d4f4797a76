//go:build race

package store

// manyObjects is less with the race detector, which is not there for speed.
const manyObjects = 10_000
