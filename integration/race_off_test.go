//go:build !race

package integration

// raceEnabled says that the tests, and so the binary, have the race detector.
const raceEnabled = false
