//go:build race || s390x

package engine_test

// vectorStride thins the whole set of vectors out, where there is a race detector, or an
// emulated processor.
const vectorStride = 37
