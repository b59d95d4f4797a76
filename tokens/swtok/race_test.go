//go:build race

package swtok

// archiveStride thins the whole archive out under the race detector, which makes
// the curves' arithmetic 50 times slower and has nothing to find in it.
const archiveStride = 37
