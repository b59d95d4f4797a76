//go:build race

package swtok

// fewSignatures is how many TestSignatures makes with each key, of its own accord; the race
// detector makes the curves' arithmetic 50 times slower.
const fewSignatures = 5
