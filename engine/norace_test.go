//go:build !race

package engine_test

// vectorStride takes every vector.
const vectorStride = 1
