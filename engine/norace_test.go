//go:build !race && !s390x

package engine_test

// vectorStride takes every vector.
const vectorStride = 1
