//go:build !race

package swtok

// fewSignatures is how many TestSignatures makes with each key, of its own accord.
const fewSignatures = 20
