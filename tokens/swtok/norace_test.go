//go:build !race

package swtok

// archiveStride takes every vector of the archive.
const archiveStride = 1
