//go:build !race

package store

// manyObjects is what a token must be able to hold.
const manyObjects = 100_000

// slowPIN is how many rounds make a PIN take its time, the most that a directory may ask for.
const slowPIN = 1_000_000

// not312 are tests that format 3.12 does without.
const not312 = ""
