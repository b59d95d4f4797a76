//go:build !race

package store

// manyObjects is what a token must be able to hold.
const manyObjects = 100_000
