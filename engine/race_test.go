//go:build race

package engine_test

// vectorStride thins the whole set of vectors out.
const vectorStride = 37
