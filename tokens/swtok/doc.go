// Package swtok is the software token: a token directory (tokens/store) and
// cryptography over a Provider, which is the system's libcrypto where it can be
// loaded and Go's library otherwise. Crypto is for other storages too.
//
// Crypto holds the rules of the mechanisms: lengths, key sizes, and which CK_RV
// says what is wrong. What a mechanism does is its row's family (mechanism.go). A
// Provider holds primitives. A parsed key is the memo of its object
// (tokens.Object.Memo), so that an operation finds it ready; an operation holds
// its key from Begin to Close.
//
// All operations work in parts and in constant memory but those whose
// mechanism must see everything first: AES key wrap, authenticated decryption, which
// gives nothing out before all has been checked, and signatures of a message that is not
// hashed before. They hold at most 64 MiB.
package swtok
