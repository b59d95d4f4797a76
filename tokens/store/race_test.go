//go:build race

package store

// manyObjects is less with the race detector, which is not there for speed.
const manyObjects = 10_000

// slowPIN is how many rounds make a PIN take its time.
const slowPIN = 100_000

// not312 are the tests of crashes at each step: format 3.8 has them with the race detector,
// and both formats have them without.
const not312 = "TestKilled|TestFailing|TestPowerCut"
